"""Rounds of heads that know no query sets: the mean of the sentences' cosines; what else is refused."""

from __future__ import annotations

import pytest
import torch

from tests.heads.set_cases import SIZES, images, sentences
from xretrieve.errors import XRetrieveError
from xretrieve.heads import create_head
from xretrieve.heads.base import set_learning
from xretrieve.heads.rounds import score_rounds


def test_a_dual_encoder_scores_the_mean_of_the_sentences_said():
    head = create_head("dual", image_dim=7, text_dim=6, dim=4, text_source="pooled").eval()
    texts, gallery = head.prepare_queries(sentences()), head.prepare_gallery(images())
    alone, start = head.score(texts, gallery), 0
    sets = head.combine_sets(texts, SIZES)
    found = score_rounds(head, sets, gallery)
    assert found.shape == (4, 3, 4)
    for k, size in enumerate(SIZES):
        for r in range(4):
            want = alone[start : start + min(r + 1, size)].mean(0)
            torch.testing.assert_close(found[r, :, k], want, atol=1e-6, rtol=0)
        start += size
    torch.testing.assert_close(head.score(sets, gallery), found[-1].T, atol=1e-6, rtol=0)


def test_a_head_that_scores_one_caption_says_what_to_do_instead():
    head = create_head("scan", image_dim=7, text_dim=6, dim=6)
    with pytest.raises(XRetrieveError, match="'scan' scores single texts, not query sets"):
        score_rounds(head, head.prepare_gallery(images()), head.prepare_gallery(images()))
    dual = create_head("dual", image_dim=7, text_dim=6, dim=4, text_source="pooled").eval()
    with pytest.raises(XRetrieveError, match="hold no sentences"):
        score_rounds(dual, dual.prepare_queries(sentences()), dual.prepare_gallery(images()))


@pytest.mark.parametrize("name", ["sgr", "tshsr", "hmrn", "drilldown"])
def test_parameters_that_no_score_depends_on_stay_off_when_a_stage_switches_gradients(name):
    head = create_head(name, image_dim=7, text_dim=6, dim=6)
    before = {key for key, value in head.named_parameters() if value.requires_grad}
    set_learning(head, False)
    assert not any(value.requires_grad for value in head.parameters())
    set_learning(head, True)
    assert {key for key, value in head.named_parameters() if value.requires_grad} == before
    assert len(before) < len(list(head.parameters()))
