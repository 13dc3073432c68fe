"""Groups of items that are alike: how they are drawn, what they are trained on, and stages of coarse vectors alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.training.test_run import KilledError, kill_at, log_without_time, same, weights
from xretrieve.errors import XRetrieveError
from xretrieve.heads import create_head
from xretrieve.tokens import Tokens
from xretrieve.training.groups import CoarseVectors, GroupSampler, near_groups
from xretrieve.training.losses import create_loss
from xretrieve.training.recipe import HeadConfig, LossConfig, Recipe, StageConfig
from xretrieve.training.run import train
from xretrieve.training.samplers import BatchSampler
from xretrieve.training.trainee import Trainee

SGR = HeadConfig("sgr", {"dim": 16, "sim_dim": 8, "dropout": 0.0, "train_on": "logit"})
NCE = LossConfig("infonce")
NARROW = {"head.options.dim": 24, "head.options.sim_dim": 24, "text.options.dim": 24, "text.options.word_dim": 8}


def sampler(group: int, pool: int, captions_per_image: int = 1) -> GroupSampler:
    rng = np.random.default_rng(0)
    owner = np.arange(96) // 2
    kind = owner % 4  # four kinds of image: the vectors of a kind are near each other
    centres = 5 * np.eye(4, 8, dtype=np.float32)
    vectors = CoarseVectors(
        centres[kind] + 0.1 * rng.standard_normal((96, 8)).astype(np.float32), centres[np.arange(48) % 4]
    )
    batching = "captions" if captions_per_image == 1 else "images"
    return GroupSampler(BatchSampler(owner, 24, batching, captions_per_image), vectors, group, pool)


def test_an_epoch_still_holds_every_item_once() -> None:
    rows = sampler(4, 48).epoch(3)
    assert rows.shape == (4, 1, 24)
    assert sorted(rows.ravel().tolist()) == list(range(96))


def test_groups_hold_items_of_one_kind_and_different_images() -> None:
    s = sampler(4, 96)
    groups = s.epoch(0).reshape(-1, 4)
    owners = s.base.owner[groups]
    assert np.mean([len(set(row % 4)) == 1 for row in owners]) > 0.9
    assert all(len(set(row)) == 4 for row in owners[:20])
    alone = s.base.epoch(0).reshape(-1, 4)
    assert np.mean([len(set(row % 4)) == 1 for row in s.base.owner[alone]]) < 0.2


def test_the_captions_of_an_image_stay_together() -> None:
    rows = sampler(4, 24, captions_per_image=2).epoch(1)  # (2,2,24)
    owner = np.arange(96) // 2
    assert (owner[rows[:, 0]] == owner[rows[:, 1]]).all()
    assert len(np.unique(owner[rows[:, 0]])) == 48


def test_orders_depend_on_the_epoch_only() -> None:
    s = sampler(4, 48)
    assert (s.epoch(2) == s.epoch(2)).all()
    assert (s.epoch(2) != s.epoch(3)).any()


def test_items_of_one_owner_share_a_group_only_when_nothing_else_is_left() -> None:
    groups = near_groups(np.ones((4, 4)), np.array([0, 0, 0, 1]), 2, np.random.default_rng(0))
    assert sorted(np.concatenate(groups).tolist()) == [0, 1, 2, 3]
    assert sum(len({0, 1} & {int(i == 3) for i in g}) == 2 for g in groups) == 1


def tokens(n: int, length: int, seed: int) -> Tokens:
    return Tokens.from_local(torch.randn(n, length, 12, generator=torch.Generator().manual_seed(seed)))


def test_a_grouped_loss_is_the_mean_of_the_losses_of_the_groups() -> None:
    torch.manual_seed(0)
    head = create_head("sgr", image_dim=12, text_dim=12, **SGR.options).eval()
    loss, images, texts = create_loss("infonce"), tokens(6, 3, 0), tokens(6, 4, 1)
    same = torch.zeros(1, 6, 6, dtype=torch.bool)
    same[0, 3, 4] = True  # a pair that is no negative
    total, _ = Trainee(head, loss, group=3)(images, texts, same)
    scores = head.score(texts, images)
    apart = [loss(scores[s, s], duplicates=same[0, s, s])[0] for s in (slice(0, 3), slice(3, 6))]
    assert total.item() == pytest.approx(sum(apart).item() / 2, abs=1e-6)
    whole, _ = Trainee(head, loss)(images, texts, same)
    assert whole.item() != pytest.approx(total.item(), abs=1e-3)


def test_the_coarse_loss_reads_the_whole_batch_whatever_the_groups() -> None:
    torch.manual_seed(0)
    head = create_head("sgr", image_dim=12, text_dim=12, coarse=True, **SGR.options).eval()
    images, texts, none = tokens(6, 3, 0), tokens(6, 4, 1), torch.zeros(1, 6, 6, dtype=torch.bool)
    found = [Trainee(head, create_loss("infonce"), coarse_loss=create_loss("infonce"), group=g)(images, texts, none)[1]
             for g in (0, 3)]  # fmt: skip
    assert float(found[0]["coarse_loss"]) == pytest.approx(float(found[1]["coarse_loss"]), abs=1e-6)


@pytest.fixture
def staged(make_recipe: Callable[..., Recipe]) -> Recipe:
    """Coarse vectors alone, then groups of 4 out of pools of 32."""
    recipe = make_recipe(loss=None, coarse_loss=NCE, epochs=1)
    recipe.head = SGR
    how = {"name": "pairs", "batch_size": 16, "lr": 0.01, "coarse_loss": NCE, "group": 4, "group_pool": 32}
    recipe.stages.append(StageConfig(NCE, 2, **how))
    return recipe


def test_a_coarse_stage_trains_and_is_judged_by_the_coarse_vectors_alone(staged: Recipe, tmp_path: Path) -> None:
    first = {"stages.0.epochs": 6}
    run = train(staged, out=tmp_path / "run", overrides=first)
    rows = [row for row in run.log if row["stage"] == "train"]
    assert rows[-1]["rsum"] > rows[0]["rsum"] + 20, [row["rsum"] for row in rows]
    assert [row["stage"] for row in run.log] == ["train"] * 6 + ["pairs"] * 2
    assert all("coarse_loss" in row for row in run.log)


def test_a_later_stage_of_pairs_is_kept_though_the_coarse_vectors_were_better(staged: Recipe, tmp_path: Path) -> None:
    run = train(staged, out=tmp_path / "run", overrides={"stages.0.epochs": 4, "stages.1.epochs": 1})
    kept = weights(run.folder)["head/sim_eval_w.weight"]
    last = weights(run.folder)["last/head.sim_eval_w.weight"]
    assert torch.equal(kept, last)


@pytest.mark.parametrize("step", [3, 14, 23])
def test_stages_with_groups_resume_to_the_same_bits(staged: Recipe, tmp_path: Path, step: int) -> None:
    often: dict[str, Any] = {"save_every": 2}
    whole = train(staged, out=tmp_path / "whole", overrides=often)
    with pytest.raises(KilledError):
        train(staged, out=tmp_path / "cut", overrides=often, on_step=kill_at(step))
    again = train(staged, out=tmp_path / "cut", overrides=often, resume=True)
    same(whole.folder, again.folder)
    assert log_without_time(whole) == log_without_time(again)


def test_a_run_starts_from_the_weights_of_another(staged: Recipe, tmp_path: Path) -> None:
    first = train(staged, out=tmp_path / "first")
    staged.head = HeadConfig("tshsr", {**SGR.options, "levels": 2})
    staged.stages = staged.stages[:1]
    # one step of next to nothing: what was copied is still there
    tiny = {"stages.0.lr": 1e-12, "start": str(first.folder)}
    second = train(staged, out=tmp_path / "second", overrides=tiny)
    a, b = weights(first.folder), weights(second.folder)
    for key in ("head/image.fc.weight", "head/v_global_w.embedding_local.0.weight", "text/embed.weight"):
        assert torch.allclose(a[key], b[key], atol=1e-6), key


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"text.options.min_count": 28}, "another vocabulary"),
        (NARROW, "widths"),
        ({"start": "nowhere"}, "nowhere"),
    ],
)
def test_a_start_that_does_not_fit_says_why(staged: Recipe, tmp_path: Path, change: dict[str, Any], said: str) -> None:
    first = train(staged, out=tmp_path / "first")
    with pytest.raises(XRetrieveError, match=said):
        train(staged, out=tmp_path / "second", overrides={"start": str(first.folder), **change})


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        ({"group": 5}, "divisor of batch_size"),
        ({"group_pool": 8}, "at least group"),
        ({"group": 8, "group_pool": 4}, "at least group"),
        ({"loss": None}, "unless coarse_loss"),
    ],
)
def test_keys_that_do_not_go_together_are_named(stage: dict[str, Any], said: str) -> None:
    with pytest.raises(XRetrieveError, match=said):
        StageConfig(**{"loss": NCE, "epochs": 1, "batch_size": 16, **stage})


@pytest.mark.parametrize("name", ["scan", "sgr", "saf", "tshsr"])
@pytest.mark.parametrize("memory", [None, 1])
def test_scores_within_groups_are_those_of_the_whole_matrix(name: str, memory: int | None) -> None:
    torch.manual_seed(0)
    options = {"dim": 16} if name == "scan" else {"dim": 16, "sim_dim": 8, "dropout": 0.0}
    head = create_head(name, image_dim=12, text_dim=12, **options).eval()
    head.memory = memory
    queries, gallery = head.prepare_queries(tokens(6, 4, 0)), head.prepare_gallery(tokens(9, 3, 1))
    whole, parts = head.run(queries, gallery)["score"], head.run_groups(queries, gallery, 3)["score"]
    assert parts.shape == (3, 2, 3)
    for g in range(3):
        assert torch.allclose(parts[g], whole[2 * g : 2 * g + 2, 3 * g : 3 * g + 3], atol=1e-6)


def test_saf_in_groups_takes_its_statistics_group_by_group() -> None:
    torch.manual_seed(0)
    head = create_head("saf", image_dim=12, text_dim=12, dim=16, sim_dim=8, dropout=0.0).train()
    queries, gallery = head.prepare_queries(tokens(6, 4, 0)), head.prepare_gallery(tokens(6, 3, 1))
    scores = head.run_groups(queries, gallery, 2)["score"]
    assert torch.allclose(scores[0], head.run(queries[:3], gallery[:3])["score"], atol=1e-6)
    assert int(head.SAF_module.bn.num_batches_tracked) == 9


def test_groups_of_unequal_size_are_an_error() -> None:
    head = create_head("sgr", image_dim=12, text_dim=12, dim=16, sim_dim=8)
    with pytest.raises(XRetrieveError, match="no 4 equal groups"):
        head.run_groups(head.prepare_queries(tokens(6, 4, 0)), head.prepare_gallery(tokens(8, 3, 1)), 4)
