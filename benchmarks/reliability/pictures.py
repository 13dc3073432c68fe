"""Damaged pictures of every format through the reader: crashes, hangs, errors that name no file, memory.

    python benchmarks/reliability/pictures.py --cases 20000     # mutated files
    python benchmarks/reliability/pictures.py --large           # whole pictures of 24 to 200 million pixels

Every case is made from its number alone, so one can be run again: ``--first 1234 --cases 1``. The work is done by
processes of their own (Linux), so that a crash is counted and the rest goes on.
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

from xretrieve.data.folder import picture_suffixes
from xretrieve.data.pictures import read_picture
from xretrieve.errors import XRetrieveError

SECONDS = 10  # more is a hang
ADDRESS_SPACE = 6 * 2**30  # bytes of a worker
BOUND = 300  # MB of memory that one picture may take
NAME = "the picture that was sent"


def seeds() -> list[tuple[str, bytes]]:
    """Small whole files of every format that is read, in its variants, as (name, bytes)."""
    coarse = np.random.default_rng(0).integers(0, 256, (9, 12, 4), dtype=np.uint8)
    clear = Image.fromarray(coarse).resize((96, 72), Image.Resampling.BICUBIC)
    rgb, grey = clear.convert("RGB"), clear.convert("L")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a photo"
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Comment", "text " * 200, zip=True)
    texts.add_itxt("XML:com.adobe.xmp", "<x/>" * 99, zip=True)
    moving: dict[str, Any] = {"save_all": True, "append_images": [rgb.rotate(90), rgb.rotate(180)]}
    made: list[tuple[str, Image.Image, str, dict[str, Any]]] = [
        ("jpeg", rgb, "JPEG", {"exif": exif, "icc_profile": b"\0" * 500}),
        ("jpeg progressive", rgb, "JPEG", {"progressive": True, "quality": 95}),
        ("jpeg grey", grey, "JPEG", {}),
        ("jpeg cmyk", rgb.convert("CMYK"), "JPEG", {"subsampling": 0}),
        ("jpeg pair", rgb, "MPO", moving),
        ("png", rgb, "PNG", {"pnginfo": texts, "icc_profile": b"\0" * 900, "exif": exif}),
        ("png clear", clear, "PNG", {}),
        ("png palette", rgb.quantize(16), "PNG", {"transparency": 3}),
        ("png 16 bits", deep, "PNG", {}),
        ("png moving", rgb, "PNG", moving),
        ("webp", rgb, "WEBP", {"exif": exif}),
        ("webp lossless", clear, "WEBP", {"lossless": True}),
        ("webp moving", rgb, "WEBP", moving),
        ("gif", rgb.quantize(64), "GIF", {"transparency": 1}),
        ("gif moving", rgb, "GIF", moving),
        ("bmp", rgb, "BMP", {}),
        ("bmp palette", rgb.quantize(64), "BMP", {}),
        ("tiff", rgb, "TIFF", {"exif": exif}),
        ("tiff lzw", clear, "TIFF", {"compression": "tiff_lzw"}),
        ("tiff jpeg", rgb, "TIFF", {"compression": "jpeg"}),
        ("tiff deflate", deep, "TIFF", {"compression": "tiff_deflate"}),
        ("tiff fax", grey.convert("1"), "TIFF", {"compression": "group4"}),
        ("tiff float", Image.fromarray(np.asarray(grey).astype(np.float32)), "TIFF", {}),
    ]
    known = picture_suffixes()
    made += [("avif", rgb, "AVIF", {"exif": exif}), ("avif clear", clear, "AVIF", {})] if ".avif" in known else []
    made += [("heif", rgb, "HEIF", {"exif": exif}), ("heif clear", clear, "HEIF", {})] if ".heic" in known else []
    files = []
    for name, picture, kind, options in made:
        out = io.BytesIO()
        picture.save(out, kind, **options)
        files.append((name, out.getvalue()))
    return files


def mutated(files: list[tuple[str, bytes]], case: int) -> tuple[str, bytes]:
    """Case number ``case``: one of the files with one to four pieces of damage."""
    rng = np.random.default_rng([7, case])
    name, whole = files[case % len(files)]
    data = bytearray(whole)
    for _ in range(1 + int(rng.integers(4))):
        # some of it in the head, where sizes and tables are
        place = int(rng.integers(len(data) if rng.random() < 0.7 else min(len(data), 120)))
        kind = int(rng.integers(9))
        if kind < 2:
            data[place] ^= 1 << int(rng.integers(8))
        elif kind == 2:
            data[place] = int(rng.integers(256))
        elif kind == 3:  # a number of extreme size
            extreme = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)[int(rng.integers(9))]
            wide = (1, 2, 4)[int(rng.integers(3))]
            order = ("big", "little")[int(rng.integers(2))]
            data[place : place + wide] = (extreme % 256**wide).to_bytes(wide, order)  # type: ignore[arg-type]
        elif kind == 4:  # what a failing disk gives
            length = int(rng.integers(1, 100))
            data[place : place + length] = bytes([(0, 255)[int(rng.integers(2))]]) * length
        elif kind == 5:
            del data[place : place + int(rng.integers(1, 40))]
        elif kind == 6:
            length = int(rng.integers(1, 200))
            data[place:place] = data[place : place + length]
        elif kind == 7 and place > 20 and rng.random() < 0.5:
            del data[place:]
        else:  # the head of one file, the rest of another
            other = files[int(rng.integers(len(files)))][1]
            data[place:] = other[place : place + 4000]
        if not data:
            data = bytearray(b"\0")
    return name, bytes(data)


def outcome(data: bytes, path: Path | None = None) -> str:
    """What the reader says of a file: ``read``, the kind of reason, or ``ESCAPED`` for any other error.

    path: write it there and read it from there; decoders go other ways then.
    """
    name = NAME if path is None else str(path)
    try:
        if path is not None:
            path.write_bytes(data)
        read_picture(data if path is None else path).getpixel((0, 0))
        return "read"
    except XRetrieveError as error:
        said = str(error)
        if not said.startswith(name):
            return f"ESCAPED no name: {said[:200]}"
        for kind in ("broken picture", "not a picture", "take", "too many", "empty", "memory", "exceeds"):
            if kind in said:
                return {"take": "too large", "too many": "too large", "exceeds": "too large"}.get(kind, kind)
        return f"other: {said[:80]}"
    except Exception as error:
        return f"ESCAPED {type(error).__name__}: {str(error)[:200]}"


def memory(key: str) -> float:
    """MB of this process: ``VmRSS`` now, ``VmHWM`` at most since :func:`forget`."""
    line = next(row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith(key))
    return int(line.split()[1]) * 1024 / 1e6


def forget() -> float:
    """Start to watch the memory anew; what is used now, in MB."""
    Path("/proc/self/clear_refs").write_text("5")
    return memory("VmRSS")


def work(first: int, cases: int) -> None:
    """Run some cases; a line on stdout after each, with its number, format, outcome and memory."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    files = seeds()
    for _, data in files:  # what the libraries keep from their first use
        outcome(data)
    own = tempfile.NamedTemporaryFile()
    for case in range(first, first + cases):
        name, data = mutated(files, case)
        before = forget()
        signal.alarm(SECONDS)
        told = outcome(data, Path(own.name) if case // len(files) % 2 else None)
        signal.alarm(0)
        print(json.dumps([case, name, told, round(memory("VmHWM") - before, 1)]), flush=True)


def run(first: int, cases: int, show: bool = False) -> dict[str, Any]:
    """All cases, in processes that are started again after a crash or a hang."""
    end, lines, deaths = first + cases, [], []
    while first < end:
        order = [sys.executable, __file__, "--worker", "--first", str(first), "--cases", str(end - first)]
        worker = subprocess.run(order, capture_output=True, text=True)
        rows = [json.loads(line) for line in worker.stdout.splitlines()]
        lines += rows
        first = rows[-1][0] + 1 if rows else first
        if worker.returncode:
            if worker.returncode > 0 and not rows:
                raise SystemExit(worker.stderr)
            deaths.append((first, -worker.returncode))
            first += 1
    outcomes = Counter(row[2] if not row[2].startswith("ESCAPED") else "escaped" for row in lines)
    worst = max(lines, key=lambda row: row[3], default=[0, "", "", 0.0])
    result = {
        "cases": cases,
        "formats": len({row[1] for row in lines}),
        "crashes": sum(number != signal.SIGALRM for _, number in deaths),
        "hangs": sum(number == signal.SIGALRM for _, number in deaths),
        "escaped": outcomes.pop("escaped", 0),
        "worst_memory_mb": worst[3],
        "worst": worst,
        "deaths": deaths,
        "outcomes": dict(outcomes.most_common()),
        "errors": [row for row in lines if row[2].startswith(("ESCAPED", "other"))][:20],
    }
    return result


def summary(told: dict[str, Any]) -> str:
    """One line."""
    said = ", ".join(f"{name} {count}" for name, count in told["outcomes"].items())
    return (
        f"pictures: {told['cases']} mutated files of {told['formats']} kinds: {told['crashes']} crashes, "
        f"{told['hangs']} hangs over {SECONDS} s, {told['escaped']} other errors, worst memory "
        f"{told['worst_memory_mb']:.0f} MB ({said})"
    )


LARGE = [
    ("JPEG", "RGB", 24, {}), ("JPEG", "RGB", 49, {}), ("JPEG", "RGB", 61, {}), ("JPEG", "RGB", 200, {}),
    ("JPEG", "RGB", 24, {"progressive": True, "subsampling": 0}), ("JPEG", "RGB", 49, {"progressive": True}),
    ("JPEG", "RGB", 200, {"progressive": True}), ("JPEG", "CMYK", 49, {}), ("JPEG", "L", 200, {}),
    ("PNG", "RGB", 24, {}), ("PNG", "RGB", 61, {}), ("PNG", "RGBA", 33, {}), ("PNG", "I;16", 33, {}),
    ("PNG", "P", 100, {}), ("PNG", "RGB", 100, {}), ("GIF", "P", 100, {}), ("BMP", "RGB", 49, {}),
    ("TIFF", "RGB", 24, {"compression": "tiff_lzw"}), ("TIFF", "RGB", 61, {}), ("WEBP", "RGB", 16, {}),
    ("WEBP", "RGB", 24, {}), ("WEBP", "RGB", 24, {"lossless": True, "method": 0}), ("WEBP", "RGBA", 24, {}),
    ("AVIF", "RGB", 24, {"speed": 10}), ("HEIF", "RGB", 24, {}), ("HEIF", "RGB", 49, {}),
]  # fmt: skip


def large(path: Path, kind: str, mode: str, millions: int, options: dict[str, Any]) -> None:
    """Write a turned picture of so many million pixels, for :func:`weigh`."""
    height = int((millions * 1e6 * 3 / 4) ** 0.5)
    coarse = np.random.default_rng(0).integers(0, 256, (60, 80, 4), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize((height * 4 // 3, height), Image.Resampling.BILINEAR)
    if mode == "I;16":
        picture = Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)
    else:
        picture = picture.convert("RGB").quantize(32) if mode == "P" else picture.convert(mode)
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(path, kind, **options, **({} if kind in ("GIF", "BMP") else {"exif": exif}))


def weigh(path: Path) -> None:
    """Read one picture; what it took as a line on stdout."""
    for _, data in seeds():
        outcome(data)
    import torchvision.io  # noqa: F401  counts for no picture

    before = forget()
    try:
        told = "{} x {}".format(*read_picture(path).size)
    except XRetrieveError as error:
        told = str(error).split(": ", 1)[1]
    print(json.dumps([round(memory("VmHWM") - before), told]))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--weigh", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, default=Path("."), help="where --large writes its files, one at a time")
    args = parser.parse_args()
    if args.worker:
        return work(args.first, args.cases)
    if args.weigh:
        return weigh(args.weigh)
    if args.large:
        worst = 0
        for row in LARGE:
            path = args.folder / f"large.{row[0].lower()}"
            # made in a process of its own, whose memory then goes
            code = f"from pictures import *; large(Path({str(path)!r}), *{row!r})"
            subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent)
            done = subprocess.run([sys.executable, __file__, "--weigh", str(path)], capture_output=True, text=True)
            took, told = json.loads(done.stdout)
            worst = max(worst, took)
            print(f"{row[0]:5} {row[1]:5} {row[2]:4} Mpx {row[3] or ''!s:40} {took:4} MB  {told}", flush=True)
            path.unlink()
        print(f"pictures: worst memory of a large picture {worst} MB (bound {BOUND} MB)")
        return None
    told = run(args.first, args.cases)
    for row in told["errors"]:
        print(row)
    print(f"worst: {told['worst']}; deaths (case, signal): {told['deaths']}")
    print(summary(told))
    return sys.exit(1 if told["crashes"] or told["hangs"] or told["escaped"] or told["worst_memory_mb"] > BOUND else 0)


if __name__ == "__main__":
    main()
