"""Similarity nodes with their written-out gradients, against autograd on the plain equations."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from xretrieve.heads import compare as module
from xretrieve.heads.base import l2
from xretrieve.heads.compare import compare
from xretrieve.heads.precise import Affine

GROUPS, N, K, M, Q, D, S = 2, 3, 4, 2, 5, 6, 7


def inputs(groups: int, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((groups, N, K, M, Q), (groups, N, K, D), (groups, M, Q, D), (groups, N, M, S))
    return tuple(torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes)


def layer(dtype: torch.dtype) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(D, S).to(dtype)


def plain(share, context, query, first, linear):
    attended = torch.einsum("gnkmq,gnkd->gnmqd", share, context)
    return torch.cat([first[..., None, :], l2(linear((attended - query[:, None]).square()))], -2)


@pytest.mark.parametrize("piece", [1, 2**20])
@pytest.mark.parametrize("groups", [1, GROUPS])
def test_nodes_and_gradients_are_those_of_the_equation(monkeypatch, groups, piece):
    monkeypatch.setattr(module, "PIECE", piece)  # every row of pairs by itself, or all at once
    own, given = layer(torch.float64), inputs(groups, torch.float64)
    found, want = compare(*given[:3], Affine(own), given[3]), plain(*given, own)
    torch.testing.assert_close(found, want, atol=1e-12, rtol=0)
    weights = torch.linspace(-1, 1, want.numel(), dtype=torch.float64).view(want.shape)
    leaves = (*given, own.weight, own.bias)
    ours = torch.autograd.grad((found * weights).sum(), leaves)
    for mine, theirs in zip(ours, torch.autograd.grad((want * weights).sum(), leaves), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-11, rtol=0)


def test_without_first_there_are_only_the_query_nodes():
    own, given = layer(torch.float32), inputs(1, torch.float32)
    torch.testing.assert_close(compare(*given[:3], Affine(own)), plain(*given, own)[..., 1:, :], atol=1e-6, rtol=0)


def test_rows_of_zeros_give_finite_nodes_and_gradients():
    own = layer(torch.float32)
    nn.init.zeros_(own.bias)
    share = torch.zeros(1, N, K, M, Q).requires_grad_()
    context, query = torch.zeros(1, N, K, D).requires_grad_(), torch.zeros(1, M, Q, D).requires_grad_()
    made = compare(share, context, query, Affine(own))
    assert (made == 0).all()
    made.sum().backward()
    assert all(torch.isfinite(x.grad).all() for x in (share, context, query, own.weight, own.bias))


def test_bf16_nodes_have_float32_weight_gradients_and_lengths_near_one():
    own, given = layer(torch.float32), inputs(1, torch.float32)
    share, context, query, _ = given
    made = compare(share, context.bfloat16(), query.bfloat16(), Affine(own))
    assert made.dtype == torch.bfloat16
    lengths = made.detach().double().norm(dim=-1)
    assert (lengths - 1).abs().max() < 4e-3
    torch.testing.assert_close(made.float(), plain(*given, own)[..., 1:, :], atol=3e-2, rtol=0)
    made.sum().backward()
    assert own.weight.grad.dtype == own.bias.grad.dtype == share.grad.dtype == torch.float32
