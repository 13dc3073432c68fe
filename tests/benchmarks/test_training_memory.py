"""benchmarks/speed/training_memory.py at toy sizes: steps are taken, and the table says what they took."""

from __future__ import annotations

import argparse

import pytest
import torch

from benchmarks.speed import training_memory

TOY = {"head": "tshsr", "batch": 6, "memory": 0, "threads": 1, "features": 12, "dim": 16, "sim_dim": 32, "regions": 4,
       "words": 40}  # fmt: skip


def test_a_step_changes_what_learns_and_costs_something() -> None:
    a = argparse.Namespace(**TOY)
    trainee = training_memory.make(a)
    before = {name: p.detach().clone() for name, p in trainee.named_parameters()}
    adam = torch.optim.Adam([p for p in trainee.parameters() if p.requires_grad], 2e-4)
    assert training_memory.step(trainee, adam, training_memory.batch(6, a), torch.float32) > 0
    moved = {name for name, p in trainee.named_parameters() if not torch.equal(p, before[name])}
    assert moved >= {"text.embed.weight", "head.image.fc.weight", "head.t2i.levels.0.sim_graph_w.weight",
                     "head.i2t.sim_eval_w.weight"}  # fmt: skip
    assert not moved & {name for name, p in trainee.named_parameters() if not p.requires_grad}
    found = training_memory.measure("bfloat16", a)
    assert found["cpu"] > 0 and found["peak"] >= found["before"] > 0.1


def test_blocks_that_are_computed_again_give_the_same_loss() -> None:
    losses = [training_memory.measure("float32", argparse.Namespace(**TOY | {"memory": m}))["loss"] for m in (0, 1)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_the_table_has_a_line_per_precision(capsys: pytest.CaptureFixture[str]) -> None:
    found = training_memory.main(["--rows", "float32", *(f"--{k.replace('_', '-')}={v}" for k, v in TOY.items())])
    assert set(found) == {"float32"} and "float32 " in capsys.readouterr().out
