"""Two evaluated runs on the same images: which differences are more than luck."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from xretrieve.errors import XRetrieveError
from xretrieve.evaluation.bootstrap import Difference
from xretrieve.evaluation.metrics import Column, Setting
from xretrieve.evaluation.report import Report


@dataclass
class Comparison:
    """Metric by metric: a, b, b - a with its 95 % interval, and p.

    Args:
        a, b: names of the two reports.
        setting: what both were measured on.
        differences: metric name -> difference.
        columns: what the metrics are.
        warnings: what a reader must know.
    """

    a: str
    b: str
    setting: Setting
    differences: dict[str, Difference]
    columns: Sequence[Column] = ()
    warnings: list[str] = field(default_factory=list)

    def __getitem__(self, name: str) -> Difference:
        return self.differences[name]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        rows = {name: {**asdict(d), "difference": d.value} for name, d in self.differences.items()}
        return {
            "a": self.a,
            "b": self.b,
            "setting": asdict(self.setting),
            "differences": rows,
            "warnings": self.warnings,
        }

    def __rich__(self) -> Any:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table()
        for heading in ("metric", "A", "B", "B - A", "95 % interval", "p"):
            table.add_column(heading, justify="left" if heading == "metric" else "right")
        for name, d in self.differences.items():
            style = "bold" if d.low > 0 or d.high < 0 else ""
            floor = 2 / self.setting.resamples  # what so many resamples can tell from zero
            p = f"{d.p:.3f}" if d.p >= floor else f"< {floor:.3g}"
            span = f"{d.low:+.2f} .. {d.high:+.2f}"
            table.add_row(name, f"{d.a:.1f}", f"{d.b:.1f}", f"{d.value:+.2f}", span, p, style=style)
        names = Text(f"A: {self.a}\nB: {self.b}")
        lower = any(c.better == "lower" and c.name in self.differences for c in self.columns)
        note = Text("paired bootstrap; bold: the interval leaves out zero."
                    + " Lower is better for medr and meanr." * lower)  # fmt: skip
        told = [Text(f"warning: {warning}", style="yellow") for warning in self.warnings]
        return Group(names, table, Text(str(self.setting)), note, *told)


def compare(a: Report, b: Report, resamples: int = 1000, seed: int = 0) -> Comparison:
    """Paired bootstrap over images of two reports; reports of different splits or protocols are refused."""
    for what, left, right in (
        ("dataset", a.metrics.setting.dataset, b.metrics.setting.dataset),
        ("split", a.metrics.setting.split, b.metrics.setting.split),
        ("protocol", a.protocol, b.protocol),
        ("number of images", len(a.image_ids), len(b.image_ids)),
        (f"number of {a.item}s", len(a.caption_ids), len(b.caption_ids)),
    ):
        if left != right:
            one, other = (getattr(value, "name", value) for value in (left, right))
            if one == other:
                one, other = f"{one} (A's rules)", f"{other} (B's rules)"
            raise XRetrieveError(
                f"these runs cannot be compared: {what} {one!r} against {other!r}; "
                "evaluate both with the same --dataset, --split and --protocol"
            )
    texts = [report.dataset.get("texts") for report in (a, b)]
    names = [report.dataset.get("names") for report in (a, b)]
    elsewhere = a.image_ids != b.image_ids and None not in names and names[0] == names[1]  # regions against photos
    pairs = [("image", a.image_ids, b.image_ids), (a.item, a.caption_ids, b.caption_ids)]
    for what, left_ids, right_ids in pairs if not elsewhere else ():
        place = next((i for i, pair in enumerate(zip(left_ids, right_ids, strict=True)) if pair[0] != pair[1]), None)
        if place is not None:
            raise XRetrieveError(
                f"these runs cannot be compared: {what} {place} is {left_ids[place]!r} in one and {right_ids[place]!r} "
                "in the other; evaluate both on the same files"
            )
    warnings = []
    if None not in texts and texts[0] != texts[1]:
        if not elsewhere:
            raise XRetrieveError(
                "these runs cannot be compared: under the same ids the texts differ; evaluate both on the same files"
            )
        warnings.append("the texts differ, and not only in how they are cut; a difference may come from them")
    setting = replace(a.metrics.setting, resamples=resamples, seed=seed)
    return Comparison(a.name, b.name, setting, a.differences(b, resamples, seed), a.metrics.columns, warnings)
