"""What must hold for every head over local tokens: padding, masks, order, blocks, candidate lists, precision."""

from __future__ import annotations

import pytest
import torch

from tests.heads.local_cases import CASES, assert_same_gradients, gradients, images, make, texts
from xretrieve.errors import XRetrieveError
from xretrieve.heads.scoring import Items, score_matrix, score_pairs
from xretrieve.tokens import Prepared, Tokens

TOL = {"atol": 2e-6, "rtol": 0}
every_head = pytest.mark.parametrize("case", CASES)


def spoiled(tokens: Tokens, length: int) -> Tokens:
    """Padded further, with NaN and large numbers in the padding."""
    padded = tokens.pad_to(length)
    padded.local[~padded.mask] = float("nan")
    padded.local[:, -1] = 1e9
    return padded


@every_head
def test_padding_further_changes_no_score_and_no_gradient(case):
    head = make(case)
    want = head.score(texts(), images())
    assert torch.isfinite(want).all() and want.shape == (4, 3) and want.std() > 1e-3
    torch.testing.assert_close(head.score(spoiled(texts(), 9), spoiled(images(), 8)), want, **TOL)
    plain = gradients(head, texts(), images())
    assert_same_gradients(gradients(head, spoiled(texts(), 9), spoiled(images(), 8)), plain)


@every_head
def test_a_masked_region_or_word_in_the_middle_is_not_seen(case):
    head, queries, gallery = make(case), texts((4, 4), 4), images((5, 5), 5)
    keep_words, keep_regions = [0, 2, 3], [0, 1, 3, 4]
    holes = Tokens(queries.local, torch.tensor([[True, False, True, True]] * 2), queries.pooled)
    gaps = Tokens(gallery.local, torch.tensor([[True, True, False, True, True]] * 2), gallery.pooled)
    cut = head.score(Tokens.from_local(queries.local[:, keep_words]), Tokens.from_local(gallery.local[:, keep_regions]))
    torch.testing.assert_close(head.score(holes, gaps), cut, **TOL)


@every_head
def test_order_of_items_and_of_regions_does_not_matter(case):
    head, rows, columns = make(case), torch.tensor([2, 0, 3, 1]), torch.tensor([1, 2, 0])
    want = head.score(texts(), images())
    torch.testing.assert_close(head.score(texts()[rows], images()[columns]), want[rows][:, columns], **TOL)
    turned = images((5, 5, 5))
    again = Tokens.from_local(turned.local[:, [3, 1, 4, 0, 2]])
    torch.testing.assert_close(head.score(texts(), again), head.score(texts(), turned), **TOL)


@every_head
def test_one_pair_alone_scores_as_in_the_batch(case):
    head, queries, gallery = make(case), texts(), images()
    want = head.score(queries, gallery)
    for row, words in enumerate((4, 2, 1, 4)):
        for column, regions in enumerate((5, 3, 1)):  # one word against one region among them
            one = Tokens.from_local(queries.local[row : row + 1, :words])
            other = Tokens.from_local(gallery.local[column : column + 1, :regions])
            torch.testing.assert_close(head.score(one, other)[0, 0], want[row, column], **TOL)
    assert all(torch.isfinite(g).all() for g in gradients(head, texts((1,), 1), images((1,), 1)).values())


@every_head
def test_block_size_changes_neither_scores_nor_gradients(case):
    head = make(case)
    # other numbers than elsewhere: those put a value so near a ReLU's kink that rounding moves it across
    queries, gallery = texts((4, 2, 1, 4, 3, 2, 4), 4, seed=4), images((5, 3, 1, 5, 5), 5, seed=5)
    want, plain = head.score(queries, gallery), gradients(head, queries, gallery)
    for memory in (1, 2 * head.pair_bytes(4, 5), 7 * head.pair_bytes(3, 5)):
        torch.testing.assert_close(score_matrix(head, queries, gallery, memory=memory), want, **TOL)
        head.memory = memory
        assert_same_gradients(gradients(head, queries, gallery), plain)


