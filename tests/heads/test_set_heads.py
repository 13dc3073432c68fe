"""What must hold for every head over query sets: rounds, orientation, padding, blocks, candidates, precision."""

from __future__ import annotations

import pytest
import torch

from tests.heads.local_cases import assert_same_gradients
from tests.heads.set_cases import CASES, SIZES, gradients, images, make, plain_rounds, sentences, sides
from xretrieve.errors import XRetrieveError
from xretrieve.heads import create_head
from xretrieve.heads.rounds import score_rounds
from xretrieve.heads.scoring import score_matrix, score_pairs
from xretrieve.tokens import Prepared, Tokens

TOL = {"atol": 3e-6, "rtol": 0}
every_head = pytest.mark.parametrize("case", CASES)


@every_head
def test_every_round_equals_the_equations_written_out_pair_by_pair(case):
    head = make(case)
    sets, gallery = sides(head)
    want = plain_rounds(head, sets, gallery)
    assert want.shape == (4, 3, 4) and want.std() > 1e-2 and (want[0] - want[3]).abs().max() > 1e-3
    for grad in (True, False):  # with and without gradients different code runs
        with torch.set_grad_enabled(grad):
            torch.testing.assert_close(head.score_rounds(sets, gallery), want, **TOL)


@every_head
def test_gradients_equal_those_of_the_plain_equations(case):
    head = make(case)
    want = gradients(head, plain_rounds(head, *sides(head)))
    found = gradients(head, head.score_rounds(*sides(head)))
    assert len(found) >= 4
    assert_same_gradients(found, want)


@every_head
def test_a_round_is_the_last_round_of_the_set_cut_there(case):
    head = make(case)
    sets, gallery = sides(head)
    rounds = head.score_rounds(sets, gallery)
    for r in range(1, 5):
        cut = head.cut(sets, r)
        torch.testing.assert_close(head.score(cut, gallery), rounds[r - 1].T, **TOL)
        torch.testing.assert_close(head.score_rounds(cut, gallery), rounds[:r], **TOL)
    other = Prepared(sets.local.clone(), sets.mask, sets.pooled)
    other.local[0, 2:] = torch.randn(2, 8)  # later sentences
    other.pooled = head.set_vector(other.local, other.mask)
    torch.testing.assert_close(head.score_rounds(other, gallery)[:2], rounds[:2], **TOL)


@every_head
def test_a_short_set_repeats_its_last_round(case):
    head = make(case)
    sets, gallery = sides(head)
    rounds = head.score_rounds(sets, gallery)
    for k, size in enumerate(SIZES):
        torch.testing.assert_close(rounds[size - 1 :, :, k], rounds[size - 1, :, k].expand(5 - size, -1), **TOL)
    torch.testing.assert_close(head.score(sets, gallery), rounds[-1].T, **TOL)


@every_head
def test_permuting_images_permutes_rows_and_permuting_sets_columns(case):
    head = make(case)
    sets, gallery = sides(head)
    want, rows, columns = head.score_rounds(sets, gallery), torch.tensor([2, 0, 1]), torch.tensor([1, 3, 0, 2])
    torch.testing.assert_close(head.score_rounds(sets[columns], gallery[rows]), want[:, rows][:, :, columns], **TOL)


@every_head
def test_padding_further_changes_no_score_and_no_gradient(case):
    head = make(case)

    def spoiled():
        regions = images().pad_to(8)
        regions.local[~regions.mask] = float("nan")
        sets = head.combine_sets(head.prepare_queries(sentences()), SIZES).pad_to(7)
        return sets, head.prepare_gallery(regions)

    want = head.score_rounds(*sides(head))
    found = head.score_rounds(*spoiled())
    assert torch.isfinite(found).all()
    torch.testing.assert_close(found, torch.cat([want, want[-1:].expand(3, -1, -1)]), **TOL)
    assert_same_gradients(gradients(head, found[:4]), gradients(head, head.score_rounds(*sides(head))))


