"""The exact bound gives what scoring everything gives: ties, K = 1, K = N, nothing to skip, and an honest share."""

from __future__ import annotations

import pytest
import torch

from tests.heads.set_cases import images, make, sentences
from xretrieve.heads.bound import best, bounded_top_k
from xretrieve.heads.scoring import score_matrix, score_pairs
from xretrieve.tokens import Tokens

LENGTHS = tuple(1 + i % 5 for i in range(60))
SIZES = (4, 2, 1, 3, 4, 4)


def sides(head, spread: float = 1.0):
    gallery = images(LENGTHS, 5)
    sets = head.combine_sets(head.prepare_queries(sentences(SIZES)), SIZES)
    return sets, head.prepare_gallery(Tokens.from_local(spread * gallery.local, gallery.mask))


@pytest.mark.parametrize("case", ["hmrn-t2i", "hmrn-i2t"])
@pytest.mark.parametrize("k", [1, 3, 60, 99])
@torch.no_grad()
def test_the_bounds_of_hmrn_hold_and_the_best_are_those_of_scoring_everything(case, k):
    head = make(case)
    sets, gallery = sides(head)
    full = score_matrix(head, sets, gallery)
    cheap, width = head.cheap(sets, gallery)
    assert (cheap <= full + 1e-6).all() and (full <= cheap + width[:, None] + 1e-6).all()
    found = bounded_top_k(cheap, width, lambda s, rows, theta: score_pairs(head, sets[s], gallery, rows), k)
    scores, rows = best(full, None, min(k, 60))
    torch.testing.assert_close(found.scores, scores, atol=2e-6, rtol=0)
    assert torch.equal(found.rows, rows)
    assert found.share == 1 if k >= 60 else 0.2 < found.share < 1


@torch.no_grad()
def test_equal_images_are_listed_by_their_place():
    head = make("hmrn-i2t")
    sets, gallery = sides(head)
    twins = gallery[torch.arange(20).repeat_interleave(3)]  # each image three times
    found = bounded_top_k(*head.cheap(sets, twins), lambda s, rows, _: score_pairs(head, sets[s], twins, rows), 7)
    scores, rows = best(score_matrix(head, sets, twins), None, 7)
    torch.testing.assert_close(found.scores, scores, atol=2e-6, rtol=0)
    assert torch.equal(found.rows // 3, rows // 3)
    ties = found.scores[:, 1:] == found.scores[:, :-1]
    assert ties.float().mean() > 0.3 and (found.rows[:, 1:] > found.rows[:, :-1])[ties].all()


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
