"""A training step as the loop runs it: every head over local tokens under the hinge, several captions per image."""

from __future__ import annotations

import pytest
import torch

from tests.heads.local_cases import CASES, images, make, texts
from xretrieve.errors import XRetrieveError
from xretrieve.heads.base import l2
from xretrieve.heads.tshsr import fuse_logits
from xretrieve.tokens import Tokens
from xretrieve.training.losses import HardestHinge, InfoNCE
from xretrieve.training.trainee import Trainee


@pytest.mark.parametrize("case", CASES)
def test_loss_is_the_sum_over_the_heads_matrices_averaged_over_caption_sets(case):
    head = make(case)
    trainee = Trainee(head, HardestHinge())
    captions = Tokens.cat([texts((4, 2, 1)), texts((3, 3, 4), seed=5)])  # two sets of captions for three images
    none = torch.zeros(2, 3, 3, dtype=torch.bool)
    loss, logged = trainee(images(), captions, none)
    matrices = head.training_scores(head.prepare_queries(captions), head.prepare_gallery(images()))
    want = sum(HardestHinge()(part)[0] / 2 for scores in matrices.values() for part in scores.chunk(2))
    torch.testing.assert_close(loss, want)
    assert {"positive", "negative", "active"} <= logged.keys()
    trainee(images(), captions, none, hide=(0.4, 0.4))[0].backward()  # hidden tokens leave holes in the masks
    assert all(torch.isfinite(p.grad).all() for p in head.parameters() if p.grad is not None)


def square(texts_: Tokens) -> torch.Tensor:
    return torch.zeros(1, len(texts_), len(texts_), dtype=torch.bool)


@pytest.mark.parametrize("case", [c for c in CASES if not c.startswith("scan")])
def test_a_loss_on_logits_reads_what_ranks_and_not_its_sigmoid(case):
    head = make(case, train_on="logit")
    queries, gallery = head.prepare_queries(texts((4, 2, 1))), head.prepare_gallery(images())
    matrices = head.training_scores(queries, gallery)
    torch.testing.assert_close(matrices["score"], head.pair(queries, gallery))
    if "t2i" in matrices:
        torch.testing.assert_close(matrices["score"], fuse_logits(matrices["t2i"], matrices["i2t"]))
    published = make(case).training_scores(queries, gallery)
    for name, logits in matrices.items():
        if not (name == "score" and "t2i" in matrices):  # the fused probability is the mean of the streams'
            torch.testing.assert_close(published[name], logits.sigmoid())


def test_what_a_loss_reads_is_checked():
    with pytest.raises(XRetrieveError, match="did you mean 'logit'"):
        make("sgr", train_on="logits")
    with pytest.raises(XRetrieveError, match="aux_weight must be 0 or more"):
        make("tshsr", aux_weight=-1.0)


def test_the_streams_own_losses_are_weighted():
    captions, none = texts((4, 2, 1)), square(texts((4, 2, 1)))
    full, half, off, without = (
        Trainee(make("tshsr", **options), HardestHinge())(images(), captions, none)[0]
        for options in ({}, {"aux_weight": 0.5}, {"aux_weight": 0.0}, {"aux_streams": False})
    )
    torch.testing.assert_close(full - half, half - off)
    torch.testing.assert_close(off, without)
    assert full - off > 0.01


@pytest.mark.parametrize("case", ["scan", "sgr", "saf", "tshsr"])
def test_a_coarse_loss_is_added_and_turns_the_global_vectors_only(case):
    head, captions = make(case, coarse=True), texts((4, 2, 1))
    assert head.coarse and not make(case).coarse and make(case).config["coarse"] is False
    none = square(captions)
    plain, _ = Trainee(head, HardestHinge())(images(), captions, none)
    trainee = Trainee(head, HardestHinge(), coarse_loss=InfoNCE(temperature=0.1), coarse_weight=3.0)
    both, logged = trainee(images(), captions, none)
    v, t = head.prepare_gallery(images()).pooled, head.prepare_queries(captions).pooled
    torch.testing.assert_close(v, l2(v))  # unit length: their product is a cosine
    want, _ = InfoNCE(temperature=0.1)(t @ v.T)
    torch.testing.assert_close(both - plain, 3 * want, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(logged["coarse_loss"], want)
    head.zero_grad()
    (both - plain).backward()
    assert trainee.coarse_loss.log_scale.grad is not None
    moved = {name for name, p in head.named_parameters() if p.grad is not None and p.grad.abs().max() > 1e-4}
    vectors = {"image", "text"} if case == "scan" else {"image", "text", "v_global_w", "t_global_w"}
    assert {name.split(".")[0] for name in moved} == vectors
