"""A growing set gives at every turn what scoring the set from scratch gives."""

from __future__ import annotations

import pytest
import torch

from tests.heads.set_cases import CASES, images, make, sentences
from xretrieve.errors import XRetrieveError
from xretrieve.heads import create_head
from xretrieve.heads.bound import best
from xretrieve.heads.turns import Held, Turns

LENGTHS = tuple(1 + i % 5 for i in range(40))


@pytest.mark.parametrize("case", [*CASES, "dual"])
@torch.no_grad()
def test_every_turn_equals_the_set_scored_from_scratch(case):
    head = create_head("dual", image_dim=7, text_dim=6, dim=4, text_source="pooled").eval() if case == "dual" \
        else make(case)  # fmt: skip
    texts, gallery = head.prepare_queries(sentences((6,))), head.prepare_gallery(images(LENGTHS))
    turns = Turns(head, gallery)
    said: list[int] = []
    for step in (0, 1, 2, "undo", 3, "undo", "undo", 4, 5):
        if step == "undo":
            turns.undo()
            said.pop()
        else:
            turns.add(texts[step : step + 1])
            said.append(step)
        want = head.score(head.combine_sets(texts[said], [len(said)]), gallery)  # (1,N)
        torch.testing.assert_close(turns.scores(), want[0], atol=2e-6, rtol=0)
        cheap, width = turns.bounds()
        assert (cheap <= want[0] + 2e-6).all() and (want[0] <= cheap + width + 2e-6).all()
        found = turns.top_k(5)
        scores, rows = best(want, None, 5)
        torch.testing.assert_close(found.scores, scores, atol=2e-6, rtol=0)
        assert torch.equal(found.rows, rows) and torch.equal(turns.top_k(5, bounded=False).rows, rows)
        assert 0 < found.share <= 1 and len(turns) == len(said)


@torch.no_grad()
def test_the_reasoning_is_spared_where_its_weight_is_small():
    head = make("hmrn-t2i")
    texts, gallery = head.prepare_queries(sentences((4,))), head.prepare_gallery(images(LENGTHS * 10))
    turns, shares = Turns(head, gallery), []
    for row in range(4):
        turns.add(texts[row : row + 1])
        shares.append(turns.top_k(1).share)
    assert shares[0] == 16 / 400 and max(shares) < 1


class Cut(Held):
    """Images that are read three at a time."""

    def read(self, rows=None):
        for piece in (torch.arange(len(self)) if rows is None else rows).split(3):
            yield self.frame[piece]


@pytest.mark.parametrize("case", [*CASES, "dual"])
@torch.no_grad()
def test_images_that_are_read_piece_by_piece_score_the_same(case):
    head = create_head("dual", image_dim=7, text_dim=6, dim=4, text_source="pooled").eval() if case == "dual" \
        else make(case)  # fmt: skip
    texts, gallery = head.prepare_queries(sentences((3,))), head.prepare_gallery(images(LENGTHS))
    whole, cut = Turns(head, gallery), Turns(head, Cut(gallery))
    for row in range(3):
        whole.add(texts[row : row + 1])
        cut.add(texts[row : row + 1])
        torch.testing.assert_close(cut.scores(), whole.scores(), atol=2e-6, rtol=0)
        for found in (cut.top_k(5), cut.top_k_of(cut.set, 5), cut.top_k_of(cut.set, 5, bounded=False)):
            assert torch.equal(found.rows, whole.top_k(5).rows)
            torch.testing.assert_close(found.scores, whole.top_k(5).scores, atol=2e-6, rtol=0)


@torch.no_grad()
def test_images_in_memory_are_gathered_in_pieces_too(monkeypatch):
    gallery = make("hmrn-t2i").prepare_gallery(images(LENGTHS))
    monkeypatch.setattr("xretrieve.heads.turns.PIECE", 2 * gallery.local[0].numel() * 4)
    rows = torch.tensor([5, 3, 3, 39, 0])
    pieces = list(Held(gallery).read(rows))
    assert [len(piece) for piece in pieces] == [2, 2, 1]
    assert torch.equal(torch.cat([piece.local for piece in pieces]), gallery.local[rows])


def test_wrong_turns_are_refused():
    head = make("hmrn-i2t")
    texts, gallery = head.prepare_queries(sentences((2,))), head.prepare_gallery(images())
    turns = Turns(head, gallery)
    for call in (turns.undo, turns.bounds, lambda: turns.add(texts), lambda: turns.top_k(0)):
        with pytest.raises(XRetrieveError):
            call()
    with pytest.raises(XRetrieveError, match="'scan' scores single texts"):
        Turns(create_head("scan", image_dim=7, text_dim=6, dim=6), gallery)
