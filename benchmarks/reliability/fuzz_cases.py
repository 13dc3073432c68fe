"""What `fuzz.py` tries: eight kinds of input, each made wrong by a seed and given to what reads it.

A case may end in an answer or in one :class:`XRetrieveError`; anything else is a fault.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import pickle
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image

from benchmarks.reliability.mutate import ODD, spoil_bytes, spoil_value
from xretrieve.backbones import create_backbone
from xretrieve.backbones.vocabulary import Vocabulary
from xretrieve.backbones.weights import read_weights
from xretrieve.data import datasets
from xretrieve.data.base import FeatureRow
from xretrieve.data.check import check
from xretrieve.data.pictures import read_picture
from xretrieve.data.safe_pickle import read_arrays, read_vocabulary
from xretrieve.errors import XRetrieveError
from xretrieve.gallery import Gallery
from xretrieve.interop import import_checkpoint
from xretrieve.matcher import Matcher, build_head
from xretrieve.query import Image as Picture
from xretrieve.query import ImageText, MultiText, Text
from xretrieve.training.recipes import list_recipes, load_recipe, read_recipe
from xretrieve.utils.plain_values import load_plain

WORDS = (
    "a", "dog", "red", "snow", "犬", "🐶", "ö" * 30, "-", "--and", "%", "\n", "<b>", "\u202e", "e\u0301", "x" * 400,
)  # fmt: skip
OVERRIDES = (
    "seed", "name", "stages", "stages.0", "stages.0.lr", "stages.²", "stages.-1.lr", "stages.0.epochs", "expect",
    "dataset.options", "dataset", "head.options.dim", "image.options", "image.backbone", "protocol", "", "..", "a.b",
    "text", "head", "stages.99.lr", "stages.0.loss.name",
)  # fmt: skip
SCALARS = (
    "1", "-1", "1e400", ".nan", "null", "true", "[]", "{}", "[1, 2]", "{a: 1}", "'", '"\\ud800"', "*a", "&a [*a]",
    "!!int ''", "!!python/object/apply:os.system ['touch owned']", "2020-13-45", "9" * 30, "0x" + "f" * 400, "[" * 300,
    "a: b: c", "caf\udce9", "- x", "|", ">", "@", "`", "%", "\t", "flickr8k", "sgr", "1:1:1", "0o17", "~", "x" * 5000,
)  # fmt: skip
HEADERS = (b"(9**9,1,1)", b"(99999999999, 3, 4)", b"(-2, 3, 4)", b"(2, 3, 4e9)", b"('a',)")


class Owned:
    """Would leave a file behind if a reader ran it."""

    def __init__(self, mark: Path) -> None:
        self.mark = str(mark)

    def __reduce__(self) -> Any:
        return os.mkdir, (self.mark,)


class World:
    """Good files of every kind, made once.

    Args:
        folder: an empty one; ``owned`` in it would be the sign that code of a file ran.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.mark, self.work = folder, folder / "owned", folder / "work"
        torch.manual_seed(0)
        image = create_backbone("timm:test_resnet", modality="image", size=32, crop=1.0, pretrained=False, frozen=True)
        text = create_backbone("words", captions=["a red dog in the snow"], min_count=1, word_dim=8, dim=12)
        self.matcher = Matcher(image, text, build_head("dual", image, text, dim=8), name="tiny")
        self.photos = folder / "photos"
        self.photos.mkdir()
        for i in range(6):
            pixels = np.random.default_rng(i).integers(0, 256, (6, 8, 3), np.uint8)
            Image.fromarray(pixels).resize((64, 48)).save(self.photos / f"{i}.jpg")
        self.gallery = Gallery.build(self.matcher, self.photos, folder / "g.xr")
        self.pictures = {kind: self._picture(kind) for kind in ("jpeg", "png", "webp", "gif", "bmp", "tiff")}
        self.recipes = [read_recipe(Path("tasks", f"{name}.yaml")) for name in list_recipes()
                        if Path("tasks", f"{name}.yaml").is_file()]  # fmt: skip
        self.sets = self._annotations()

    def fresh(self) -> Path:
        """An empty folder for one case."""
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir()
        return self.work

    def _picture(self, kind: str) -> bytes:
        buffer = io.BytesIO()
        Image.open(self.photos / "0.jpg").save(buffer, kind)
        return buffer.getvalue()

    def _annotations(self) -> dict[str, dict[str, Any]]:
        """By dataset, files by their path below the data root: a text, or values for JSON."""
        names = ["a.jpg", "b.jpg"]
        entries = [{"filename": n, "split": "test", "imgid": i, "sentences": [{"raw": "a dog", "sentid": i}]}
                   for i, n in enumerate(names)]  # fmt: skip
        pairs = [{"candidate": "a", "target": "b", "captions": ["is red", "is long"]}]
        listed = {f"fashion_iq/image_splits/split.{c}.{s}.json": ["a", "b"] for c in ("dress", "shirt", "toptee")
                  for s in ("val", "test", "train")}  # fmt: skip
        caps = {f"fashion_iq/captions/cap.{c}.val.json": pairs for c in ("dress", "shirt", "toptee")}
        members = ["a", "b", "c"]
        row = {"id": "1", "title": "Men Blue Shirt", "gender_from_title": "Men", "master": "Apparel", "sub": "Topwear",
               "article": "Shirts", "colour": "Blue", "usage": "Casual", "image": "images/1.jpg"}  # fmt: skip
        coco = {"images": [{"id": 1, "file_name": "a.jpg"}],
                "annotations": [{"id": 1, "image_id": 1, "caption": "a dog"}]}  # fmt: skip
        return {
            "flickr8k test": {"flickr8k/dataset_flickr8k.json": {"images": entries}},
            "fashion_iq val": listed | caps,
            "cirr val": {"cirr/captions/cap.rc2.val.json": [{"pairid": 1, "reference": "a", "target_hard": "b",
                         "caption": "is red", "img_set": {"members": members}, "target_soft": {"b": 1.0}}],
                         "cirr/image_splits/split.rc2.val.json": {m: f"./dev/{m}.png" for m in members}},
            "shoes test": {"shoes/relative_captions_shoes.json": [{"ImageName": "a.jpg", "ReferenceImageName": "b.jpg",
                           "RelativeCaption": "is red"}], "shoes/train_im_names.txt": "c.jpg\nd.jpg\n",
                           "shoes/eval_im_names.txt": "a.jpg\nb.jpg\n"},
            "flickr30k test": {"f30k_precomp/test_caps.txt": "a dog\n" * 10, "f30k_precomp/test_ids.txt": "1\n2\n",
                               "f30k_precomp/id_mapping.json": {"1": "a.jpg"}},
            "mscoco val2017": {"coco/annotations/captions_val2017.json": coco,
                               "coco/annotations/regions.jsonl": json.dumps({"image": "a.jpg", "coco_id": 1, "boxes":
                               [{"bbox": [0, 0, 1, 1], "category": "dog"}], "captions": ["a dog"]}) + "\n"},
            "phrases test": {"phrases/phrases.jsonl": json.dumps({"image": "a.jpg", "phrase": "a dog",
                             "bbox": [0, 0, 1, 1]}) + "\n"},
            "products test": {"products/products.jsonl": json.dumps(row) + "\n"},
        }  # fmt: skip


