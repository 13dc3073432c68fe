"""The engine: blocks, buckets, candidate lists of any head, and errors."""

from __future__ import annotations

import pytest
import torch

from tests.heads.local_cases import images, make, texts
from xretrieve.errors import XRetrieveError
from xretrieve.heads import create_head
from xretrieve.heads.scoring import Items, _cuts, score_matrix, score_pairs
from xretrieve.tokens import Prepared


def test_blocks_cover_everything_once_and_hold_little_padding():
    lengths = torch.tensor([9, 9, 8, 8, 8, 5, 5, 2, 2, 2, 2, 1])
    cuts = list(_cuts(lengths, lambda length: 4))
    assert [start for start, _ in cuts] == [0, *(stop for _, stop in cuts[:-1])] and cuts[-1][1] == len(lengths)
    for start, stop in cuts:
        part = lengths[start:stop]
        assert len(part) <= 4 and int(part[0]) * len(part) <= 1.1 * int(part.sum())


def test_equal_lengths_need_no_mask_and_padding_is_cut_off():
    prepared = Prepared.from_local(texts((2, 2)).local, texts((2, 2)).mask)
    items = Items.of(prepared)
    assert items.mask is None and items.local.shape == (1, 2, 2, 6)
    assert Items.of(Prepared.from_local(texts((2, 1)).local, texts((2, 1)).mask)).mask.shape == (1, 2, 2)


@pytest.mark.parametrize("memory", [1, 10**6])
def test_heads_without_a_pair_stage_are_scored_too(memory):
    head = create_head("dual", image_dim=7, text_dim=6, dim=4).eval()
    want, candidates = head.score(texts(), images()), torch.tensor([[2, 0], [1, 1], [0, 2], [1, 0]])
    torch.testing.assert_close(score_matrix(head, texts(), images(), memory=memory), want)
    found = score_pairs(head, texts(), images(), candidates, memory=memory)
    torch.testing.assert_close(found, want.gather(1, candidates))


def test_wrong_candidates_name_what_is_wrong():
    head = make("scan")
    with pytest.raises(XRetrieveError, match="row 3 of a gallery with 3 rows"):
        score_pairs(head, texts(), images(), torch.tensor([[0], [1], [3], [0]]))
    with pytest.raises(XRetrieveError, match=r"whole numbers \(4,K\)"):
        score_pairs(head, texts(), images(), torch.zeros(3, 2, dtype=torch.long))
    assert score_pairs(head, texts(), images(), torch.zeros(4, 0, dtype=torch.long)).shape == (4, 0)
    with pytest.raises(XRetrieveError, match="nothing to score"):
        score_matrix(head, texts()[:0], images())


def test_extras_follow_their_items():
    prepared = make("tshsr").prepare_queries(texts())
    gram = prepared.extra["gram"]
    assert gram.shape == (4, 4, 4)
    assert torch.equal(prepared[[1, 3]].extra["gram"], gram[[1, 3]])
    assert prepared[1:3].trim().extra["gram"].shape == (2, 2, 2)
    joined = Prepared.cat([prepared[1:3].trim(), prepared[:1]])
    assert torch.equal(joined.extra["gram"][2], gram[0])
    assert torch.equal(joined.extra["gram"][0, :2, :2], gram[1, :2, :2])
    assert joined.to(dtype=torch.float64).extra["gram"].dtype == torch.float64
    with pytest.raises(XRetrieveError, match="different extras"):
        Prepared.cat([prepared, Prepared(prepared.local, prepared.mask, prepared.pooled)])
