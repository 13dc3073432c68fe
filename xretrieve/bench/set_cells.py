"""The table of multi-query retrieval: recall after every round, of HMRN, Drill-down and the simple baselines.

The rows are the recipes ``multi_query/DATA-...``, some with the changes that :data:`ROWS` lists. Rows of the kind
``again`` train nothing: they measure the model of another row in another way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from xretrieve.bench import tables
from xretrieve.bench.cells import Cells, placed
from xretrieve.bench.plots import rounds_plot, save_png
from xretrieve.bench.recipes import known_rows, table_recipe
from xretrieve.bench.rows import Row
from xretrieve.data.cache import FeatureCache
from xretrieve.data.turns import QuerySets, query_sets
from xretrieve.errors import XRetrieveError
from xretrieve.evaluation import Report, evaluate
from xretrieve.evaluation.rounds import evaluate_round_scores
from xretrieve.heads.hmrn import HMRN
from xretrieve.training.build import test_split
from xretrieve.training.recipe import MemberConfig, Recipe
from xretrieve.training.run_folder import Run
from xretrieve.utils.files import write_json, write_text


@dataclass(frozen=True)
class SetRow(Row):
    """A row of this table.

    Args:
        levels: with ``of``: weights of the local, reasoning and global level of HMRN.
        combine: with ``of``: another way to combine sentences.
    """

    levels: tuple[float, float, float] | None = None
    combine: str = ""


def weights(alpha: float, beta: float) -> dict[str, float]:
    """Keys of a recipe for HMRN's levels: alpha for the local one, beta for the reasoning, the rest for the global."""
    return {"head.options.alpha": alpha, "head.options.beta": beta}


# Where a level is left out, the others keep their proportions of 0.6 : 0.3 : 0.1.
LOCAL, LOCAL_GLOBAL, LOCAL_REASON, GLOBAL_REASON = (1.0, 0.0), (6 / 7, 0.0), (2 / 3, 1 / 3), (0.0, 0.75)
ROWS = [
    SetRow("mean-similarity", "dual encoder, mean of the sentences' cosines"),
    SetRow("mean-as-fusion", "the same model, mean of the sentences' ranks", of="mean-similarity",
           combine="rank_fusion", kind="again"),
    SetRow("mean-as-paragraph", "the same model, sentences joined into one text", of="mean-similarity",
           combine="paragraph", kind="again"),
    SetRow("rank-fusion", "dual encoder, mean of the sentences' ranks, trained on sentences alone"),
    SetRow("paragraph", "dual encoder, sentences joined into one text, trained so"),
    SetRow("drilldown", "Drill-down, three slots"),
    SetRow("drilldown-policy", "Drill-down, the policy chooses the slot", start="drilldown"),
    SetRow("one-slot", "Drill-down's cell with one slot three times as wide"),
    SetRow("hmrn-t2i", "HMRN, sentences look at regions"),
    SetRow("hmrn-i2t", "HMRN, regions look at sentences"),
    SetRow("hmrn", "HMRN, average of both directions", members=("hmrn-t2i", "hmrn-i2t"), kind="average"),
    SetRow("t2i-local", "HMRN t2i trained with the local level alone", "hmrn-t2i", weights(*LOCAL)),
    SetRow("t2i-local-global", "trained with local and global", "hmrn-t2i", weights(*LOCAL_GLOBAL)),
    SetRow("t2i-local-reason", "trained with local and reasoning", "hmrn-t2i", weights(*LOCAL_REASON)),
    SetRow("t2i-global-reason", "trained with global and reasoning", "hmrn-t2i", weights(*GLOBAL_REASON)),
    SetRow("t2i-one-step", "HMRN t2i with one step of reasoning instead of three", "hmrn-t2i",
           {"head.options.steps": 1}),
    *(
        SetRow(f"t2i-by-{name}", f"HMRN t2i trained whole, ranked by {name.replace('-', ' and ')}", of="hmrn-t2i",
               levels=(alpha, beta, 1 - alpha - beta), kind="again")
        for name, (alpha, beta) in {
            "local": LOCAL, "global": (0.0, 0.0), "reason": (0.0, 1.0), "local-global": LOCAL_GLOBAL,
            "local-reason": LOCAL_REASON, "global-reason": GLOBAL_REASON,
        }.items()
    ),
]  # fmt: skip
OPPONENTS = ("drilldown", "mean-similarity")


