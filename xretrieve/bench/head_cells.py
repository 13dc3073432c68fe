"""The ablation table of the two-stream model: every row from one base recipe, at the same budget.

A row changes what its name says and nothing else. Differences are paired over the test images and averaged over the
seeds that both rows have; CPU seconds run from the first to the last optimizer step, validation included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import torch

from xretrieve.bench import tables
from xretrieve.bench.cells import Cells, placed
from xretrieve.bench.rows import Row
from xretrieve.config import from_dict, to_dict
from xretrieve.data.cache import FeatureCache
from xretrieve.ensemble import fuse
from xretrieve.errors import XRetrieveError
from xretrieve.evaluation import Report, evaluate_scores, score_matrix
from xretrieve.heads import head_class
from xretrieve.training.build import test_split
from xretrieve.training.recipe import Recipe
from xretrieve.training.run_folder import Run
from xretrieve.utils.files import atomic_path, write_json, write_text


@dataclass(frozen=True)
class HeadRow(Row):
    """A row of this table.

    Args:
        options: of the head, over those of the base.
        head: another head; it takes those of the base's options that it knows.

    Kinds: ``single`` stream, ``two`` streams, ``average`` or ``other``.
    """

    options: dict[str, Any] = field(default_factory=dict)
    head: str = "tshsr"


# what of the base's options the published single-stream models and the two ideas alone do without
PUBLISHED: dict[str, Any] = {"residual": None, "use_pooled": False, "text_hidden": 0}


def _row(name: str, about: str, options: dict[str, Any] | None = None, head: str = "tshsr", **more: Any) -> HeadRow:
    return HeadRow(name, about, options=options or {}, head=head, **{"kind": "two", **more})


def _stream(name: str, about: str, **options: Any) -> HeadRow:
    return _row(name, about, PUBLISHED | options, kind="single")


ROWS = [
    _row("dual", "dual encoder", head="dual", kind="other"),
    _row("scan-t2i", "SCAN, words look at regions", {"stream": "t2i"}, "scan", kind="single"),
    _row("scan-i2t", "SCAN, regions look at words", {"stream": "i2t"}, "scan", kind="single"),
    _row("saf", "SAF t2i", PUBLISHED, "saf", kind="single"),
    _stream("sgr-t2i", "SGR t2i", streams="t2i", context="none"),
    _stream("sgr-i2t", "SGR i2t", streams="i2t", context="none"),
    _stream("context-t2i", "t2i stream with cluster context", streams="t2i", context="cluster"),
    _stream("context-i2t", "i2t stream with cluster context", streams="i2t", context="cluster"),
    _row("tshsr", "the model as the base has it"),
    _row("two-none", "both streams, no context", PUBLISHED | {"context": "none"}),
    _row("two-mean", "both streams, mean context", PUBLISHED | {"context": "mean"}),
    _row("two-cluster", "both streams, cluster context", PUBLISHED | {"context": "cluster"}),
    _row("residual", "the model without the pooled vectors", {"use_pooled": False, "text_hidden": 0}),
    _row("sgr-extras", "SGR t2i with the base's residual and pooled vectors", {"streams": "t2i", "context": "none"},
         kind="single"),
    _row("levels-1", "K = 1", {"levels": 1, "clusters": None}),
    _row("levels-2", "K = 2", {"levels": 2, "clusters": None}),
    _row("levels-3", "K = 3", {"levels": 3, "clusters": None}),
    _row("concat", "streams joined before one logit", {"fusion": "concat"}),
    _row("scalar-gate", "one gate per node", {"gate": "scalar"}),
    _row("aux-off", "no losses on single streams", {"aux_streams": False}),
    _row("avg-sgr", "average of SGR t2i and SGR i2t", members=("sgr-t2i", "sgr-i2t"), kind="average"),
    _row("avg-context", "average of the two streams with context, trained apart",
         members=("context-t2i", "context-i2t"), kind="average"),
    _row("avg-sgraf", "average of SGR t2i and SAF", members=("sgr-t2i", "saf"), kind="average"),
    _row("avg-scan", "average of SCAN t2i and i2t", members=("scan-t2i", "scan-i2t"), kind="average"),
]  # fmt: skip
OPPONENT = "avg-sgr"  # the fair one: a second direction alone is worth a lot


def row_recipe(row: HeadRow, base: Recipe, seed: int) -> Recipe:
    """The base recipe with a row's change."""
    values = to_dict(base)
    known = signature(head_class(row.head)).parameters
    own = base.head.options  # type: ignore[union-attr]
    options = {k: v for k, v in own.items() if k in known}
    options |= {k: v for k, v in row.options.items() if k in own or k not in PUBLISHED}
    values |= {"name": f"ablation/{row.name}-s{seed}", "seed": seed, "expect": {}, "published": []}
    values["head"] = {"name": row.head, "options": options}
    for stage in values["stages"]:
        if row.head == "dual" or (row.head == "scan" and stage["loss"] is not None):
            stage |= {"loss": cosine_loss(stage), "freeze_coarse": False}
        if row.head == "dual":  # its score is the cosine that coarse_loss reads, and it has no token pairs to group
            stage |= {"coarse_loss": None, "group": 0, "group_pool": 0}
    return from_dict(Recipe, values, row.name)


