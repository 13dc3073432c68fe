"""curves.png: what the log says, as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from xretrieve.utils.files import atomic_path


def plot_curves(rows: list[dict[str, Any]], path: str | Path, title: str = "") -> None:
    """Three panels over the epochs: loss, mean positive and hardest negative score, validation rsum (of composed
    queries the protocol's headline).

    Borders between stages are dotted.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    panels = [("loss", ["loss"]), ("score", ["positive", "negative"]), ("validation", ["rsum", "headline"])]
    borders = [i + 0.5 for i in range(1, len(rows)) if rows[i]["stage"] != rows[i - 1]["stage"]]
    for axis, (name, keys) in zip(figure.subplots(1, 3), panels, strict=True):
        for key in keys:
            points = [(i + 1, row[key]) for i, row in enumerate(rows) if key in row]
            if not points:
                continue
            axis.plot([x for x, _ in points], [y for _, y in points], marker=".", label=key)
        for border in borders:
            axis.axvline(border, linestyle=":", color="grey")
        axis.set_xlabel("epoch")
        axis.set_title(name)
        axis.grid(alpha=0.3)
        if len(keys) > 1 and axis.lines:
            axis.legend()
    if title:
        figure.suptitle(title)
    with atomic_path(path) as part:
        figure.savefig(part, format="png", dpi=110)
