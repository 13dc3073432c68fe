"""From columns to numbers: their values, what ties could make of them, and their intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from xretrieve.evaluation.bootstrap import intervals, resampled
from xretrieve.evaluation.metrics import Fold, Metrics, Setting, fold_values


def measure(setting: Setting, folds: Callable[[str], Sequence[Fold]]) -> Metrics:
    """The metrics of an evaluation.

    Args:
        setting: its tie rule, resamples and seed are taken.
        folds: gives the columns under a tie rule.
    """
    by_rule = {ties: folds(ties) for ties in dict.fromkeys((setting.ties, "pessimistic", "optimistic"))}
    own = by_rule[setting.ties]
    values, per_fold = fold_values(own)
    extremes = [fold_values(by_rule[ties])[0] for ties in ("pessimistic", "optimistic")]
    drawn = resampled(own, resamples=setting.resamples, seed=setting.seed) if setting.resamples else {}
    spans = {name: span for name, span in intervals(drawn).items() if np.isfinite(span).all()}
    bounds = {name: (extremes[0][name], extremes[1][name]) for name in values}
    return Metrics(setting, own[0].columns, values, spans, bounds, per_fold if len(own) > 1 else [])