def cosine_loss(stage: dict[str, Any]) -> dict[str, Any]:
    """The loss for heads that score by cosines: the base's hinge, else its loss on coarse vectors, else InfoNCE at
    temperature 0.05 (the base's own temperature is one for logits)."""
    if stage["loss"] is not None and stage["loss"]["name"] == "hinge":
        return stage["loss"]  # type: ignore[no-any-return]
    return stage["coarse_loss"] or {"name": "infonce", "options": {"temperature": 0.05, "learnable": False}}


class HeadCells(Cells):
    """The cells of a base recipe in a folder.

    Args:
        base: with head tshsr.
        out: folder.
        fusion: of the averages; None: of the logits where the base trains on logits, else of the probabilities.
        rows: of the table.
    """

    def __init__(self, base: Recipe, out: Path, fusion: str | None = None, rows: Sequence[HeadRow] = ROWS) -> None:
        if base.head is None or base.head.name != "tshsr":
            raise XRetrieveError(f"{base.name}: the base of this table needs head 'tshsr'")
        self.base = base
        self.fusion = fusion or ("logit" if base.head.options.get("train_on") == "logit" else "mean")
        self._test: Any = None
        super().__init__(rows, out)

    def recipe(self, row: Row, seed: int) -> Recipe:
        """The base with the row's change."""
        assert isinstance(row, HeadRow)
        return row_recipe(row, self.base, seed)

    def average(self, row: Row, seed: int, folder: Path) -> None:
        """Measure the average from the members' own scores, which are computed once."""
        runs = [Run.open(self.place(member, seed)) for member in row.members]
        made_of = " + ".join([*(run.report.matcher["fingerprint"] for run in runs), self.fusion])
        if (folder / "report.json").is_file() and Report.load(folder).matcher.get("fingerprint") == made_of:
            return
        found = [self._scores(run) for run in runs]
        heads = [run.matcher().head for run in runs]
        fusion = self.fusion if heads[0].logits else "mean"  # type: ignore[union-attr]
        fused = fuse(heads, [torch.from_numpy(scores) for scores in found], fusion).numpy()  # type: ignore[arg-type]
        test, name = self._split(), f"ablation/{row.name}-s{seed}*"
        report = evaluate_scores(
            fused, test.owner, protocol=self.base.protocol, dataset=test.name, split=test.split,
            image_ids=test.image_ids, caption_ids=test.caption_ids, captions=test.captions,
            expected_images=test.expected_images, name=name,
        )  # fmt: skip
        report.matcher = {"name": name, "fingerprint": made_of, "source": ""}
        report.save(folder, rows=[run.report for run in runs])

    def _scores(self, run: Run) -> np.ndarray:
        """(N, C) float32 of the test split, kept beside the run."""
        path = run.folder / f"scores-{run.report.matcher['fingerprint']}.npy"
        if not path.is_file():
            scores, _ = score_matrix(placed(run.matcher()), self._split(), cache=FeatureCache())
            with atomic_path(path) as part, open(part, "wb") as handle:
                np.save(handle, np.ascontiguousarray(scores))
        return np.load(path)  # type: ignore[no-any-return]

    def _split(self) -> Any:
        if self._test is None:
            self._test = test_split(self.base.dataset)
        return self._test

    def write(self) -> dict[str, Any]:
        """Write ``table.json`` and ``table.md``; returns what the JSON holds."""
        made = self.finished()
        metrics = list(next(iter(made.values())).report.metrics)
        rows = tables.table_rows(self.rows, made, metrics, [row.name for row in self.rows], ["rsum"])
        singles = [row for row in rows if row["kind"] == "single"]
        best = max(singles, key=lambda row: row["values"]["rsum"])["name"] if singles else None
        against = [name for name in dict.fromkeys((OPPONENT, best)) if any(row["name"] == name for row in rows)]
        for row in rows:
            row["against"] = {name: found for name, found in row["against"].items() if name in against}
        table = {"base": to_dict(self.base), "fusion": self.fusion, "opponents": against, "best_single": best,
                 **tables.about_table(made), "rows": rows}  # fmt: skip
        write_json(self.out / "table.json", table)
        write_text(self.out / "table.md", markdown(table))
        return table


def markdown(table: dict[str, Any]) -> str:
    """The table for people."""
    lines = tables.heading(["row", "what", "seeds", "i2t R@1 5 10", "t2i R@1 5 10", "rsum", "sd over seeds",
                            *(f"against {name}" for name in table["opponents"]), *tables.COSTS])  # fmt: skip
    for row in table["rows"]:
        values = row["values"]
        recalls = [" ".join(f"{values[f'{d}_r{k}']:.1f}" for k in (1, 5, 10)) for d in ("i2t", "t2i")]
        gains = [tables.gained(row["against"].get(name, {}).get("rsum")) for name in table["opponents"]]
        lines.append(tables.line([
            tables.label(row), row["about"], tables.seeds_of(row), *recalls,
            tables.spread(values["rsum"], row["intervals"]["rsum"]), tables.deviation(row["sd"]["rsum"]), *gains,
            *tables.costs(row),
        ]))  # fmt: skip
    notes = [
        f"Base: {table['base']['name']}. {table['setting']}.",
        f"`*` averages the scores of models trained apart (fusion {table['fusion']}, for cosines their mean); its cost "
        "is the sum of its members'.",
        "Means over the seeds; differences are rsum, paired over the images. Best single stream: "
        f"{table['best_single']} (chosen by these very numbers, which favours it).",
        tables.machine_line(table["versions"]),
    ]  # fmt: skip
    return "\n".join(lines) + "\n\n" + "\n".join(notes) + "\n"
