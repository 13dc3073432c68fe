"""`RoundsReport`: what an evaluation of query sets found after each round."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from xretrieve.errors import XRetrieveError
from xretrieve.evaluation.metrics import Fold, Metric
from xretrieve.evaluation.report import Report
from xretrieve.evaluation.round_metrics import RoundCounts, RoundsSetting, round_columns
from xretrieve.evaluation.round_samples import RoundSample


@dataclass
class RoundsReport(Report):
    """The report of a protocol of the task ``multi_query``.

    ``report["round3_r1"]`` is R@1 after the third sentence, ``report["rsum"]`` the last round's R@1 + R@5 + R@10;
    ``caption_ids`` are the ids of the query sets.

    Args:
        about: what else belongs beside the numbers (order of the sentences, what was left out, the head's settings).
    """

    about: dict[str, str] = field(default_factory=dict)

    item, setting_class, sample_class = "query set", RoundsSetting, RoundSample

    @property
    def turns(self) -> int:
        """T, the number of rounds."""
        return len(self.counts.greater)

    @property
    def ranks(self) -> np.ndarray:
        """(T, M) 0-based ranks after each round under the protocol's tie rule."""
        return self.counts.ranks(self.protocol.ties)

    @property
    def reached(self) -> list[int]:
        """For each round, how many sets really have so many sentences."""
        return [int((self.counts.sizes >= turn).sum()) for turn in range(1, self.turns + 1)]

    def at(self, turn: int) -> dict[str, Metric]:
        """The metrics after a round (from 1): ``r1`` ..., ``medr``, ``meanr``."""
        if not 1 <= turn <= self.turns:
            raise XRetrieveError(f"round {turn}: this report has the rounds 1 to {self.turns}")
        names = [*(f"r{k}" for k in self.protocol.ks), "medr", "meanr"]
        return {name: self[f"round{turn}_{name}"] for name in names}

    def to_dict(self) -> dict[str, Any]:
        """As :meth:`Report.to_dict`, with the rounds as rows."""
        rows = [
            {"round": turn, "sets_with_a_sentence": count, **{k: m.value for k, m in self.at(turn).items()}}
            for turn, count in enumerate(self.reached, start=1)
        ]
        return {**super().to_dict(), "rounds": rows, "about": self.about}

    def page(self, **options: Any) -> str:
        """The HTML page; options as in :func:`xretrieve.evaluation.round_html.render_rounds`."""
        from xretrieve.evaluation.round_html import render_rounds

        return render_rounds(self, **options)

    def check_pairs(self, other: Report) -> None:
        """As :meth:`Report.check_pairs`."""
        if not np.array_equal(self.counts.sizes, other.counts.sizes):
            raise XRetrieveError("these runs cannot be compared: their query sets have different numbers of sentences")

    def main_metrics(self) -> list[str]:
        """The recalls of the last round, then R@1 of the first."""
        recalls = [f"round{self.turns}_r{k}" for k in self.protocol.ks]
        return [*recalls, "round1_r1"] if self.turns > 1 else recalls

    def _arrays(self) -> dict[str, Any]:
        counts = {f.name: getattr(self.counts, f.name) for f in dataclasses.fields(RoundCounts)}
        return counts | {"ranks": self.ranks}

    @classmethod
    def _counts(cls, arrays: Any) -> RoundCounts:
        return RoundCounts(*(arrays[f.name] for f in dataclasses.fields(RoundCounts)))

    @classmethod
    def folds(cls, counts: Any, protocol: Any, ties: str) -> list[Fold]:
        """As :meth:`Report.folds`: one gallery."""
        return [Fold(round_columns(counts.ranks(ties), protocol.ks), counts.owner)]

    @classmethod
    def _values(cls, values: dict[str, Any]) -> dict[str, Any]:
        return super()._values(values) | {"about": values["about"]}

    def __str__(self) -> str:
        from xretrieve.evaluation.round_terminal import rounds_text

        return rounds_text(self)

    def __rich__(self) -> Any:
        from xretrieve.evaluation.round_terminal import rounds_rich

        return rounds_rich(self)
