"""Models on the Hugging Face Hub (or whatever ``HF_ENDPOINT`` names): a folder goes up, a folder comes down."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from xretrieve.backbones.weights import hub, no_hub
from xretrieve.errors import XRetrieveError

# What an earlier export may have left in the repository: with it a new one would be read wrongly.
OURS = ["image/*", "text/*", "members/*", "*.safetensors", "config.json", "ensemble.json", "onnx.json", "results.json",
        "recipe.yaml"]  # fmt: skip
PICKLES = ["*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl"]  # never read, so never fetched
NAME = re.compile(r"[\w.-]+/[\w.-]+")


@contextmanager
def client() -> Iterator[None]:
    """Talk to the hub without noise, and without progress bars where nobody looks at them."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    hide = not (sys.stderr.isatty() or are_progress_bars_disabled())
    if hide:
        disable_progress_bars()
    try:
        with hub():
            yield
    finally:
        if hide:
            enable_progress_bars()


def check_name(name: str) -> str:
    """``OWNER/NAME``, or an error that says so."""
    if not NAME.fullmatch(name):
        raise XRetrieveError(f"hub name {name!r}: write OWNER/NAME, for example me/scenes-dual")
    return name


def push(folder: str | Path, name: str, private: bool = False) -> str:
    """Upload an export as a model repository, which is made if there is none; returns its address.

    Args:
        folder: what :func:`xretrieve.sharing.export` wrote.
        name: ``OWNER/NAME``. Files of an earlier export in it are replaced, others are left alone.
        private: for a new repository.

    Raises:
        XRetrieveError: the hub cannot be reached, or does not let this user write.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

    check_name(name)
    try:
        with client():
            api = HfApi()
            api.create_repo(name, private=private, exist_ok=True)
            api.upload_folder(
                repo_id=name, folder_path=str(folder), delete_patterns=OURS, commit_message="xretrieve export"
            )
            return f"{api.endpoint}/{name}"
    except (HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled, OSError, RuntimeError) as error:
        said = re.sub(r"\s+", " ", str(error)).strip()[:200]
        raise XRetrieveError(
            f"{name}: the hub did not take the export ({type(error).__name__}: {said}); log in with `hf auth login` "
            "and check the name, then export again"
        ) from error


def fetch(name: str) -> Path:
    """The local folder of a model repository, downloaded where it is not in the hub's cache.

    Args:
        name: ``OWNER/NAME`` or ``OWNER/NAME@REVISION`` (a branch, a tag or a commit).
    """
    from huggingface_hub import snapshot_download

    repository, _, revision = name.partition("@")
    check_name(repository)
    try:
        with client():
            return Path(snapshot_download(repository, revision=revision or None, ignore_patterns=PICKLES))
    except Exception as error:  # the hub client raises many unrelated types
        instead = "check the name and your access (`hf auth login`), or give a folder that holds a copy"
        raise no_hub(f"hf-hub:{name}", error, instead) from error
