"""The three papers' claims: what they say, which rows and differences measure it here, and at which budget."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from xretrieve.bench.cells import Cells
from xretrieve.bench.composed_cells import ComposedCells
from xretrieve.bench.head_cells import HeadCells
from xretrieve.bench.set_cells import SetCells
from xretrieve.evaluation.published import published_rows
from xretrieve.evaluation.report import Report
from xretrieve.training.recipes import list_recipes, load_recipe

BEST = "the best baseline"  # in place of a row: of the claim's baselines, the one with the highest mean
QUICK_SEEDS, FULL_SEEDS = (0,), (0, 1, 2)


@dataclass(frozen=True)
class Pair:
    """A difference that a claim rests on.

    Args:
        a: row that is compared with, or :data:`BEST`.
        b: row that should be better.
        what: the question, in words.
        published: what the paper printed for it, with its data; empty where it printed no such number.
        main: shown in the report's summary.
    """

    a: str
    b: str
    what: str
    published: str = ""
    main: bool = False


@dataclass(frozen=True)
class Claim:
    """What one paper claims.

    Args:
        key: short name.
        task: folder of ``tasks/`` and of the cells.
        core: last part of the recipe that a dataset must have.
        title, paper, says: for people.
        note: what a reader must know before comparing with the paper.
        rows: of the table, measured in a full run.
        quick: of the table, measured in a quick run.
        baselines: rows among which :data:`BEST` is chosen.
        pairs: the differences.
        printed: row -> name of its published figures (:mod:`xretrieve.evaluation.published`), shown where the data,
            the protocol and its whole gallery are those that they were printed for.
    """

    key: str
    task: str
    core: str
    title: str
    paper: str
    says: str
    note: str
    rows: tuple[str, ...]
    quick: tuple[str, ...]
    pairs: tuple[Pair, ...]
    baselines: tuple[str, ...] = ()
    printed: dict[str, str] = field(default_factory=dict)

    def names(self, quick: bool) -> tuple[str, ...]:
        """Rows that a run measures."""
        return self.quick if quick else self.rows

    def datasets(self) -> list[str]:
        """Datasets that have recipes for this claim, the built-in one first."""
        ends = f"-{self.core}"
        found = [n.removeprefix(f"{self.task}/").removesuffix(ends) for n in list_recipes()
                 if n.startswith(f"{self.task}/") and n.endswith(ends)]  # fmt: skip
        return sorted(found, key=lambda name: (name != "scenes", name))

    def keys(self, data: str, quick: bool) -> list[str]:
        """Keys of every row's recipe that a run changes on a dataset."""
        return [*(QUICK if quick else FULL).get((self.key, data), ())]

    def cells(self, data: str, out: Path, quick: bool) -> Cells:
        """The cells of a dataset, in ``OUT/TASK/DATA``."""
        keys, place = self.keys(data, quick), out / self.task / data
        if self.task == "multi_query":
            return SetCells(data, place, keys)
        if self.task == "composed":
            return ComposedCells(data, place, keys)
        return HeadCells(load_recipe(f"{self.task}/{data}-{self.core}", keys), place)

    def metrics(self, report: Report) -> list[str]:
        """The metrics of the differences, the main one first."""
        names = [report.main_metrics()[0], "same_model_strict_r10"]
        return [name for name in names if name in report.metrics.values]


def _ratio(protocol: str, ours: str, other: str) -> str:
    """A relative gain between two published rows."""
    rows = {row.name: row.values["mean"] for row in published_rows("", protocol)}
    a, b = rows[other], rows[ours]
    return f"{100 * (b / a - 1):+.1f} % ({b:.2f} against {a:.2f})"


PROGRESSIVE = (
    f"{_ratio('shoes/all/removed/single', 'progressive paper, larger', 'CLVC-Net')} on Shoes, "
    f"{_ratio('fashion-iq/original/kept/and', 'progressive paper, larger', 'DCNet RN50')} on Fashion-IQ, original split"
)
HMRN = "+23.4 % R@1 after round 10 on Visual Genome (abstract; it does not say whether that is relative)"

