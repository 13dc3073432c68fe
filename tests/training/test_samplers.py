"""The order of the items: what a resumed or a distributed run must find unchanged."""

from __future__ import annotations

import numpy as np
import pytest

from xretrieve.errors import XRetrieveError
from xretrieve.training.recipe import LossConfig, StageConfig
from xretrieve.training.samplers import BatchSampler, shard, step_seed
from xretrieve.training.schedule import lr_factor

OWNER = np.repeat(np.arange(12), [1, 2, 3, 4, 5, 5, 5, 5, 5, 5, 5, 5])


def test_an_epoch_depends_on_seed_stage_and_number_only() -> None:
    make = lambda **more: BatchSampler(OWNER, 8, **more)  # noqa: E731
    assert (make(seed=1).epoch(3) == make(seed=1).epoch(3)).all()
    assert (make(seed=1).epoch(3) != make(seed=1).epoch(4)).any()
    assert (make(seed=1).epoch(3) != make(seed=2).epoch(3)).any()
    assert (make(seed=1).epoch(3) != make(seed=1, stage=1).epoch(3)).any()
    assert (make(seed=1).epoch(3) == make(seed=1, world=2).epoch(3)).all()


def test_captions_come_once_and_images_come_once() -> None:
    captions = BatchSampler(OWNER, 8).epoch(0)
    assert captions.shape == (6, 1, 8) and len(np.unique(captions)) == 48
    sampler = BatchSampler(OWNER, 4, batching="images")
    images = sampler.epoch(0)
    assert images.shape == (3, 1, 4) and sorted(OWNER[images.ravel()]) == list(range(12))
    assert (
        len({int(sampler.epoch(e)[OWNER[sampler.epoch(e)] == 11][0]) for e in range(30)}) == 5
    )  # every caption has its turn


def test_an_image_brings_distinct_captions_and_repeats_where_it_has_fewer() -> None:
    sampler = BatchSampler(OWNER, 4, batching="images", captions_per_image=3)
    drawn = sampler.epoch(0)
    assert drawn.shape == (3, 3, 4)
    assert (OWNER[drawn] == OWNER[drawn][:, :1]).all()  # one image per column
    columns = drawn.swapaxes(1, 2).reshape(-1, 3)
    assert sorted(OWNER[columns[:, 0]]) == list(range(12))
    for column in columns:
        assert len(set(column)) == min(3, (OWNER == OWNER[column[0]]).sum())
    assert (sampler.epoch(0) != sampler.epoch(1)).any()


def test_unusable_captions_never_come() -> None:
    usable = OWNER != 3
    for batching in ("captions", "images"):
        drawn = BatchSampler(OWNER, 4, batching=batching, usable=usable).epoch(0)
        assert 3 not in OWNER[drawn.ravel()]


def test_a_split_smaller_than_a_batch_still_trains() -> None:
    sampler = BatchSampler(OWNER[:7], 128, world=2)
    assert len(sampler) == 1 and sampler.epoch(0).shape == (1, 1, 6)
    with pytest.raises(XRetrieveError, match="needs at least 2"):
        BatchSampler(OWNER[:1], 128)
    with pytest.raises(XRetrieveError, match="multiple of 3"):
        BatchSampler(OWNER, 8, world=3)


def test_the_shards_joined_are_the_batch() -> None:
    batch = np.arange(24).reshape(2, 12)
    assert (np.concatenate([shard(batch, r, 3) for r in range(3)], axis=1) == batch).all()


def test_step_seeds_differ_in_every_argument() -> None:
    seeds = {step_seed(a, b, c, d) for a in range(3) for b in range(3) for c in range(10) for d in range(3)}
    assert len(seeds) == 270 and all(0 <= s < 2**63 for s in seeds)


def test_step_schedule_drops_by_epoch_after_the_warm_up() -> None:
    stage = StageConfig(LossConfig("hinge"), epochs=4, schedule="step", step_epochs=2, warmup_steps=2)
    assert [lr_factor(stage, s, 5) for s in (0, 1, 2, 9, 10, 19)] == pytest.approx([0.5, 1, 1, 1, 0.1, 0.1])
    constant = StageConfig(LossConfig("hinge"), epochs=4, schedule="constant", warmup_epochs=0.4)
    assert [lr_factor(constant, s, 5) for s in (0, 1, 19)] == pytest.approx([0.5, 1, 1])
