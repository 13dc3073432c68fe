"""Weight files: read safetensors or a ``weights_only`` pickle, load them strictly, and hash them."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from xretrieve.errors import XRetrieveError
from xretrieve.utils.paths import expand, is_file
from xretrieve.utils.plain_values import load_plain, without_wrapper


def read_weights(path: str | Path, wanted: Callable[[str], bool] | None = None) -> dict[str, Tensor]:
    """The tensors of a ``.safetensors``, ``.pth``, ``.pt`` or ``.bin`` file, floating point cast to float32.

    Pickles are read by :mod:`xretrieve.utils.plain_values`; a state dict nested under ``state_dict`` or ``model`` is
    unwrapped, as are names that data-parallel training put ``module.`` before. ``wanted`` chooses names; of a
    safetensors file the others are not read.
    """
    path = expand(path)
    check_weights(path)
    state: Any
    if path.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(path, "pt") as file:
            state = {k: file.get_tensor(k) for k in file.keys() if wanted is None or wanted(without_wrapper(k))}  # noqa: SIM118
    else:
        state = load_plain(path)
        for key in ("state_dict", "model"):
            if isinstance(state, dict) and isinstance(state.get(key), dict):
                state = state[key]
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise XRetrieveError(f"{path}: expected a dict of tensors")
    named = {without_wrapper(k): v for k, v in state.items()}
    chosen = {k: v for k, v in named.items() if wanted is None or wanted(k)}
    return {k: v.float() if v.is_floating_point() else v for k, v in chosen.items()}


def check_weights(path: Path) -> None:
    """Raise where a weights file is missing, or is a safetensors file that is cut short or something else."""
    if not is_file(path):
        raise XRetrieveError(f"no weights file {path}")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "pt"):
                pass
        except (SafetensorError, OSError, ValueError, KeyError) as error:
            raise XRetrieveError(f"{path}: not a safetensors file ({error}); copy it again") from error


def load_strict(module: nn.Module, state: dict[str, Tensor], where: str | Path, assign: bool = False) -> None:
    """Load ``state`` into ``module``; the first missing, unexpected or wrong-shaped key is named in the error.

    assign: take the tensors themselves, as a module on the meta device must.
    """
    own = module.state_dict()
    missing = [k for k in own if k not in state]
    unexpected = [k for k in state if k not in own]
    shapes = [k for k in own if k in state and own[k].shape != state[k].shape]
    if not (missing or unexpected or shapes):
        module.load_state_dict(state, assign=assign)
        return
    said = []
    if missing:
        said.append(f"{len(missing)} missing (first: {missing[0]})")
    if unexpected:
        said.append(f"{len(unexpected)} unexpected (first: {unexpected[0]})")
    if shapes:
        key = shapes[0]
        said.append(
            f"{len(shapes)} of another shape (first: {key} is {tuple(state[key].shape)} in the file, "
            f"{tuple(own[key].shape)} in the model)"
        )
    raise XRetrieveError(f"{where}: weights do not fit the model: {'; '.join(said)}")


def hash_state(module: nn.Module) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of a module's state, independent of device and memory format."""
    digest = hashlib.sha256()
    for key, value in sorted(module.state_dict().items()):
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}\n".encode())
        flat = value.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy())
    return digest.hexdigest()


_INSTEAD = "give a local file with weights=FILE (--weights FILE), or pretrained=false for a random start"


def no_hub(name: str, error: Exception, instead: str = _INSTEAD) -> XRetrieveError:
    """The one error for a hub that cannot be reached or does not have the model; it names the local alternative."""
    reason = re.sub(r"\s+", " ", str(error)).strip()[:120]
    said = f"{name}: its files could not be had from the hub ({type(error).__name__}: {reason})"
    return XRetrieveError(f"{said}; {instead}")


@contextmanager
def hub() -> Iterator[None]:
    """Reach for the hub without noise; where its name cannot be resolved only the local cache is asked.

    Without this the hub clients retry for up to a minute, and log every attempt, on a machine that has no network.
    """
    import socket
    from urllib.parse import urlparse
    from urllib.request import getproxies

    from huggingface_hub import constants

    loggers = [logging.getLogger(name) for name in ("", "huggingface_hub")]
    levels, offline = [logger.level for logger in loggers], constants.HF_HUB_OFFLINE
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        if not getproxies():  # behind a proxy the name need not resolve here
            try:
                socket.getaddrinfo(urlparse(constants.ENDPOINT).hostname, None)
            except OSError:
                constants.HF_HUB_OFFLINE = True
        yield
    finally:
        constants.HF_HUB_OFFLINE = offline
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