def queries(rng: random.Random, world: World) -> None:
    """Texts, pictures, filters and numbers that nobody should send."""
    said = " ".join(rng.choices(WORDS, k=rng.choice((1, 1, 3, 40))))
    broken = spoil_bytes(rng, said.encode()).decode("utf-8", "surrogateescape")
    text: Any = rng.choice((said, said, said * 30, broken, rng.choice(ODD)))
    paths = (world.photos / "0.jpg", "x" * 5000, "a\0b", "nowhere.jpg", world.photos, "~nobody/x", "\ud800")
    path = rng.choice((paths[0], rng.choice(paths)))
    made: Callable[[], Any] = rng.choice((
        lambda: Text(text), lambda: text, lambda: MultiText([text, "dog"]), lambda: MultiText(text),
        lambda: Picture(path), lambda: ImageText(path, text),
    ))  # fmt: skip
    where = rng.choice((None, {"folder": "."}, {"folder": rng.choice(ODD)}, {rng.choice(WORDS): 1}, text))
    how = {
        "k": rng.choice((1, 10, 10**9, 0, -1, 2.5, True, None)),
        "where": where,
        "rerank": rng.choice((0, 5, "all", "auto", "x", -1)),
        "blend": rng.choice((0.5, 1, "auto", -3, "x", float("nan"))),
    }
    world.gallery.search(made(), **{key: value for key, value in how.items() if rng.random() < 0.3})


def recipes(rng: random.Random, world: World) -> None:
    """Recipe files of this repository with other values, keys, bytes."""
    path = world.fresh() / "recipe.yaml"
    good = rng.choice(world.recipes)
    if rng.random() < 0.5:
        path.write_bytes(yaml.safe_dump(spoil_value(rng, good), allow_unicode=False).encode())
    else:
        more = f"\nx: {rng.choice(SCALARS)}".encode("utf-8", "replace") if rng.random() < 0.5 else b""
        path.write_bytes(spoil_bytes(rng, yaml.safe_dump(good).encode()) + more)
    load_recipe(path)


def overrides(rng: random.Random, world: World) -> None:
    """`key=value` of the command line."""
    name = rng.choice(list_recipes())
    sets = [
        rng.choice(OVERRIDES) + rng.choice(("=", "", "==", "=")) + rng.choice(SCALARS)
        for _ in range(rng.choice((1, 1, 3)))
    ]
    load_recipe(name, sets)