@every_head
def test_a_masked_region_in_the_middle_is_not_seen(case):
    head = make(case)
    sets, _ = sides(head)
    whole = images((5, 5, 5))
    mask = torch.tensor([[True, True, False, True, True]] * 3)
    if case == "hmrn-index":  # position n uses channel n, so a hole is not the same as a shorter image
        head.v_global_w.embedding_local[1].weight.data[:] = 0.7
        for name in ("bias", "running_mean", "running_var"):
            getattr(head.v_global_w.embedding_local[1], name).data[:] = 0.4
    holes = head.prepare_gallery(Tokens(whole.local, mask, whole.pooled))
    cut = head.prepare_gallery(Tokens.from_local(whole.local[:, [0, 1, 3, 4]]))
    torch.testing.assert_close(head.score_rounds(sets, holes), head.score_rounds(sets, cut), **TOL)


@every_head
def test_one_pair_alone_scores_as_in_the_batch(case):
    head = make(case)
    sets, gallery = sides(head)
    want = head.score_rounds(sets, gallery)
    for k in range(4):
        for i in range(3):
            alone = head.score_rounds(sets[k : k + 1].trim(), gallery[i : i + 1].trim())
            torch.testing.assert_close(alone[:, 0, 0], want[: len(alone), i, k], **TOL)


@every_head
def test_block_size_changes_neither_scores_nor_gradients(case):
    head = make(case)
    want = head.score_rounds(*sides(head))
    plain = gradients(head, want)
    for memory in (1, 3 * head.pair_bytes(4, 5)):
        torch.testing.assert_close(head.score_rounds(*sides(head), memory=memory), want, **TOL)
        assert_same_gradients(gradients(head, head.score_rounds(*sides(head), memory=memory)), plain)


@every_head
def test_candidate_lists_score_as_the_matrix_does(case):
    head = make(case)
    sets, gallery = sides(head)
    want, candidates = head.score(sets, gallery), torch.tensor([[2, 0], [1, 1], [0, 2], [1, 0]])
    torch.testing.assert_close(score_matrix(head, sets, gallery), want, **TOL)
    for memory in (1, None):
        found = score_pairs(head, sets, gallery, candidates, memory=memory)
        torch.testing.assert_close(found, want.gather(1, candidates), **TOL)


@every_head
def test_sentences_are_sets_of_one(case):
    head = make(case)
    texts, gallery = head.prepare_queries(sentences()), head.prepare_gallery(images())
    want = head.score(head.combine_sets(texts, [1] * len(texts)), gallery)
    torch.testing.assert_close(head.score(texts, gallery), want, **TOL)
    torch.testing.assert_close(head.score(head.combine_texts(texts[:4]), gallery), head.score(*sides(head))[:1], **TOL)


@pytest.mark.parametrize("case", ["hmrn-t2i", "hmrn-i2t", "drilldown"])
def test_bfloat16_stays_near(case):
    torch.manual_seed(0)
    changes = {"dim": 32, "sim_dim": 32} if case.startswith("hmrn") else {"dim": 32}
    name, options = CASES[case]
    head = create_head(name, image_dim=7, text_dim=6, **options, **changes).eval()
    with torch.no_grad():
        sets, gallery = sides(head)
        full, half = head.score_rounds(sets, gallery), score_rounds(head, sets, gallery, dtype=torch.bfloat16)
    assert half.dtype == torch.float32 and 1e-6 < (full - half).abs().max() < 0.02


@every_head
def test_what_cannot_be_scored_is_one_clear_error(case):
    head = make(case)
    texts, gallery = head.prepare_queries(sentences()), head.prepare_gallery(images())
    with pytest.raises(XRetrieveError, match="query sets of 10 sentences in all: they add up to another sum"):
        head.combine_sets(texts, [4, 2])
    with pytest.raises(XRetrieveError, match="set 1 is empty"):
        head.combine_sets(texts, [4, 0, 6])
    with pytest.raises(XRetrieveError, match="scores regions, but these prepared items hold none"):
        head.score(texts, Prepared.from_pooled(gallery.pooled))
    with pytest.raises(XRetrieveError, match="query set 1 has no first sentence"):
        sets = head.combine_sets(texts, SIZES)
        head.score(Prepared(sets.local, sets.mask.flip(1), sets.pooled), gallery)
    with pytest.raises(XRetrieveError, match="image 1 of the batch has no region"):
        head.prepare_gallery(images((3, 0, 2)))
