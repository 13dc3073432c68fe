"""The coarse cosine added to the logits: the values, the start, the gradient."""

from __future__ import annotations

import math

import pytest
import torch

from tests.heads.local_cases import CASES, images, make, texts
from xretrieve.errors import XRetrieveError
from xretrieve.heads import create_head
from xretrieve.heads.tshsr import fuse_logits
from xretrieve.tokens import Tokens

STREAMS = [case for case in CASES if not case.startswith("scan")]


@pytest.mark.parametrize("case", STREAMS)
def test_every_logit_gains_the_cosine_of_the_coarse_vectors_over_the_temperature(case):
    plain, residual = make(case), make(case, residual=0.25)
    residual.load_state_dict(plain.state_dict())
    queries, gallery = plain.prepare_queries(texts()), plain.prepare_gallery(images())
    gain = 4 * queries.pooled @ gallery.pooled.T
    before, after = plain.run(queries, gallery), residual.run(queries, gallery)
    for stream in ("t2i", "i2t"):
        if stream in before:
            torch.testing.assert_close(after[stream], before[stream] + gain)
    want = fuse_logits(after["t2i"], after["i2t"]) if "i2t" in before and "t2i" in before else before["score"] + gain
    torch.testing.assert_close(after["score"], want)
    assert gain.abs().min() > 1e-3


@pytest.mark.parametrize("name", ["sgr", "saf", "tshsr"])
def test_an_untrained_head_ranks_as_its_coarse_vectors(name):
    head = create_head(name, image_dim=7, text_dim=6, dim=8, text_project=True, sim_dim=5, residual=0.05).eval()
    queries, gallery = head.prepare_queries(texts()), head.prepare_gallery(images())
    torch.testing.assert_close(head.pair(queries, gallery), 20 * queries.pooled @ gallery.pooled.T)


def test_the_gradient_reaches_both_the_coarse_vectors_and_the_reasoning():
    head = make("tshsr", residual=0.5, train_on="logit")
    scores = head.training_scores(head.prepare_queries(texts()), head.prepare_gallery(images()))
    scores["score"].diagonal().sum().backward()
    for part in (head.t_global_w, head.image, head.t2i.levels[0]):
        assert max(p.grad.abs().max() for p in part.parameters() if p.grad is not None) > 0


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf])
def test_a_temperature_is_checked(value):
    with pytest.raises(XRetrieveError, match="head 'sgr': residual is a temperature above 0, or null"):
        make("sgr", residual=value)


@pytest.mark.parametrize("name", ["sgr", "saf", "tshsr"])
def test_coarse_vectors_joined_with_the_pooled_ones_have_the_mean_of_both_cosines(name):
    options = {"image_dim": 7, "text_dim": 6, "dim": 8, "sim_dim": 5, "text_project": True, "residual": 0.05}
    torch.manual_seed(0)
    joined = create_head(name, **options, use_pooled=True, text_hidden=4).eval()
    alone = create_head(name, **options).eval()
    alone.load_state_dict({k: v for k, v in joined.state_dict().items() if not k.startswith("pooled.")})
    queries, gallery = joined.prepare_queries(texts()), joined.prepare_gallery(images())
    plain = alone.prepare_queries(texts()), alone.prepare_gallery(images())
    assert queries.pooled.shape[1] == gallery.pooled.shape[1] == 16
    torch.testing.assert_close(queries.pooled.norm(dim=1), torch.ones(len(queries)))
    own = joined.pooled["text"](texts()) @ joined.pooled["image"](images()).T
    mean = (plain[0].pooled @ plain[1].pooled.T + own) / 2
    torch.testing.assert_close(joined.coarse_scores(queries, gallery), mean)
    for head in (joined, alone):  # let the reasoning speak
        for key, parameter in head.named_parameters():
            if "sim_eval_w.weight" in key:
                torch.nn.init.constant_(parameter, 0.7)
    gain = (mean - plain[0].pooled @ plain[1].pooled.T) / 0.05  # and nothing else: the global node reads V and T alone
    torch.testing.assert_close(joined.run(queries, gallery)[key_of(joined)], alone.run(*plain)[key_of(alone)] + gain)


def key_of(head):
    """A matrix of single logits: a mean of two probabilities has no simple sum."""
    return "t2i" if head.name == "tshsr" else "score"


def test_pooled_vectors_of_another_width_or_that_nothing_reads_are_refused():
    with pytest.raises(XRetrieveError, match="use_pooled there must be something that reads"):
        make("sgr", use_pooled=True)
    with pytest.raises(XRetrieveError, match="text_hidden is of the pooled vectors"):
        make("sgr", text_hidden=3)
    head, wide = make("sgr", use_pooled=True, residual=0.1), texts()
    with pytest.raises(XRetrieveError, match="as wide as its local tokens; it gives 9 and 6"):
        head.prepare_queries(Tokens(wide.local, wide.mask, torch.zeros(len(wide), 9)))