CLAIMS = (
    Claim(
        "rounds", "multi_query", "hmrn-t2i", "Query sets: HMRN against Drill-down, round by round",
        "Hierarchical Matching and Reasoning for Multi-Query Image Retrieval (Neural Networks 2024, arXiv 2306.14460)",
        "Matching sentences and regions on three levels beats Drill-down, by +23.4 % R@1 after ten rounds.",
        "The paper's tables are not repeated: its public evaluation adds one model's local scores transposed. Every "
        "number here ranks the whole gallery.",
        ("mean-similarity", "drilldown", "drilldown-policy", "hmrn-t2i", "hmrn-i2t", "hmrn"),
        ("mean-similarity", "drilldown", "hmrn-t2i"),
        (
            Pair("drilldown", "hmrn-t2i", "HMRN, sentences look at regions, against Drill-down", main=True),
            Pair("drilldown", "hmrn-i2t", "HMRN, regions look at sentences, against Drill-down"),
            Pair("drilldown", "hmrn", "HMRN, both directions averaged, against Drill-down", HMRN, True),
            Pair("drilldown-policy", "hmrn-t2i", "HMRN, sentences look at regions, against Drill-down with a policy"),
            Pair("mean-similarity", "hmrn-t2i", "the same against the mean of a dual encoder's cosines"),
            Pair("mean-similarity", "hmrn", "HMRN, both directions averaged, against the mean of cosines"),
        ),
    ),
    Claim(
        "streams", "image_text", "tshsr", "Image-text: two streams against one, context against none",
        "Two-stream Hierarchical Similarity Reasoning for Image-text Matching (arXiv 2203.05349)",
        "Both directions trained in one network beat a single stream, and so does context that each level extracts.",
        "The abstract fixes these two ideas; the equations between are this project's own, and no number of the paper "
        "is known here. The fair opponent of two streams is the average of two single ones trained apart.",
        ("dual", "saf", "sgr-t2i", "sgr-i2t", "avg-sgr", "two-none", "two-cluster", "tshsr", "sgr-extras"),
        ("sgr-t2i", "sgr-i2t", "avg-sgr", "two-none", "two-cluster"),
        (
            Pair("sgr-t2i", "two-none", "two streams against SGR, words look at regions"),
            Pair("sgr-i2t", "two-none", "two streams against SGR, regions look at words"),
            Pair("avg-sgr", "two-none", "two streams in one network against two single ones averaged", main=True),
            Pair("two-none", "two-cluster", "context against none, two streams", main=True),
            Pair("avg-sgr", "tshsr", "the whole model with this project's additions against two single ones averaged"),
            Pair("sgr-extras", "tshsr", "the same against SGR with the same additions"),
        ),
        printed={"saf": "SAF (paper)", "sgr-t2i": "SGR (paper)"},
    ),
    Claim(
        "stages", "composed", "progressive", "Composed queries: stages on and off, adaptive weights",
        "Progressive Learning for Image Retrieval with Hybrid-Modality Queries (SIGIR 2022, arXiv 2204.11212)",
        "Three learning stages and weights of image and text that adapt to each query beat the best earlier model.",
        "The abstract fixes the stages and the adaptive weights; every equation between is this project's own. The "
        "paper's opponents are inferred from its quotients.",
        ("sum", "sum-trained", "dqu", "combiner", "tirg", "tirg-direct", "plain", "plain-no-label", "plain-half",
         "plain-direct", "progressive", "progressive-direct", "progressive-no-stage3", "tirg-pooled",
         "tirg-pooled-staged", "progressive-pooled"),
        ("sum", "tirg", "plain-no-label", "plain-half", "progressive", "progressive-direct", "progressive-no-stage3"),
        (
            Pair(BEST, "progressive", "the progressive composer against the best baseline on the same features",
                 PROGRESSIVE, True),
            Pair("tirg-pooled", "progressive-pooled", "the progressive composer against TIRG as published (no stage "
                 "2), both on the backbone's mean alone", PROGRESSIVE, True),
            Pair("tirg-pooled-staged", "progressive-pooled", "the same against TIRG with this project's stage 2"),
            Pair("progressive-direct", "progressive", "stage 2 (the domain) on against off", main=True),
            Pair("progressive-no-stage3", "progressive", "stage 3 (triplets) on against off", main=True),
            Pair("plain-half", "plain-no-label", "one pair of adaptive weights for each query against one half each",
                 main=True),
            Pair("plain-no-label", "plain", "the same, taught by weight labels against not"),
        ),
        ("sum-trained", "dqu", "combiner", "tirg", "tirg-direct"),
        {"tirg": "TIRG", "combiner": "CLIP4Cir v3", "dqu": "DQU-CIR", "progressive": "progressive paper, larger"},
    ),
)  # fmt: skip
BY_KEY = {claim.key: claim for claim in CLAIMS}

# Keys of every row's recipe. What was measured for tasks/image_text trains the pairs longer than the shipped recipe.
FULL = {("streams", "flickr8k"): ("stages.1.lr=0.001", "stages.1.epochs=2", "stages.1.eval_every=2")}
# A quick run: parts of the real sets, fewer epochs.
_SCENES = "dataset.options={train: 1000, val: 100, test: 250}"
_FLICKR = "dataset.options={train: 1200, val: 200, test: 250}"
QUICK = {
    ("rounds", "scenes"): (_SCENES, "stages.0.epochs=6", "stages.0.eval_every=6"),
    ("rounds", "flickr8k"): (_FLICKR, "protocol=rounds", "stages.0.epochs=6", "stages.0.eval_every=6"),
    ("streams", "scenes"): (_SCENES, "stages.0.epochs=4", "stages.0.eval_every=4", "stages.1.epochs=1",
                            "stages.1.eval_every=1"),
    ("streams", "flickr8k"): (_FLICKR, "protocol=full", "stages.0.epochs=6", "stages.0.eval_every=6"),
    ("stages", "scenes"): (_SCENES, "stages.0.epochs=4", "stages.1.epochs=4", "stages.0.eval_every=4",
                           "stages.1.eval_every=4"),
    ("stages", "products"): (
        "dataset.options={train: 2000, val: 300, test: 500}", "stages.0.epochs=6", "stages.0.eval_every=6",
        "stages.1.epochs=4", "stages.1.eval_every=4",
    ),
}  # fmt: skip