class SetCells(Cells):
    """The cells of a dataset in a folder.

    Args:
        data: ``scenes``, ``flickr8k`` or another one that has recipes ``multi_query/DATA-...``.
        out: folder.
        overrides: ``key=value`` for every recipe.
        rows: of the table; those whose recipe the dataset lacks are left out.
    """

    def __init__(self, data: str, out: Path, overrides: Sequence[str] = (), rows: Sequence[SetRow] = ROWS) -> None:
        self.data, self.overrides = data, list(overrides)
        base = table_recipe("multi_query", data, SetRow("hmrn-t2i"), 0, self.overrides)
        self.dataset, self.protocol = base.dataset, base.protocol
        self._levels: tuple[Path, list[torch.Tensor]] | None = None
        super().__init__(known_rows("multi_query", data, rows), out)

    def recipe(self, row: Row, seed: int) -> Recipe:
        """What a cell trains or averages."""
        if row.members:
            members = [MemberConfig(str(self.place(member, seed)), name=member) for member in row.members]
            return Recipe(f"multi_query/{self.data}-{row.name}-s{seed}", self.dataset, self.protocol, members=members,
                          task="multi_query", seed=seed)  # fmt: skip
        keys = {"start": str(self.place(row.start, seed))} if row.start else {}
        return table_recipe("multi_query", self.data, row, seed, self.overrides, keys)

    def again(self, row: Row, seed: int, folder: Path) -> None:
        """Measure a trained model by other weights of its levels, or with another way to combine sentences."""
        assert isinstance(row, SetRow)
        run = Run.open(self.place(row.of, seed))
        made_of = f"{run.report.matcher['fingerprint']} {row.combine or row.levels}"
        if (folder / "report.json").is_file() and Report.load(folder).matcher.get("fingerprint") == made_of:
            return
        name, test = f"multi_query/{self.data}-{row.name}-s{seed}", test_split(self.dataset)
        if row.combine:
            model = placed(run.matcher())
            report = evaluate(model, test, protocol=self.protocol, cache=FeatureCache(), combine=row.combine)
        else:
            sets = query_sets(test, run.report.turns)  # type: ignore[attr-defined]
            if self._levels is None or self._levels[0] != run.folder:  # the model is run once for all its rows
                self._levels = run.folder, level_scores(run, test.images, test.image_ids, sets)
            scores = sum(weight * level for weight, level in zip(row.levels or (), self._levels[1], strict=True))
            report = evaluate_round_scores(scores.numpy(), sets, test, run.report.protocol)  # type: ignore[union-attr,arg-type]
        report.name, report.matcher = name, {"name": name, "fingerprint": made_of, "source": ""}
        report.save(folder)

    def write(self) -> dict[str, Any]:
        """Write ``table.json``, ``table.md`` and ``rounds.png``; returns what the JSON holds."""
        made = self.finished()
        first = next(iter(made.values())).report
        turns, ks = first.turns, first.protocol.ks  # type: ignore[attr-defined]
        metrics = [f"round{t}_r{k}" for k in ks for t in range(1, turns + 1)]
        rows = tables.table_rows(self.rows, made, metrics, OPPONENTS, [f"round{turns}_r1"])
        table = {"opponents": [name for name in OPPONENTS if any(row["name"] == name for row in rows)],
                 "turns": turns, "ks": list(ks), **tables.about_table(made), "rows": rows}  # fmt: skip
        write_json(self.out / "table.json", table)
        write_text(self.out / "table.md", markdown(table))
        save_png(rounds_plot([row for row in rows if row["kind"] != "again"], turns), self.out / "rounds.png")
        return table


def markdown(table: dict[str, Any]) -> str:
    """The table for people: R@1 of every round and what it cost, then the other recalls."""
    turns, rounds = table["turns"], [str(t) for t in range(1, table["turns"] + 1)]
    last = f"round{turns}_r1"
    lines = tables.heading([
        "row", "what", "seeds", *(f"R@1 after {t}" for t in rounds), "95 % interval", "sd over seeds",
        *(f"against {name}" for name in table["opponents"]), *tables.COSTS,
    ])  # fmt: skip
    for row in table["rows"]:
        gains = [tables.gained(row["against"].get(name, {}).get(last)) for name in table["opponents"]]
        lines.append(tables.line([tables.label(row), row["about"], tables.seeds_of(row), *_recalls(row, turns, 1),
                                  tables.deviation(row["sd"][last]), *gains, *tables.costs(row)]))  # fmt: skip
    for k in table["ks"][1:]:
        lines += ["", *tables.heading(["row", *(f"R@{k} after {t}" for t in rounds), "95 % interval"])]
        lines += [tables.line([tables.label(row), *_recalls(row, turns, k)]) for row in table["rows"]]
    notes = [
        f"{table['setting']}.", "`*` averages the scores of models trained apart; its cost is the sum of its members'.",
        "Means over the seeds. Intervals are of the last round. `against`: difference of R@1 in the last round and "
        "relative gain, images drawn in pairs, over the seeds that both rows have.",
        tables.machine_line(table["versions"]),
    ]  # fmt: skip
    return "\n".join(lines) + "\n\n" + "\n".join(notes) + "\n"


def _recalls(row: dict[str, Any], turns: int, k: int) -> list[str]:
    """R@k of every round, then the interval of the last."""
    low, high = row["intervals"][f"round{turns}_r{k}"]
    return [*(f"{row['values'][f'round{t}_r{k}']:.1f}" for t in range(1, turns + 1)), f"{low:.1f} to {high:.1f}"]


def level_scores(run: Run, images: Any, ids: list[str], sets: QuerySets) -> list[torch.Tensor]:
    """Local, weighted reasoning and global scores (T,N,M) of HMRN, each before its share of the sum."""
    matcher = run.matcher()
    if not isinstance(matcher.head, HMRN):  # type: ignore[union-attr]
        raise XRetrieveError(f"{run.folder}: only head 'hmrn' has levels, this is {matcher.head.name!r}")
    with torch.inference_mode():
        gallery = matcher.encode_images(images, ids=ids, cache=FeatureCache())
        queries = matcher.encode_sets([sets.said(i) for i in range(len(sets))], cache=FeatureCache())
        made = matcher.head.score_rounds(queries, gallery, levels=True)
        last = torch.arange(sets.longest)[:, None].minimum(torch.from_numpy(sets.sizes) - 1)  # (T,M)
        width = matcher.head.round_weights(sets.longest).float()[last]
    return [made["local"], width[:, None] * made["reason"], made["global"]]
