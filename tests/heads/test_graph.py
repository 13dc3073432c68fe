"""Reasoning steps with their written-out gradients, against autograd on the plain equations."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.nn.functional import linear

from xretrieve.heads.base import l2
from xretrieve.heads.graph import step
from xretrieve.heads.hierarchy import Level
from xretrieve.heads.sgr import GraphStep

G, N, M, NODES, S = 2, 2, 3, 5, 4
LEVELS = [("none", "vector", 1), *itertools.product(["cluster"], ["vector", "scalar"], [1, 3]), ("mean", "vector", 1)]


def plain(x, mask, own, first_row: bool):
    """The steps of a level as they are defined; x (...,n,S), mask (...,n)."""
    q, k = own.graph_query_w(x), own.graph_key_w(x)
    y = (q @ k.mT).masked_fill(~mask[..., None, :], -torch.inf).softmax(-1) @ x
    if isinstance(own, Level) and own.gate_w is not None:
        if own.context_assign_w is None:
            z = l2((x * mask[..., None]).sum(-2, keepdim=True) / mask.sum(-1)[..., None, None])
        else:
            shares = own.context_assign_w(x).masked_fill(~mask[..., None], -torch.inf).softmax(-2)
            z = l2(shares.mT @ x)
        context = z.expand_as(x) if own.context_key_w is None else (q @ own.context_key_w(z).mT).softmax(-1) @ z
        g = torch.sigmoid(linear(torch.cat([y, context], -1), own.gate_w.weight, own.gate_w.bias))
        y = g * y + (1 - g) * context
    made = own.sim_graph_w(y).relu()
    return made[..., :1, :] if first_row else made


def case(own, masked: bool):
    torch.manual_seed(0)
    own = own.double()
    with torch.no_grad():
        for parameter in own.parameters():
            parameter.add_(torch.randn_like(parameter))
    x = torch.randn(G, N, M, NODES, S, dtype=torch.float64).requires_grad_()
    mask = torch.ones(G, 1, M, NODES, dtype=torch.bool)
    if masked:
        mask[:, :, 0, 3:], mask[:, :, 1, 2] = False, False
    return own, x, mask


def check(own, x, mask, masked: bool, first_row: bool) -> None:
    given = mask if masked else None
    found, want = step(x, given, own.weights(), first_row), plain(x, mask, own, first_row)
    torch.testing.assert_close(found, want, atol=1e-12, rtol=0)
    with torch.no_grad():
        torch.testing.assert_close(step(x, given, own.weights(), first_row), want, atol=1e-12, rtol=0)
    weights = torch.linspace(-1, 1, want.numel(), dtype=torch.float64).view(want.shape)
    names, leaves = zip(*[(n, p) for n, p in own.named_parameters() if p.requires_grad], strict=True)
    ours = torch.autograd.grad((found * weights).sum(), (x, *leaves))
    theirs = torch.autograd.grad((want * weights).sum(), (x, *leaves))
    for name, mine, other in zip(("x", *names), ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-11, rtol=0, msg=lambda text, n=name: f"{n}: {text}")


@pytest.mark.parametrize(("masked", "first_row"), itertools.product([False, True], [False, True]))
@pytest.mark.parametrize(("context", "gate", "clusters"), LEVELS)
def test_a_level_and_its_gradients_are_those_of_the_equations(context, gate, clusters, masked, first_row):
    check(*case(Level(S, clusters, context, gate), masked), masked, first_row)


@pytest.mark.parametrize(("masked", "first_row"), itertools.product([False, True], [False, True]))
def test_a_step_of_sgr_and_its_gradients_are_those_of_the_equations(masked, first_row):
    check(*case(GraphStep(S), masked), masked, first_row)


def test_a_gate_of_one_leaves_the_nodes_answer_as_it_is():
    own = Level(S, 2)
    with torch.no_grad():
        own.gate_w.weight.zero_()
        own.gate_w.bias.fill_(50.0)
    alone = GraphStep(S)
    alone.load_state_dict({k: v for k, v in own.state_dict().items() if k in alone.state_dict()})
    x = torch.randn(1, N, M, NODES, S)
    assert torch.equal(step(x, None, own.weights(), False), step(x, None, alone.weights(), False))


def test_bf16_steps_give_float32_weight_gradients_and_trace_what_they_used():
    own, found = Level(S, 2), {}
    x = torch.randn(1, N, M, NODES, S).bfloat16().requires_grad_()
    made = step(x, None, own.weights(), False, found)
    assert made.dtype == torch.bfloat16
    torch.testing.assert_close(found["assign"].float().sum(-2), torch.ones(1, N, M, 2), atol=1e-2, rtol=0)
    assert found["gate"].shape == (1, N, M, NODES, S) and ((found["gate"] > 0) & (found["gate"] < 1)).all()
    made.sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in own.parameters() if p.requires_grad)
