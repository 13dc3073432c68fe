"""SCAN against the definition with the attended vectors written out."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cosine_similarity

from tests.heads.local_cases import assert_same_gradients, gradients, images, make, texts
from tests.heads.plain import all_pairs, attended
from xretrieve.errors import XRetrieveError


def pooled(r, pooling, lse):
    if pooling == "LogSumExp":
        return (lse * r).exp().sum().log() / lse
    return {"Mean": r.mean(), "Max": r.max(), "Sum": r.sum()}[pooling]


@pytest.mark.parametrize("stream", ["t2i", "i2t"])
@pytest.mark.parametrize("pooling", ["LogSumExp", "Mean", "Max", "Sum"])
def test_scores_and_gradients_without_any_attended_vector(stream, pooling):
    head = make("scan", stream=stream, pooling=pooling)

    def score(v, t, V, T):
        query, context = (t, v) if stream == "t2i" else (v, t)
        relevance = cosine_similarity(query, attended(query, context, head.temperature), dim=1)
        return pooled(relevance, pooling, head.lambda_lse)

    plain = all_pairs(head, texts(), images(), score)
    torch.testing.assert_close(head.score(texts(), images()), plain, atol=2e-6, rtol=0)
    found = gradients(head, texts(), images())
    head.zero_grad()
    (plain * torch.linspace(-1, 1, plain.numel()).view(plain.shape)).sum().backward()
    assert_same_gradients(found, {n: p.grad for n, p in head.named_parameters() if p.grad is not None})


def test_published_temperatures_are_the_defaults():
    assert (make("scan").temperature, make("scan").lambda_lse) == (9.0, 6.0)
    assert (make("scan-i2t-mean").temperature, make("scan-i2t-mean").lambda_lse) == (4.0, 5.0)


def test_training_reads_the_scores_themselves():
    head = make("scan")
    queries, gallery = head.prepare_queries(texts()), head.prepare_gallery(images())
    assert torch.equal(head.training_scores(queries, gallery)["score"], head.pair(queries, gallery))


def test_unknown_options_name_the_nearest():
    with pytest.raises(XRetrieveError, match="did you mean 'LogSumExp'"):
        make("scan", pooling="LogSumEx")
    with pytest.raises(XRetrieveError, match="unknown feature_norm"):
        make("scan", feature_norm="l3")
    with pytest.raises(XRetrieveError, match="unknown stream 'both'"):
        make("scan", stream="both")
