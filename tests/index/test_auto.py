"""`auto`: flat when small, codes with exact scores beyond; both kinds of codes keep the same promises."""

import sys

import numpy as np
import pytest

from xretrieve.errors import XRetrieveError
from xretrieve.index import FlatIndex, create_index, fit_recall, load_index, moved_vectors, recall_against_flat
from xretrieve.index import codes as codes_module

N, D = 3000, 30  # a width that is no whole number of words, and with `odd` no whole number of pairs
CODES = [pytest.param("pq4", marks=pytest.mark.skipif(not codes_module.has_faiss(), reason="no faiss")), "binary"]


def clustered(dim=D, seed=0):
    chance = np.random.default_rng(seed)
    centres = chance.standard_normal((N // 15, dim))
    vectors = centres[chance.integers(0, len(centres), N)] + 0.3 * chance.standard_normal((N, dim))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.arange(N) * 2 + 5, vectors.astype(np.float32)


def both(kind, ids, vectors, threshold=100, rescored=100):
    index = create_index("auto", vectors.shape[1], threshold=threshold, rescored=rescored, codes=kind)
    flat = FlatIndex(vectors.shape[1])
    for part in np.split(np.arange(len(ids)), [len(ids) // 3, len(ids) // 2]):
        index.add(ids[part], vectors[part])
        flat.add(ids[part], vectors[part])
    assert index.codes == kind
    return index, flat


def same(index, flat, queries, k=10, allowed=None):
    """The same ids in the same order, and the inner products themselves."""
    (scores, found), (true_scores, true) = index.search(queries, k, allowed), flat.search(queries, k, allowed)
    assert found.tolist() == true.tolist() and scores.dtype == np.float32
    np.testing.assert_allclose(scores, true_scores, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", CODES)
@pytest.mark.parametrize("dim", [D, 33])
def test_found_are_the_nearest_with_exact_scores(kind, dim):
    ids, vectors = clustered(dim)
    index, flat = both(kind, ids, vectors, rescored=600)
    same(index, flat, moved_vectors(vectors[::100]))
    same(index, flat, vectors[:3], k=50)
    same(index, flat, vectors[:2], k=N + 3)


@pytest.mark.parametrize("kind", CODES)
def test_only_the_best_by_the_codes_are_read(kind, monkeypatch):
    ids, vectors = clustered()
    index, _ = both(kind, ids, vectors)
    read = []
    own = type(index)._products
    monkeypatch.setattr(type(index), "_products", lambda self, query, at: read.append(len(at)) or own(self, query, at))
    index.search(vectors[:1], 10)
    assert read[0] == 100 and sum(read) < N / 2


@pytest.mark.parametrize("kind", CODES)
def test_more_equal_vectors_than_candidates_are_listed_in_their_order(kind):
    ids, vectors = clustered()
    vectors[500:1200] = vectors[3]
    index, flat = both(kind, ids, vectors)
    same(index, flat, vectors[3:4], k=10)


@pytest.mark.parametrize("kind", CODES)
def test_removed_vectors_take_no_place_and_cost_no_recall(kind):
    ids, vectors = clustered()
    index, flat = both(kind, ids, vectors, rescored=400)
    near = flat.search(vectors[:20], 30)[1].reshape(-1)  # those that the queries would find first
    gone = np.unique(np.concatenate([near, ids[N // 3 : N // 2]]))  # and a whole block
    for one in (index, flat):
        one.remove(gone)
    assert not np.isin(index.search(vectors[:20], 10)[1], gone).any()
    assert recall_against_flat(index, flat, vectors[:20]) >= 0.99
    with pytest.raises(XRetrieveError, match="no id"):
        index.remove(gone[:1])
    for one in (index, flat):
        one.add(gone[:5], vectors[:5])
    assert recall_against_flat(index, flat, vectors[:20]) >= 0.99


@pytest.mark.parametrize("kind", CODES)
@pytest.mark.parametrize("share", [0.5, 0.1, 0.02])
def test_filters_are_exact(kind, share):
    ids, vectors = clustered()
    index, flat = both(kind, ids, vectors, rescored=300)
    allowed = np.random.default_rng(1).permutation(ids)[: int(share * N)]
    same(index, flat, vectors[:20], allowed=allowed)
    assert (index.search(vectors[:1], 3, np.array([0]))[1] == -1).all()


@pytest.mark.parametrize("kind", CODES)
def test_a_filter_that_leaves_only_what_is_far_from_the_query_is_filled(kind):
    ids, vectors = clustered()
    index, flat = both(kind, ids, vectors)
    far = ids[np.argsort(vectors @ vectors[0])[:900]]
    same(index, flat, vectors[:1], allowed=far)


@pytest.mark.parametrize("kind", CODES)
def test_it_switches_at_the_threshold_and_back(kind):
    ids, vectors = clustered()
    index = create_index("auto", D, threshold=200, codes=kind)
    index.add(ids[:200], vectors[:200])
    assert index.codes == ""
    index.add(ids[200:900], vectors[200:900])
    assert index.codes == kind
    index.remove(ids[100:800])
    assert index.codes == "" and len(index) == 200
    flat = FlatIndex(D)
    left = np.r_[:100, 800:900]
    flat.add(ids[left], vectors[left])
    same(index, flat, vectors[:5])


@pytest.mark.parametrize("kind", CODES)
def test_saved_codes_search_the_same_and_go_on(kind, tmp_path):
    ids, vectors = clustered()
    index, flat = both(kind, ids[:-100], vectors[:-100])
    for one in (index, flat):
        one.remove(ids[:30])
    index.save(tmp_path / "whole")
    index.save(tmp_path / "codes", vectors=False)
    assert not (tmp_path / "codes" / "vectors.npy").exists()
    blocks = np.split(vectors[:-100], [1000])
    for again in (load_index(tmp_path / "whole"), load_index(tmp_path / "codes", blocks)):
        assert again.codes == kind and len(again) == len(index) and again.options == index.options
        assert (again.search(vectors[:20], 10)[1] == index.search(vectors[:20], 10)[1]).all()
        again.add(ids[-100:], vectors[-100:])
        assert ids[-1] in again.search(vectors[-1:], 3)[1]
    with pytest.raises(XRetrieveError, match="damaged index .*2900 ids"):
        load_index(tmp_path / "codes", [vectors])
    for file in (tmp_path / "codes").glob("codes.*"):
        file.write_bytes(b"xxxx")
    with pytest.raises(XRetrieveError, match="damaged index"):
        load_index(tmp_path / "codes", blocks)


def test_without_faiss_codes_are_binary_and_those_of_faiss_are_an_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    ids, vectors = clustered()
    index = create_index("auto", D, threshold=100)
    index.add(ids, vectors)
    assert index.codes == "binary"
    index = create_index("auto", D, threshold=1)
    index.add(ids[:2], vectors[:2])
    assert index.search(vectors[:1], 2)[1][0, 0] == ids[0]
    with pytest.raises(XRetrieveError, match=r"xretrieve\[faiss\]"):
        create_index("auto", D, codes="pq4")
    with pytest.raises(XRetrieveError, match="did you mean 'binary'"):
        create_index("auto", D, codes="binari")
    with pytest.raises(XRetrieveError, match="threshold 0"):
        create_index("auto", D, threshold=0)


def test_bits_are_counted_alike_by_old_numpy(monkeypatch):
    words = np.random.default_rng(0).integers(0, 2**63, 100, dtype=np.uint64)
    wanted = [bin(word).count("1") for word in words.tolist()]
    assert codes_module._ones(words).tolist() == wanted
    monkeypatch.delattr(np, "bitwise_count", raising=False)
    assert codes_module._ones(words).tolist() == wanted


@pytest.mark.parametrize("kind", CODES)
def test_the_least_effort_that_reaches_the_recall_is_chosen(kind):
    ids, vectors = clustered()
    index, flat = both(kind, ids, vectors)
    queries = moved_vectors(vectors[::30])
    fitted = fit_recall(index, flat, queries, 0.99)
    assert fitted.met and fitted.recall >= 0.99 and index.options["rescored"] == fitted.value
    assert recall_against_flat(index, flat, queries) == fitted.recall


def test_an_effort_that_is_never_enough_is_told():
    pytest.importorskip("faiss")
    ids, vectors = clustered()
    flat, index = FlatIndex(D), create_index("ivfpq", D, nlist=20, pq=2)
    for one in (flat, index):
        one.add(ids, vectors)
    fitted = fit_recall(index, flat, moved_vectors(vectors[::30]), 0.99)
    assert not fitted.met and fitted.recall < 0.99 and (fitted.option, fitted.value) == ("nprobe", 20)
    assert fit_recall(index, flat, vectors[:20], None).met, "nothing was asked for"


def test_moved_vectors_are_not_those_of_the_gallery():
    vectors = clustered()[1][:40] * 3
    moved = moved_vectors(vectors)
    cosine = (moved * vectors).sum(1) / np.linalg.norm(moved, axis=1) / np.linalg.norm(vectors, axis=1)
    np.testing.assert_allclose(cosine[::2], 0.9, atol=1e-5)
    np.testing.assert_allclose(cosine[1::2], 0.3, atol=1e-5)
    assert np.isfinite(moved_vectors(np.zeros((2, 4), np.float32))).all()
