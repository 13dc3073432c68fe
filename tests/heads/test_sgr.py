"""SGR against its steps written out: merged query and key, and the last step for one row, change nothing."""

from __future__ import annotations

import pytest
import torch

from tests.heads.local_cases import assert_same_gradients, gradients, images, make, texts
from tests.heads.plain import all_pairs, nodes, sgr_step
from xretrieve.errors import XRetrieveError


def plain_logits(head):
    def score(v, t, V, T):
        x = nodes(head, head.sim_tranloc_w, head.stream, v, t, V, T)
        for step in head.SGR_module:
            x = sgr_step(x, step)[2]
        return head.sim_eval_w(x[0])[0]

    return all_pairs(head, texts(), images(), score)


@pytest.mark.parametrize("case", ["sgr", "sgr-i2t"])
def test_scores_and_gradients_against_the_written_out_steps(case):
    head = make(case)
    plain = plain_logits(head)
    torch.testing.assert_close(head.score(texts(), images()), plain, atol=3e-6, rtol=0)
    found = gradients(head, texts(), images())
    head.zero_grad()
    p = torch.sigmoid(plain)
    (p * torch.linspace(-1, 1, p.numel()).view(p.shape)).sum().backward()
    assert_same_gradients(found, {n: q.grad for n, q in head.named_parameters() if q.requires_grad})


def test_the_query_bias_matters_and_the_key_bias_does_not():
    head = make("sgr")
    want = head.score(texts(), images())
    with torch.no_grad():
        head.SGR_module[0].graph_key_w.bias.add_(3.0)
        torch.testing.assert_close(plain_logits(head), want, atol=5e-6, rtol=0)
        head.SGR_module[0].graph_query_w.bias.add_(3.0)
    assert (head.score(texts(), images()) - want).abs().max() > 1e-3
    torch.testing.assert_close(head.score(texts(), images()), plain_logits(head), atol=5e-6, rtol=0)


def test_region_norm_by_index_tells_regions_apart_and_none_does_not():
    gallery = images((5, 5), 5)
    turned = type(gallery).from_local(gallery.local.flip(1))
    for norm, differs in (("index", True), ("none", False)):
        head = make("sgr", region_norm=norm, regions=5)
        moved = (head.score(texts(), turned) - head.score(texts(), gallery)).abs().max()
        assert (moved > 1e-4) == differs


def test_steps_must_be_positive():
    with pytest.raises(XRetrieveError, match="steps must be at least 1"):
        make("sgr", steps=0)