def captions(rng: random.Random, world: World) -> None:
    """Annotation files of every dataset."""
    root, name = world.fresh(), rng.choice(list(world.sets))
    files = world.sets[name]
    hit = rng.choice(list(files))
    for place, content in files.items():
        path = root / place
        path.parent.mkdir(parents=True, exist_ok=True)
        if place == hit and not isinstance(content, str) and rng.random() < 0.6:
            content = spoil_value(rng, content)
        raw = (content if isinstance(content, str) else json.dumps(content)).encode("utf-8", "surrogatepass")
        if place == hit and place.endswith(".jsonl") and rng.random() < 0.6:
            raw = json.dumps(spoil_value(rng, json.loads(raw))).encode()
        elif place == hit and (isinstance(content, str) or rng.random() < 0.4):
            raw = spoil_bytes(rng, raw)
        path.write_bytes(raw)
    data, split = name.split()
    how = {"photos": str(world.photos)} if data in ("flickr8k", "phrases") and rng.random() < 0.5 else {}
    if rng.random() < 0.5:
        check(data, root, split, **how)
    else:
        datasets.load(data, root, split, **how)


def headers(rng: random.Random, world: World) -> None:
    """`.npy` files of region features: headers, sizes, types."""
    root = world.fresh() / "f30k_precomp"
    root.mkdir()
    kind = rng.choice(("float32", "float16", "float64", "int64", "<U3", "bool", "complex64", "V8"))
    shape = rng.choice(((2, 3, 4), (10, 3, 4), (2, 12), (0, 3, 4), (2, 3, 0), (10,), ()))
    buffer = io.BytesIO()
    np.save(buffer, np.ones(shape, kind) if kind[0] not in "<V" else np.zeros(shape, kind))
    content = buffer.getvalue()
    if rng.random() < 0.8:
        content = spoil_bytes(rng, content[:128]) + content[128:]
    if rng.random() < 0.3:
        content = content.replace(b"(2, 3, 4)", rng.choice(HEADERS))
    (root / "test_ims.npy").write_bytes(content)
    (root / "test_caps.txt").write_text("a dog\n" * 10)
    check("flickr30k", root.parent, "test", read=True)
    rows = [FeatureRow(root / "test_ims.npy", row) for row in (0, rng.choice((1, 5, -1, 10**9)))]
    create_backbone("regions", dim=4).encode(rows)


def checkpoints(rng: random.Random, world: World) -> None:
    """Pickles of others: damaged, with odd values, with code."""
    root = world.fresh()
    path = root / "best.pth.tar"
    state = {"fc.weight": torch.ones(2, 3), "fc.bias": torch.ones(2)}
    values = [np.float64(1), Path("/x"), argparse.Namespace(a=1), {"a": np.eye(2)}, *ODD]
    stored: Any = {"model": [state, state], "opt": rng.choice(values), "epoch": rng.choice(values), "state_dict": state}
    if rng.random() < 0.3:
        stored[rng.choice(list(stored))] = Owned(world.mark)
    if rng.random() < 0.7:
        torch.save(stored, path, _use_new_zipfile_serialization=rng.random() < 0.5)
    else:
        path.write_bytes(pickle.dumps(stored, protocol=rng.choice((0, 1, 2, 3, 4, 5))))
    if rng.random() < 0.6:
        path.write_bytes(spoil_bytes(rng, path.read_bytes()))
    vocab = root / "vocab.json"
    Vocabulary(["<pad>", "<start>", "<end>", "<unk>", "a"]).save(vocab)
    if rng.random() < 0.2:
        vocab.write_bytes(spoil_bytes(rng, vocab.read_bytes()))
    rng.choice((
        lambda: load_plain(path), lambda: read_weights(path), lambda: read_arrays(path), lambda: read_vocabulary(path),
        lambda: import_checkpoint(path, rng.choice(("scan", "sgr", "hmrn", "drilldown")), root / "run", vocab),
        lambda: import_checkpoint(path, "combiner", root / "run"),
    ))()  # fmt: skip


def pictures(rng: random.Random, world: World) -> None:
    """Damaged pictures of every format, and names that lie."""
    kind = rng.choice(list(world.pictures))
    path = world.fresh() / f"x.{rng.choice((kind, 'jpg', 'png'))}"
    path.write_bytes(spoil_bytes(rng, world.pictures[kind]))
    read_picture(path)


def manifests(rng: random.Random, world: World) -> None:
    """Galleries whose files say something else."""
    target = world.fresh() / "g.xr"
    shutil.copytree(world.gallery.path, target)
    files = sorted(path for path in target.rglob("*") if path.is_file())
    path = rng.choice([target / "gallery.json", *files])
    if path.name == "gallery.json" and rng.random() < 0.6:
        path.write_text(json.dumps(spoil_value(rng, json.loads(path.read_text()))))
    else:
        path.write_bytes(spoil_bytes(rng, path.read_bytes()))
    Gallery.open(target, world.matcher).search("a dog", k=rng.choice((1, 9)), where=rng.choice((None, {"folder": "."})))


KINDS = {case.__name__: case for case in
         (queries, recipes, overrides, captions, headers, checkpoints, pictures, manifests)}  # fmt: skip
ALLOWED = XRetrieveError
