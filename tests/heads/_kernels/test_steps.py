"""Steps without gradients, a few pairs at a time, against the written-out steps that training runs."""

from __future__ import annotations

import itertools

import pytest
import torch

from xretrieve.heads import graph
from xretrieve.heads._kernels import steps as module
from xretrieve.heads.hierarchy import Level
from xretrieve.heads.sgr import GraphStep

G, N, M, NODES, S = 2, 3, 2, 5, 64
LEVELS = {
    "none": lambda: GraphStep(S),
    "cluster": lambda: Level(S, 3),
    "one cluster": lambda: Level(S, 1),
    "mean": lambda: Level(S, 1, "mean"),
    "scalar gate": lambda: Level(S, 2, "cluster", "scalar"),
}


def case(kind: str, dtype: torch.dtype, masked: bool):
    torch.manual_seed(0)
    own = [LEVELS[kind]().to(torch.promote_types(dtype, torch.float32)) for _ in range(2)]
    x = torch.nn.functional.normalize(torch.randn(G, N, M, NODES, S), dim=-1).to(dtype)
    mask = torch.ones(G, 1, M, NODES, dtype=torch.bool)
    mask[0, :, 0, 3:], mask[1, :, 1, 2] = False, False
    return [one.weights() for one in own], x, mask if masked else None


@pytest.mark.parametrize(("masked", "first_row"), itertools.product([False, True], [False, True]))
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", LEVELS)
def test_nodes_are_those_of_the_steps_that_training_runs(monkeypatch, kind, dtype, masked, first_row):
    weights, x, mask = case(kind, dtype, masked)
    with torch.enable_grad():
        want = graph.reason(x, mask, weights, first_row).detach()
    tolerance = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 4e-2}[dtype]
    for piece in (1, 3 * NODES * S * x.element_size(), 2**30):  # every pair alone, some, all
        monkeypatch.setattr(module, "PIECE", piece)
        with torch.no_grad():
            found = graph.reason(x, mask, weights, first_row)
        assert found.dtype == dtype and found.shape == (G, N, M, 1 if first_row else NODES, S)
        torch.testing.assert_close(found, want, atol=tolerance, rtol=0)


def test_the_nodes_that_were_given_are_not_written_over():
    weights, x, mask = case("cluster", torch.float32, True)
    before = x.clone()
    with torch.no_grad():
        graph.reason(x, mask, weights, False)
    assert torch.equal(x, before)
