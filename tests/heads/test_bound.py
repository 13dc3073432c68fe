"""The exact bound gives what scoring everything gives: ties, K = 1, K = N, nothing to skip, and an honest share."""

from __future__ import annotations

import pytest
import torch

from tests.heads.set_cases import images, make, sentences
from xretrieve.errors import XRetrieveError
from xretrieve.heads.bound import best, bounded_top_k, rank_counts, rank_rounds, top_k, top_k_mean
from xretrieve.heads.scoring import score_matrix
from xretrieve.tokens import Tokens

LENGTHS = tuple(1 + i % 5 for i in range(60))
SIZES = (4, 2, 1, 3, 4, 4)


def sides(head, spread: float = 1.0):
    gallery = images(LENGTHS, 5)
    sets = head.combine_sets(head.prepare_queries(sentences(SIZES)), SIZES)
    return sets, head.prepare_gallery(Tokens.from_local(spread * gallery.local, gallery.mask))


@pytest.mark.parametrize("case", ["hmrn-t2i", "hmrn-i2t", "drilldown"])
@pytest.mark.parametrize("k", [1, 3, 60, 99])
@torch.no_grad()
def test_the_best_are_those_of_scoring_everything(case, k):
    head = make(case)
    sets, gallery = sides(head)
    scores, rows = best(score_matrix(head, sets, gallery), None, min(k, 60))
    found = top_k(head, sets, gallery, k)
    torch.testing.assert_close(found.scores, scores, atol=2e-6, rtol=0)
    assert torch.equal(found.rows, rows)
    assert found.share == 1 if k >= 60 or case == "drilldown" else 0.2 < found.share < 1


@torch.no_grad()
def test_ranks_are_those_of_scoring_everything_after_every_round():
    head = make("hmrn-t2i")
    sets, gallery = sides(head)
    target = torch.tensor([5, 0, 59, 17, 33, 2])
    rounds = head.score_rounds(sets, gallery)  # (T,N,M)
    shares = []
    for scores, found in zip(rounds, rank_rounds(head, sets, gallery, target), strict=True):
        right = scores.gather(0, target[None])
        assert found.greater.tolist() == (scores > right).sum(0).tolist()
        assert found.equal.tolist() == [0] * 6
        shares.append(found.share)
    assert 6 / 360 <= shares[0] < shares[-1] < 1  # the reasoning's weight grows with the rounds


@torch.no_grad()
def test_equal_images_are_listed_by_their_place_and_counted_as_ties():
    head = make("hmrn-i2t")
    sets, gallery = sides(head)
    twins = gallery[torch.arange(20).repeat_interleave(3)]  # each image three times
    found = top_k(head, sets, twins, 7)
    scores, rows = best(score_matrix(head, sets, twins), None, 7)
    torch.testing.assert_close(found.scores, scores, atol=2e-6, rtol=0)
    assert torch.equal(found.rows // 3, rows // 3)
    ties = found.scores[:, 1:] == found.scores[:, :-1]
    assert ties.float().mean() > 0.3 and (found.rows[:, 1:] > found.rows[:, :-1])[ties].all()
    counts = rank_counts(head, sets, twins, torch.tensor([4, 0, 59, 17, 33, 2]))
    right = score_matrix(head, sets, twins)[torch.arange(6), torch.tensor([4, 0, 59, 17, 33, 2])][:, None]
    near = (score_matrix(head, sets, twins) - right).abs() < 1e-6
    assert (counts.equal <= 2).all() and (counts.greater + counts.equal >= near.sum(1) - 1).all()


@pytest.mark.parametrize("k", [1, 4, 60])
@torch.no_grad()
def test_the_best_of_an_ensemble_are_those_of_the_mean_scores(k):
    members = [(head, *sides(head)) for head in (make("hmrn-t2i"), make("hmrn-i2t"))]
    mean = torch.stack([score_matrix(*member) for member in members]).mean(0)
    scores, rows = best(mean, None, k)
    found = top_k_mean(members, k, chunk=4)
    torch.testing.assert_close(found.scores, scores, atol=2e-6, rtol=0)
    assert torch.equal(found.rows, rows)
    cheap, width = (torch.stack(parts).mean(0) for parts in zip(*(m[0].cheap(*m[1:]) for m in members), strict=True))
    plain = bounded_top_k(cheap, width, lambda sets, images, theta: mean[sets[:, None], images], k, chunk=4)
    assert torch.equal(plain.rows, rows)
    assert found.share == plain.share == 1 if k == 60 else found.share < plain.share < 1  # the second is asked less
    with pytest.raises(XRetrieveError, match="'drilldown' has no bounds"):
        drilldown = make("drilldown")
        top_k_mean([(drilldown, *sides(drilldown))], 1)


def made_up(cheap, width, reason):
    """The scores `cheap + width * reason`, and a function that gives them and notes what it was asked."""
    scores, asked = cheap + width[:, None] * reason, []

    def finish(sets, rows, theta):
        asked.append((sets.repeat_interleave(rows.shape[1]), rows.flatten()))
        return scores[sets[:, None], rows]

    return scores, asked, finish


@pytest.mark.parametrize("k", [1, 2, 10, 40])
@pytest.mark.parametrize("kind", ["random", "rounded", "all equal", "adversarial", "no width"])
def test_any_scores_within_the_bounds(kind, k):
    generator = torch.Generator().manual_seed(0)
    cheap, reason = torch.rand(5, 40, generator=generator), torch.rand(5, 40, generator=generator)
    width = torch.tensor([0.3, 0.0, 1.0, 0.05, 0.6])
    if kind == "rounded":  # many ties, at the bound too
        cheap, reason, width = (cheap * 4).round() / 4, reason.round(), torch.full((5,), 0.25)
    if kind == "all equal":
        cheap, reason = torch.full((5, 40), 0.5), torch.zeros(5, 40)
    if kind == "adversarial":  # the worst cheap score is the best full one: every pair is needed
        cheap = torch.linspace(1, 0, 40).expand(5, 40).contiguous()
        reason, width = 1 - cheap, torch.full((5,), 2.0)
    if kind == "no width":
        width = torch.zeros(5)
    scores, asked, finish = made_up(cheap, width, reason)
    found = bounded_top_k(cheap, width, finish, k, chunk=4)
    want, rows = best(scores, None, k)
    assert torch.equal(found.scores, want) and torch.equal(found.rows, rows)
    pairs = {(int(s), int(r)) for sets, images in asked for s, r in zip(sets, images, strict=True)}
    assert found.share == sum(len(rows) for _, rows in asked) / 200 == len(pairs) / 200  # none twice
    assert found.share == 1 if kind in ("adversarial", "all equal") or k == 40 else found.share < 1


def test_wrong_questions_are_refused():
    head = make("hmrn-t2i")
    sets, gallery = sides(head)
    with pytest.raises(XRetrieveError, match="k must be at least 1"):
        top_k(head, sets, gallery, 0)
    with pytest.raises(XRetrieveError, match="an image 0 .. 59 for each of the 6 sets"):
        rank_counts(head, sets, gallery, torch.tensor([0, 1, 2, 3, 4, 60]))
