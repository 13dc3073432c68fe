"""SAF: weights against a loop, and the statistics of training, which the published code takes caption by caption."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.heads.local_cases import assert_same_gradients, gradients, images, make, texts
from tests.heads.plain import all_pairs, filtered, nodes
from xretrieve.errors import XRetrieveError


def prepared(head):
    """Prepared sides without dropout, whatever the mode."""
    training = head.training
    head.eval()
    sides = head.prepare_queries(texts()), head.prepare_gallery(images())
    head.train(training)
    return sides


def plain_nodes(head):
    """Nodes of every pair, [caption][image]."""
    queries, gallery = prepared(head)
    return [
        [
            nodes(head, head.sim_tranloc_w, head.stream, image, text, gallery.pooled[b], queries.pooled[c])
            for b, image in enumerate(x[m] for x, m in zip(gallery.local, gallery.mask, strict=True))
        ]
        for c, text in enumerate(x[m] for x, m in zip(queries.local, queries.mask, strict=True))
    ]  # fmt: skip


@pytest.mark.parametrize("case", ["saf", "saf-i2t"])
def test_evaluation_scores_and_gradients_against_a_loop(case):
    head = make(case)
    own, bn = head.SAF_module, head.SAF_module.bn
    bn.running_mean.fill_(0.3)
    bn.running_var.fill_(0.2)

    def score(v, t, V, T):
        x = nodes(head, head.sim_tranloc_w, head.stream, v, t, V, T)
        return head.sim_eval_w(filtered(x, own, bn(own.attn_sim_w(x)).squeeze(1)))[0]

    plain = all_pairs(head, texts(), images(), score)
    torch.testing.assert_close(head.score(texts(), images()), plain, atol=3e-6, rtol=0)
    found = gradients(head, texts(), images())
    head.zero_grad()
    p = torch.sigmoid(plain)
    (p * torch.linspace(-1, 1, p.numel()).view(p.shape)).sum().backward()
    assert_same_gradients(found, {n: q.grad for n, q in head.named_parameters() if q.requires_grad})


@pytest.mark.parametrize("memory", [1, 2**28])
@pytest.mark.parametrize("norm", ["caption", "batch"])
@pytest.mark.parametrize("stream", ["t2i", "i2t"])
def test_training_statistics_are_those_of_a_loop(stream, norm, memory):
    head = make("saf", stream=stream, saf_norm=norm).train()
    head.memory = memory  # captions in one block, or each in its own and computed again in the backward pass
    own = head.SAF_module
    reference = nn.BatchNorm1d(1).train()
    reference.load_state_dict(own.bn.state_dict())
    x = plain_nodes(head)
    rows = []
    if norm == "batch":
        flat = [b for row in x for b in row]
        every = reference(torch.cat([own.attn_sim_w(b) for b in flat])).split([len(b) for b in flat])
    for c, row in enumerate(x):
        if norm == "caption":
            h = reference(torch.cat([own.attn_sim_w(b) for b in row])).split([len(b) for b in row])
        else:
            h = every[c * len(row) : (c + 1) * len(row)]
        vectors = [filtered(b, own, n.squeeze(1)) for b, n in zip(row, h, strict=True)]
        rows.append(head.sim_eval_w(torch.stack(vectors)).squeeze(1))
    want = torch.sigmoid(torch.stack(rows))
    scores = head.training_scores(*prepared(head))["score"]
    torch.testing.assert_close(scores, want, atol=3e-6, rtol=0)
    torch.testing.assert_close(own.bn.running_mean, reference.running_mean, atol=1e-6, rtol=0)
    torch.testing.assert_close(own.bn.running_var, reference.running_var, atol=1e-6, rtol=0)
    assert own.bn.num_batches_tracked == reference.num_batches_tracked
    after = own.bn.running_mean.clone()
    (weights,) = torch.autograd.grad(scores.square().sum(), [own.attn_sim_w.weight])
    (wanted,) = torch.autograd.grad(want.square().sum(), [own.attn_sim_w.weight])
    torch.testing.assert_close(weights, wanted, atol=3e-6, rtol=1e-4)
    assert torch.equal(own.bn.running_mean, after), "computing a block again moved the statistics"


def test_unknown_norm_names_the_known():
    with pytest.raises(XRetrieveError, match="unknown saf_norm 'captions'; did you mean 'caption'"):
        make("saf", saf_norm="captions")
