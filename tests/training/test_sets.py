"""Training on query sets: what is drawn, how a block is laid out, what is validated, and that runs learn and resume."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import xretrieve as xr
from xretrieve.data.base import RetrievalDataset
from xretrieve.errors import XRetrieveError
from xretrieve.evaluation.round_report import RoundsReport
from xretrieve.evaluation.round_scores import RoundScorer
from xretrieve.heads import create_head
from xretrieve.heads.fusion import combine_rounds
from xretrieve.tokens import Tokens
from xretrieve.training.build import Split
from xretrieve.training.losses import create_loss
from xretrieve.training.recipe import Recipe
from xretrieve.training.run import train
from xretrieve.training.samplers import SetSampler
from xretrieve.training.set_trainee import SetTrainee
from xretrieve.training.sets import SetWork

OWNER = np.repeat(np.arange(11), [1, 2, 3, 4, 5, 5, 5, 5, 5, 5, 5])


@pytest.fixture
def make_sets(make_recipe: Callable[..., Recipe]) -> Callable[..., Recipe]:
    """The tiny recipe on query sets: five captions of a photo are its turns."""

    def make(combine: str = "", turns: int = 0, keep: str = "rsum", **stage: Any) -> Recipe:
        base = {"token_dropout": 0.0, "word_dropout": 0.0, "batch_size": 8}
        recipe = replace(make_recipe(**{**base, **stage}), task="multi_query", protocol="rounds", combine=combine,
                         turns=turns)  # fmt: skip
        recipe.stages[0].keep = keep  # type: ignore[assignment]  # only this task has others
        return recipe

    return make


# what is drawn -------------------------------------------------------------------------------------------------------


def test_each_image_comes_once_with_distinct_sentences_of_its_own() -> None:
    batches = SetSampler(OWNER, 4, turns=3, seed=1).epoch(0)
    assert [b.shape for b in batches] == [(3, 4), (3, 4), (3, 3)]  # the incomplete last batch is kept
    seen = []
    for batch in batches:
        for column in batch.T:
            real = column[column >= 0]
            owners = set(OWNER[real])
            assert len(owners) == 1 and len(set(real)) == len(real) == min(3, (OWNER == OWNER[real[0]]).sum())
            assert (column[len(real) :] == -1).all()  # what there is comes first
            seen += owners
    assert sorted(seen) == list(range(11))


def test_sentences_are_drawn_uniformly_in_random_order_and_anew_each_epoch() -> None:
    sampler = SetSampler(np.repeat([0, 1], 5), 2, turns=3)
    drawn = Counter()
    for epoch in range(2000):
        batch = sampler.epoch(epoch)[0]
        drawn[tuple(batch[:, OWNER[batch[0]].argmin()] % 5)] += 1
    assert len(drawn) == 60  # every ordered choice of 3 of 5
    assert all(abs(n - 2000 / 60) < 5 * (2000 / 60) ** 0.5 for n in drawn.values())


def test_an_epoch_depends_on_seed_stage_and_number_only() -> None:
    make = lambda **more: SetSampler(OWNER, 4, 3, **more)  # noqa: E731
    equal = lambda a, b: all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))  # noqa: E731
    assert equal(make(seed=1).epoch(3), make(seed=1).epoch(3))
    for other in (make(seed=1).epoch(4), make(seed=2).epoch(3), make(seed=1, stage=1).epoch(3)):
        assert not equal(make(seed=1).epoch(3), other)


def test_a_last_batch_of_one_image_is_left_out_and_devices_get_equal_parts() -> None:
    assert [b.shape[1] for b in SetSampler(OWNER, 5, 2).epoch(0)] == [5, 5]
    assert [b.shape[1] for b in SetSampler(OWNER, 8, 2, world=2).epoch(0)] == [8]  # 3 left: one each is too few
    assert [b.shape[1] for b in SetSampler(OWNER, 6, 2, world=2).epoch(0)] == [6, 4]
    with pytest.raises(XRetrieveError, match="batch_size 5 cannot be split over 2 devices"):
        SetSampler(OWNER, 5, 2, world=2)
    with pytest.raises(XRetrieveError, match="has 1 images with a sentence; training needs at least 2"):
        SetSampler(OWNER, 4, 2, usable=OWNER == 3)


def test_sentences_that_may_not_be_drawn_are_not() -> None:
    usable = np.ones(len(OWNER), bool)
    usable[OWNER == 4] = False
    usable[np.flatnonzero(OWNER == 9)[:3]] = False
    drawn = np.concatenate([b.ravel() for b in SetSampler(OWNER, 5, 5, usable=usable).epoch(0)])
    assert usable[drawn[drawn >= 0]].all() and 4 not in OWNER[drawn[drawn >= 0]]


# a block -------------------------------------------------------------------------------------------------------------


class Feed:
    """Rows as tokens that say which row they are."""

    live = False

    def __init__(self, count: int) -> None:
        self.kept, self.failed = np.arange(count), []

    def take(self, rows: np.ndarray, rng: Any = None, word_dropout: float = 0.0) -> Tokens:
        return Tokens.from_pooled(torch.tensor(rows, dtype=torch.float32)[:, None])


def split_of(captions: list[str], owner: list[int]) -> Split:
    images = max(owner) + 1
    data = RetrievalDataset(
        "toy", "train", [str(i) for i in range(images)], [Path(str(i)) for i in range(images)], captions,
        [str(c) for c in range(len(captions))], np.array(owner), images, "toy",
    )  # fmt: skip
    return Split(data, Feed(images), Feed(len(captions)))


def test_a_block_holds_the_sentences_flat_with_sizes_and_what_says_the_same(
    make_sets: Callable[..., Recipe],
) -> None:
    split = split_of(["a dog", "snow", "Snow ", "a dog", "a cat", "a dog"], [0, 0, 1, 1, 1, 2])
    batch = np.array([[1, 2, 5], [0, 3, -1], [-1, 4, -1]])  # (T,images)
    for combine, expected in {
        "": [[(0, 1), (1, 0)], [(0, 1), (1, 0)], []],  # after two sentences both have said: a dog, snow
        "rank_fusion": [[(0, 1), (1, 0)], [(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)], [(0, 2), (2, 0)]],
    }.items():
        work = SetWork(make_sets(combine), (split, split))
        images, (texts, sizes), same = work.block(work.recipe.stages[0], batch, np.random.default_rng(0), 0, 1)
        assert texts.pooled[:, 0].tolist() == [1, 0, 2, 3, 4, 5] and sizes.tolist() == [2, 3, 1]
        assert images.pooled[:, 0].tolist() == [0, 1, 2]
        assert [sorted(map(tuple, turn.nonzero().tolist())) for turn in same] == [sorted(e) for e in expected]
    second = work.block(work.recipe.stages[0], np.hstack([batch, batch[:, :1]]), np.random.default_rng(0), 1, 2)
    assert second[0].pooled[:, 0].tolist() == [2, 0] and second[1][1].tolist() == [1, 2]  # the second process's half


def test_the_loss_is_the_mean_over_rounds_of_the_recipes_loss() -> None:
    torch.manual_seed(0)
    head, loss = create_head("dual", image_dim=3, text_dim=4, dim=6).eval(), create_loss("infonce")
    images, texts = Tokens.from_local(torch.randn(5, 2, 3)), Tokens.from_local(torch.randn(12, 3, 4))
    sizes = torch.tensor([3, 1, 2, 3, 3])
    same = torch.zeros(3, 5, 5, dtype=torch.bool)
    same[0, 1, 2] = same[0, 2, 1] = True
    alone = head.score(texts, images)
    starts = (sizes.cumsum(0) - sizes).tolist()
    for combine in ("head", "mean_similarity", "rank_fusion", "paragraph"):
        found, _ = SetTrainee(head, loss, combine=combine)(images, (texts, sizes), same)
        expected = []
        for turn in range(3):
            rows = []
            for m, start in enumerate(starts):
                last = min(turn, int(sizes[m]) - 1)
                own = alone[start : start + last + 1]
                rows.append(own[-1] if combine in ("rank_fusion", "paragraph") else own.mean(0))
            expected.append(loss(torch.stack(rows), duplicates=same[turn])[0])
        assert found.item() == pytest.approx(torch.stack(expected).mean().item(), rel=1e-5), combine
        found.backward()
    assert head.text.linear.weight.grad is not None


def test_the_rounds_of_short_sets_repeat_and_padding_gets_no_gradient() -> None:
    alone = torch.arange(6.0).reshape(3, 2).requires_grad_()
    rounds = combine_rounds(alone, [2, 1], "mean_similarity")
    assert rounds[:, :, 0].tolist() == [[0, 1], [1, 2]] and rounds[:, :, 1].tolist() == [[4, 5], [4, 5]]
    rounds[1].sum().backward()
    assert alone.grad is not None and alone.grad.tolist() == [[0.5, 0.5], [0.5, 0.5], [1, 1]]


# runs ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("combine", ["", "mean_similarity", "rank_fusion", "paragraph"])
def test_a_run_learns_and_reports_its_rounds(make_sets: Callable[..., Recipe], tmp_path: Path, combine: str) -> None:
    run = train(make_sets(combine, epochs=8, lr=0.02), out=tmp_path / "run", seed=1)
    assert isinstance(run.report, RoundsReport) and run.report.turns == 5
    assert run.log[-1]["loss"] < run.log[0]["loss"] and set(run.log[-1]) >= {"r1", "r5", "r10", "rsum"}
    assert run.report["rsum"].value > 180  # chance on 12 images is about 133
    assert "recall by round" in (run.folder / "report.html").read_text()
    said = "the head" if combine == "" else combine.replace("_", " ")
    assert run.report.about["sets are scored by"] == said
    # what chose the weights is the number that an evaluation of the validation split gives
    val = xr.datasets.load("flickr30k", run.recipe.dataset.root, "val", "precomp")
    again = xr.evaluate(run.matcher(), val, "rounds", bootstrap=0, combine=combine)
    assert again["rsum"].value == pytest.approx(max(row["rsum"] for row in run.log))


def test_sets_are_validated_in_float32_whatever_auto_means(
    make_sets: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[str] = []
    score = RoundScorer.score

    def watched(self: RoundScorer, *args: Any) -> Any:
        used.append(self.matcher.precision)
        return score(self, *args)

    monkeypatch.setattr(RoundScorer, "score", watched)
    run = train(make_sets(epochs=1), out=tmp_path / "run", progress=False)
    assert used[0] == "32" and set(used) <= {"32", "auto"}  # auto: the report
    assert run.matcher().precision == "auto"


def test_fewer_turns_than_sentences_are_drawn_and_validated(make_sets: Callable[..., Recipe], tmp_path: Path) -> None:
    run = train(make_sets(turns=2, epochs=1), out=tmp_path / "run")
    val = xr.datasets.load("flickr30k", run.recipe.dataset.root, "val", "precomp", captions_per_image=2)
    assert xr.evaluate(run.matcher(), val, "rounds", bootstrap=0)["rsum"].value == pytest.approx(run.log[0]["rsum"])


@pytest.mark.parametrize("keep", ["rounds", "loss"])
def test_the_weights_that_are_kept_are_the_best_of_what_the_stage_says(
    make_sets: Callable[..., Recipe], tmp_path: Path, keep: str
) -> None:
    run = train(make_sets(keep=keep, epochs=4, lr=0.05), out=tmp_path / "run")
    val = xr.datasets.load("flickr30k", run.recipe.dataset.root, "val", "precomp")
    report = xr.evaluate(run.matcher(), val, "rounds", bootstrap=0)
    if keep == "rounds":
        mean = np.mean([report[f"round{r}_r{k}"].value for r in range(1, 6) for k in (1, 5, 10)]) * 3
        assert mean == pytest.approx(max(row["rounds"] for row in run.log))
    else:
        best = min(run.log, key=lambda row: row["val_loss"])
        assert report["rsum"].value == pytest.approx(best["rsum"])
        assert best["val_loss"] > 0


class KilledError(Exception):
    pass


@pytest.mark.parametrize("combine", ["", "paragraph"])
def test_killed_and_resumed_gives_the_same_log(make_sets: Callable[..., Recipe], tmp_path: Path, combine: str) -> None:
    recipe = make_sets(combine, word_dropout=0.2, accumulate=2)
    recipe.save_every = 1

    def stop(done: int) -> None:
        if done == 3:
            raise KilledError

    whole = train(recipe, out=tmp_path / "whole")
    with pytest.raises(KilledError):
        train(recipe, out=tmp_path / "cut", on_step=stop)
    resumed = train(recipe, out=tmp_path / "cut", resume=True)
    for a, b in zip(whole.log, resumed.log, strict=True):
        assert {k: v for k, v in a.items() if k != "seconds"} == {k: v for k, v in b.items() if k != "seconds"}
    assert whole.matcher().fingerprint() == resumed.matcher().fingerprint()


def test_two_processes_equal_one(make_sets: Callable[..., Recipe], tmp_path: Path) -> None:
    from xretrieve.cli.main import main
    from xretrieve.training.log import read_log
    from xretrieve.training.recipes import save_recipe

    recipe = make_sets(epochs=1, batch_size=12, lr=0.003)
    recipe.text.options["dropout"] = 0.0  # each process draws its own
    save_recipe(recipe, tmp_path / "recipe.yaml")
    one = train(recipe, out=tmp_path / "one")
    words = ["--out", str(tmp_path / "two"), "--devices", "2", "--accelerator", "cpu"]
    assert main(["train", str(tmp_path / "recipe.yaml"), *words]) == 0
    two = read_log(tmp_path / "two/log.csv")
    for key in ("loss", "grad_norm", "positive", "negative"):
        assert [row[key] for row in two] == pytest.approx([row[key] for row in one.log], rel=1e-3), key


def test_a_protocol_of_another_task_and_keys_of_another_task_are_refused(
    make_sets: Callable[..., Recipe], make_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    with pytest.raises(XRetrieveError, match="'full' is of task image_text, the recipe of task multi_query"):
        train(replace(make_sets(), protocol="full"), out=tmp_path / "run")
    with pytest.raises(XRetrieveError, match="'rounds' is of task multi_query, the recipe of task image_text"):
        train(replace(make_recipe(), protocol="rounds"), out=tmp_path / "run")
    with pytest.raises(XRetrieveError, match="'turns': must be left out unless task is multi_query"):
        replace(make_recipe(), turns=3)
    with pytest.raises(XRetrieveError, match="'stages.0.keep': must be rsum unless task is multi_query"):
        make_recipe(keep="loss")
