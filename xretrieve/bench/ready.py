"""What lies under the data root: which datasets can be trained and measured, and why others cannot."""

from __future__ import annotations

from xretrieve.data import datasets
from xretrieve.data.check import check
from xretrieve.errors import XRetrieveError
from xretrieve.training.recipe import DatasetConfig
from xretrieve.utils.files import data_root


def missing(data: str | DatasetConfig) -> str:
    """Why a dataset cannot be trained and measured here, in one sentence; empty when it can.

    The built-in one always can: it is generated at its first use. Files are named from the data root on: the sentence
    stands in reports that are read elsewhere.
    """
    config = data if isinstance(data, DatasetConfig) else DatasetConfig(data)
    if config.name == "scenes":
        return ""
    if not datasets.found(config.name, config.root):
        return f"nothing of it lies under the data root; `xretrieve data check {config.name}` says what belongs there"
    card, root = datasets.info(config.name), str(data_root(config.root))
    for split in dict.fromkeys(("train", "val", card.scored if card else "test")):
        try:
            report = check(config.name, config.root, split, layout=config.layout, **config.options)
        except XRetrieveError as error:
            return _plain(str(error), root)
        (found,) = report.splits
        if not found.usable:
            return _plain(f"{split}: {found.effect}", root)
    return ""


def _plain(text: str, root: str) -> str:
    """Without the machine's own folders."""
    return text.replace(f"{root}/", "").replace(root, "the data root")
