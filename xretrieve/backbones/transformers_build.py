"""transformers models by hub name, local folder, or folder inside an installed package."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from xretrieve.backbones.weights import hub, load_strict, no_hub, read_weights
from xretrieve.errors import XRetrieveError, first_line
from xretrieve.utils.paths import expand, is_file, is_folder

T = TypeVar("T")


def locate(rest: str) -> str:
    """Where a name lies: ``package:PACKAGE/FOLDER`` and existing folders become paths, the rest are hub names."""
    if rest.startswith("package:"):
        from importlib.resources import files

        package, _, inside = rest.removeprefix("package:").partition("/")
        try:
            folder = Path(str(files(package))) / inside
        except ModuleNotFoundError as error:
            raise XRetrieveError(
                f"transformers:{rest}: the python package {package} is not installed; pip install "
                f"{package.replace('_', '-')}"
            ) from error
        if not is_file(folder / "config.json"):
            raise XRetrieveError(f"transformers:{rest}: {folder} has no config.json")
        return str(folder)
    folder = expand(rest)
    if is_folder(folder):
        if not is_file(folder / "config.json"):
            raise XRetrieveError(f"transformers:{rest}: the folder has no config.json")
        return str(folder)
    if rest.startswith((".", "/", "~")):
        raise XRetrieveError(f"transformers:{rest}: no such folder")
    return rest


def fetch(load: Callable[..., T], source: str, rest: str, **options: Any) -> T:
    """``load(source)`` from local files first, then from the hub; a failure is one error that names the alternative."""
    with _quiet():
        try:
            return load(source, local_files_only=True, **options)
        except Exception as first:  # not cached, or broken: only the second try can tell
            if is_folder(Path(source)):
                raise XRetrieveError(
                    f"transformers:{rest}: {source} cannot be read ({type(first).__name__}: {first_line(first, 150)})"
                ) from first
        try:
            with hub():
                return load(source, **options)
        except Exception as error:  # the hub clients raise many unrelated types
            raise no_hub(f"transformers:{rest}", error, "name a local folder, transformers:FOLDER") from error


def load_model(source: str, rest: str, pretrained: bool, config: Any) -> nn.Module:
    """The whole model in float32; weights missing from its file are an error, not silently random."""
    from transformers import AutoModel

    if not pretrained:
        return AutoModel.from_config(config).float()
    model, info = fetch(AutoModel.from_pretrained, source, rest, output_loading_info=True)
    missing = sorted(k for k in info["missing_keys"] if "pooler." not in k)
    if missing:
        raise XRetrieveError(
            f"transformers:{rest}: {len(missing)} weights are missing from its file (first: {missing[0]})"
        )
    return model.float()


def load_file(full: nn.Module, tower: nn.Module, path: str | Path) -> None:
    """Load a file of the whole model, of a task model around it, or of one saved tower into ``tower``."""
    state = read_weights(path)
    prefix = f"{getattr(full, 'base_model_prefix', '')}."
    if len(prefix) > 1 and any(k.startswith(prefix) for k in state):  # saved with a task head around it
        state = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    own, known = tower.state_dict(), full.state_dict()
    dropped = ("pooler.", "position_ids", "logit_scale", "logit_bias")
    state = {k: v for k, v in state.items() if k in own or (k not in known and not any(d in k for d in dropped))}
    load_strict(tower, state, path)


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars of the library: ours are the only ones on the terminal."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
