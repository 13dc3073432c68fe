"""Cross-attention against a loop over pairs of sliced, unpadded items."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import leaky_relu

from xretrieve.errors import XRetrieveError
from xretrieve.heads.attention import (
    FEATURE_NORMS,
    affinities,
    attend,
    attended_norm,
    attention_weights,
    gram_matrix,
    swap_roles,
)
from xretrieve.heads.base import EPS, l2

LENGTHS = {"context": (5, 3, 1), "query": (4, 1)}


def unit(lengths, longest, seed):
    mask = torch.arange(longest) < torch.tensor(lengths)[:, None]
    x = torch.randn(len(lengths), longest, 6, generator=torch.Generator().manual_seed(seed))
    return l2(x) * mask[..., None], mask


def plain_weights(context, query, temperature, norm):
    """Spec section 3 on one pair: (q,k)."""
    a = query @ context.T
    if norm.startswith("clipped"):
        a = leaky_relu(a, 0.1)
    if norm.endswith("l2norm"):
        a = a / (a.square().sum(0, keepdim=True).sqrt() + 1e-8)
    if norm == "softmax":
        a = a.softmax(0)
    return (temperature * a).softmax(1)


@pytest.mark.parametrize("norm", FEATURE_NORMS)
def test_weights_and_attended_vectors_against_a_loop(norm):
    (context, seen), (query, looking) = unit(LENGTHS["context"], 5, 0), unit(LENGTHS["query"], 4, 1)
    weights = attention_weights(affinities(context[None], query[None]), 7.0, seen[None], looking[None], norm)
    attended = attend(weights, context[None])[0]
    length = attended_norm(weights, gram_matrix(context)[None])[0]
    for n, k in enumerate(LENGTHS["context"]):
        for m, q in enumerate(LENGTHS["query"]):
            want = plain_weights(context[n, :k], query[m, :q], 7.0, norm)
            torch.testing.assert_close(weights[0, n, :k, m, :q].T, want, atol=1e-6, rtol=0)
            assert (weights[0, n, k:, m] == 0).all()
            torch.testing.assert_close(attended[n, m, :q], want @ context[n, :k], atol=1e-6, rtol=0)
            torch.testing.assert_close(length[n, m, :q], (want @ context[n, :k]).norm(dim=1), atol=1e-6, rtol=0)


def test_the_other_stream_is_the_same_product_turned():
    (context, _), (query, _) = unit((5, 3, 1), 5, 0), unit((4, 1), 4, 1)
    turned = swap_roles(affinities(context[None], query[None]))
    torch.testing.assert_close(turned, affinities(query[None], context[None]), atol=1e-6, rtol=0)


def shares(weights, gram):
    return weights / (attended_norm(weights, gram)[:, :, None] + EPS)


def test_shares_give_the_unit_vector_forward_and_gradient():
    found = []
    for saved in (True, False):
        (context, seen), (query, _) = unit(LENGTHS["context"], 5, 0), unit(LENGTHS["query"], 4, 1)
        context, query = context[None].requires_grad_(), query[None].requires_grad_()
        weights = attention_weights(affinities(context, query), 9.0, seen[None])
        if saved:
            attended = attend(shares(weights, gram_matrix(context[0])[None]), context)
        else:
            attended = l2(attend(weights, context))
        attended.mul(torch.linspace(-1, 1, attended.numel()).view(attended.shape)).sum().backward()
        found.append((attended.detach(), context.grad, query.grad))
    for ours, plain in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain, atol=3e-6, rtol=1e-4)


def test_zero_rows_give_finite_gradients():
    context = torch.zeros(1, 2, 3, 6).requires_grad_()
    query = torch.zeros(1, 2, 4, 6).requires_grad_()
    nobody = torch.zeros(1, 2, 3, dtype=torch.bool)
    weights = attention_weights(affinities(context, query), 9.0, nobody)
    attend(shares(weights, gram_matrix(context[0])[None]), context).sum().backward()
    assert torch.isfinite(context.grad).all() and torch.isfinite(query.grad).all()


def test_norms_and_softmax_stay_float32_under_autocast():
    context, query = torch.randn(1, 2, 3, 8), torch.randn(1, 2, 4, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cosines = affinities(context, query)
        weights = attention_weights(cosines, 9.0)
        gram = gram_matrix(context[0])
        assert {cosines.dtype, weights.dtype, gram.dtype, attended_norm(weights, gram[None]).dtype} == {torch.float32}
    torch.testing.assert_close(gram, context[0] @ context[0].mT)


def test_unknown_norm_names_the_nearest():
    with pytest.raises(XRetrieveError, match="did you mean 'l2norm'"):
        attention_weights(torch.zeros(1, 1, 2, 1, 2), 9.0, norm="l2nrm")
