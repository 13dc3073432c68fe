"""log.csv (one row per epoch), TensorBoard if asked for, and the running means between two rows."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from xretrieve.errors import XRetrieveError
from xretrieve.utils.files import write_text

Row = dict[str, Any]
FIRST = ["stage", "epoch", "step", "loss", "lr", "grad_norm", "positive", "negative"]


class Meter:
    """Means of logged numbers; its sums are part of the resume state, so a resumed epoch logs the same row."""

    def __init__(self, sums: dict[str, float] | None = None, count: int = 0) -> None:
        self.sums, self.count = dict(sums or {}), count

    def add(self, values: Mapping[str, float | Tensor]) -> None:
        """Add one step's numbers."""
        for key, value in values.items():
            self.sums[key] = self.sums.get(key, 0.0) + float(value)
        self.count += 1

    def means(self) -> dict[str, float]:
        """Mean of each number since the last reset."""
        return {key: total / self.count for key, total in self.sums.items()} if self.count else {}


class Log:
    """The rows of a run. The file is rewritten whole at each row: it is small, and never torn.

    Args:
        folder: the run folder.
        kind: ``csv``, or ``tensorboard`` for event files beside it.
        rows: those of an interrupted run.
    """

    def __init__(self, folder: Path, kind: str = "csv", rows: list[Row] | None = None) -> None:
        self.folder, self.rows = folder, list(rows or [])
        self.writer: Any = None
        if kind == "tensorboard":
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise XRetrieveError(
                    "log: tensorboard is not installed; pip install 'xretrieve[tensorboard]', or log=csv"
                ) from error
            start = self.rows[-1]["step"] + 1 if self.rows else None
            self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=start)

    def add(self, row: Row) -> None:
        """Append a row and write the file."""
        self.rows.append(row)
        write_text(self.folder / "log.csv", rows_to_csv(self.rows))
        if self.writer is not None:
            for key, value in row.items():
                if isinstance(value, float):
                    self.writer.add_scalar(f"{row['stage']}/{key}", value, row["step"])
            self.writer.flush()

    def close(self) -> None:
        """Close the event file."""
        if self.writer is not None:
            self.writer.close()


def rows_to_csv(rows: list[Row]) -> str:
    """CSV text; a number that a row lacks (no validation in that epoch) is an empty cell."""
    names = list(dict.fromkeys(key for row in rows for key in row))
    names = [n for n in FIRST if n in names] + [n for n in names if n not in FIRST]
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    return text.getvalue()


def read_log(path: str | Path) -> list[Row]:
    """The rows of a log.csv; numbers as numbers, empty cells left out."""
    with open(path, newline="", encoding="utf-8") as handle:
        return [{k: _number(v) for k, v in row.items() if v != ""} for row in csv.DictReader(handle)]


def _number(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
