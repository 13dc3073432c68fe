"""``xretrieve``: the table of verbs. A verb module is imported only when its verb is asked for."""

from __future__ import annotations

import codecs
import contextlib
import importlib
import os
import sys

# verb: (module, one line of help). The module has `app`, a typer.Typer with its command(s).
VERBS = {
    "search": (
        "xretrieve.cli.search",
        "Search an index with text, several texts, a picture, or a picture and a change.",
    ),
    "explain": ("xretrieve.cli.explain", "Say why a picture was found: words and regions, drawn over the picture."),
    "serve": ("xretrieve.cli.serve", "Serve a search page and a REST API over an index."),
    "index": ("xretrieve.cli.index", "Build or update an index over a folder of pictures or a dataset."),
    "tune": ("xretrieve.cli.tune", "Choose on validation data how an index combines its two stages."),
    "check": ("xretrieve.cli.check", "Read an index, a run or the feature cache, and say what is damaged."),
    "train": ("xretrieve.cli.train", "Train a recipe; the result is a run folder."),
    "evaluate": ("xretrieve.cli.evaluate", "Evaluate a run or a pretrained model under a named protocol."),
    "compare": ("xretrieve.cli.compare", "Compare two evaluated runs with a paired bootstrap."),
    "import": ("xretrieve.cli.import_", "Turn a published checkpoint (SCAN, SGRAF, HMRN, ...) into a run folder."),
    "export": ("xretrieve.cli.export", "Share a run: a folder, ONNX graphs, or a model of the Hugging Face Hub."),
    "data": ("xretrieve.cli.data", "List, check, prepare and show datasets."),
    "bench": ("xretrieve.cli.bench", "Measure: demo (needs no data), the papers' claims, or every model of a dataset."),
    "leaderboard": ("xretrieve.cli.leaderboard", "What `bench` has measured here, and how to make a row again."),
    "doctor": ("xretrieve.cli.doctor", "Say what is installed, what is missing and what to do about it."),
}


def _overview() -> str:
    width = max(map(len, VERBS))
    rows = "\n".join(f"  {verb:<{width}}  {text}" for verb, (_, text) in VERBS.items())
    return (
        "Usage: xretrieve [--version] VERB ...\n\nFind pictures with real queries.\n\n"
        f"Verbs:\n{rows}\n\n`xretrieve VERB --help` says more."
    )


def main(argv: list[str] | None = None) -> int:
    """Run one verb. Returns the exit status: 0, 1 (a check failed) or 2 (bad input)."""
    _speak()
    try:
        status = _run(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # the reader has seen enough (`xretrieve ... | head`)
        _mute()
        return 141
    except OSError as error:  # of the standard output: everything else was said by _run
        print(f"error: cannot write the output: {error.strerror or error}", file=sys.stderr)
        _mute()
        return 2


def _mute() -> None:
    """Write nothing more, else Python complains when it flushes at the end."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _speak() -> None:
    """What a terminal or a pipe cannot write comes out as ``\\u0441``, which is right inside JSON too."""
    codecs.register_error("xretrieve", _escaped)
    for stream, errors in ((sys.stdout, "xretrieve"), (sys.stderr, "xretrieve"), (sys.stdin, "surrogateescape")):
        with contextlib.suppress(AttributeError, ValueError, OSError):  # a stream of somebody else, or none
            stream.reconfigure(errors=errors)  # type: ignore[union-attr]


def _escaped(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2)), error.end


def _run(args: list[str]) -> int:
    if not args or args[0] in ("-h", "--help"):
        print(_overview())
        return 0
    if args[0] == "--version":
        from xretrieve.version import __version__

        print(__version__)
        return 0
    from xretrieve.errors import XRetrieveError, unknown

    try:
        if args[0] not in VERBS:
            raise unknown("verb", args[0], VERBS)
        app = importlib.import_module(VERBS[args[0]][0]).app
        result = app(args[1:], prog_name=f"xretrieve {args[0]}", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except XRetrieveError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        raise
    except Exception as error:
        from xretrieve.utils.disk import disk_reason

        reason = disk_reason(error)
        if reason is not None:  # a disk that is full, read-only or gone: nobody's bug
            where = getattr(error, "filename", None)
            print(f"error: {f'{os.fsdecode(where)}: ' if where is not None else ''}{reason}", file=sys.stderr)
            return 2
        if hasattr(error, "format_message") and hasattr(error, "exit_code"):  # the option parser's own errors
            said = error.format_message().rstrip(".")
            print(f"error: {said}; `xretrieve {args[0]} --help` says what it takes", file=sys.stderr)
            return 2
        if type(error).__name__ == "Abort":
            return 130
        raise


if __name__ == "__main__":
    sys.exit(main())