@every_head
def test_candidate_lists_score_as_the_matrix_does(case):
    head = make(case)
    candidates = torch.tensor([[2, 0], [1, 1], [0, 2], [1, 0]])
    want = head.score(texts(), images()).gather(1, candidates)
    with torch.no_grad():
        for memory in (1, 3000, 2**28):
            found = score_pairs(head, texts(), images(), candidates, memory=memory)
            torch.testing.assert_close(found, want, **TOL)


@every_head
def test_bf16_keeps_float32_scores_near_the_exact_ones(case):
    head = make(case)
    with torch.no_grad():
        want = head.score(texts(), images())
        found = score_matrix(head, texts(), images(), dtype=torch.bfloat16)
    assert found.dtype == torch.float32
    assert 0 < (found - want).abs().max() < 0.1 * max(1.0, float(want.abs().max()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = gradients(head, texts(), images())
    assert all(torch.isfinite(g).all() and g.dtype == torch.float32 for g in mixed.values())


@every_head
def test_in_bf16_softmaxes_and_norms_stay_float32(case):
    head, trace = make(case), {}
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        queries, gallery = head.prepare_queries(texts()), head.prepare_gallery(images())
        sides = [Items.of(Prepared(x.local.bfloat16(), x.mask, x.pooled, x.extra)) for x in (queries, gallery)]
        made = head.block(*sides, head.fold(), trace)
    assert queries.pooled.dtype == gallery.pooled.dtype == made["score"].dtype == torch.float32
    for stream in head.streams:
        weights = trace[f"{stream}_attention"]
        assert weights.dtype == torch.float32
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]), atol=1e-6, rtol=0)
        if f"{stream}_nodes" in trace:
            assert trace[f"{stream}_nodes"].dtype == torch.bfloat16
            lengths = trace[f"{stream}_nodes"].float().norm(dim=-1)  # rounded once, from a float32 length
            assert ((lengths - 1).abs().lt(4e-3) | (lengths == 0)).all()


@every_head
def test_rebuilt_from_its_configuration_it_is_the_same_model(case):
    from xretrieve.heads import head_class

    head = make(case)
    again = head_class(head.name)(**head.config).eval()
    again.load_state_dict(head.state_dict())
    assert torch.equal(again.score(texts(), images()), head.score(texts(), images()))


@every_head
def test_every_trainable_parameter_gets_a_gradient(case):
    head = make(case).train()  # else a distributed wrapper waits for it forever
    found = gradients(head, texts(), images())
    assert found.keys() == {name for name, p in head.named_parameters() if p.requires_grad}


@every_head
def test_attention_weights_sum_to_one(case):
    head = make(case)
    for stream, weights in head.attention(head.prepare_queries(texts()), head.prepare_gallery(images())).items():
        assert weights.shape == ((4, 3, 4, 5) if stream == "t2i" else (4, 3, 5, 4))
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
        assert (weights[:, 2, :, 1:] == 0).all() if stream == "t2i" else (weights[2, :, :, 1:] == 0).all()


def test_what_the_heads_cannot_do_is_said():
    head = make("sgr")
    pooled = Tokens.from_pooled(torch.ones(2, 6))
    with pytest.raises(XRetrieveError, match="text side has none"):
        head.prepare_queries(pooled)
    with pytest.raises(XRetrieveError, match="no query of 4 texts"):
        head.combine_texts(head.prepare_queries(texts()))
    with pytest.raises(XRetrieveError, match="a picture and a text"):
        head.combine_image_text(head.prepare_gallery(images()), head.prepare_queries(texts()))
    with pytest.raises(XRetrieveError, match="text_project=false needs dim=6"):
        make("sgr").__class__(7, 6, dim=8, text_project=False)
    with pytest.raises(XRetrieveError, match="exactly 4 real regions .* found 5"):
        make("sgr", region_norm="index", regions=4).prepare_gallery(images())


def test_projection_is_left_out_where_the_text_already_has_the_width():
    from xretrieve.heads import create_head

    assert create_head("scan", image_dim=7, text_dim=8, dim=8).config["text_project"] is False
    assert create_head("scan", image_dim=7, text_dim=6, dim=8).config["text_project"] is True
