import numpy as np
import pytest

from xretrieve.errors import XRetrieveError
from xretrieve.index import FlatIndex, create_index, list_indexes, load_index


def slow_top(queries, vectors, ids, k):
    """One query at a time, stable sort: the rule written down."""
    out = []
    for query in queries:
        scores = vectors @ query
        out.append([ids[i] for i in sorted(range(len(ids)), key=lambda i: (-scores[i], i))[:k]])
    return out


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    # small integers: many exact ties, and sums that float32 holds exactly whatever the order of addition
    return rng.integers(-2, 3, (300, 6)).astype(np.float32), rng.integers(-2, 3, (20, 6)).astype(np.float32)


@pytest.mark.parametrize("memory_mb", [256, 0.002])
def test_order_is_that_of_a_stable_sort_in_every_block_size(data, memory_mb):
    vectors, queries = data
    ids = np.random.default_rng(1).permutation(1000)[:300]
    index = FlatIndex(6, memory_mb=memory_mb)
    for part in np.split(np.arange(300), [70, 71, 200]):
        index.add(ids[part], vectors[part])
    scores, found = index.search(queries, 17)
    assert scores.dtype == np.float32 and found.dtype == np.int64
    assert found.tolist() == slow_top(queries, vectors, ids, 17)
    assert (np.diff(scores, axis=1) <= 0).all()


def test_all_vectors_equal_are_listed_in_the_order_of_the_gallery():
    index = FlatIndex(2)
    index.add(np.arange(50)[::-1], np.ones((50, 2)))
    assert index.search(np.ones((1, 2)), 5)[1].tolist() == [[49, 48, 47, 46, 45]]


def test_filter_and_removal_search_only_what_is_left(data):
    vectors, queries = data
    index = FlatIndex(6, memory_mb=0.01)
    index.add(np.arange(150), vectors[:150])
    index.add(np.arange(150, 300), vectors[150:])
    index.remove(np.arange(100, 200))
    allowed = np.arange(0, 300, 3)
    left = np.array([i for i in allowed if not 100 <= i < 200])
    assert len(index) == 200
    assert index.search(queries, 9, allowed)[1].tolist() == slow_top(queries, vectors[left], left, 9)
    with pytest.raises(XRetrieveError, match="no id 150"):
        index.remove(np.array([3, 150]))
    assert len(index) == 200  # the failed call removed nothing
    index.add(np.array([150]), vectors[:1])  # and a removed id can come back


def test_fewer_than_k_are_padded(data):
    vectors, queries = data
    index = FlatIndex(6)
    assert index.search(queries[:1], 2)[1].tolist() == [[-1, -1]]
    index.add(np.array([4]), vectors[:1])
    scores, found = index.search(queries[:1], 3)
    assert found.tolist() == [[4, -1, -1]] and scores[0, 1] == -np.inf
    assert index.search(queries[:1], 1, np.array([], np.int64))[1].tolist() == [[-1]]


def test_save_and_load_keep_the_search(data, tmp_path):
    vectors, queries = data
    index = FlatIndex(6)
    index.add(np.arange(300), vectors)
    index.remove(np.array([0, 7]))
    index.save(tmp_path / "flat")
    again = load_index(tmp_path / "flat")
    assert len(again) == 298 and (again.search(queries, 5)[1] == index.search(queries, 5)[1]).all()


def test_a_read_only_memory_map_is_not_copied_and_does_not_warn(data, tmp_path, recwarn):
    np.save(tmp_path / "v.npy", data[0])
    vectors = np.load(tmp_path / "v.npy", mmap_mode="r")
    index = FlatIndex(6)
    index.add(np.arange(300), vectors)
    assert index._vectors[0].data_ptr() == vectors.ctypes.data and not recwarn.list


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda i: i.add(np.array([1]), np.ones((1, 5))), r"\(1, 5\) do not fit an index of width 6"),
        (lambda i: i.add(np.array([1, 1]), np.ones((2, 6))), "id 1 is given twice"),
        (lambda i: i.add(np.array([0]), np.ones((1, 6))), "id 0 is already there"),
        (lambda i: i.add(np.array([-1]), np.ones((1, 6))), "negative"),
        (lambda i: i.add(np.array([8, 9]), np.ones((1, 6))), "2 ids for 1 vectors"),
        (lambda i: i.search(np.ones((1, 6)), 0), "k is 0"),
        (lambda i: create_index("hnws", 6), "did you mean 'hnsw'"),
        (lambda i: create_index("flat", 6, memory=3), "did you mean 'memory_mb'"),
    ],
)
def test_bad_calls_say_what_is_wrong(call, message):
    index = FlatIndex(6)
    index.add(np.array([0]), np.ones((1, 6)))
    with pytest.raises(XRetrieveError, match=message):
        call(index)


def test_without_faiss_the_error_names_the_extra_and_flat(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    for name in list_indexes():
        if name not in ("auto", "flat"):
            with pytest.raises(XRetrieveError, match=r"xretrieve\[faiss\].*'flat'"):
                create_index(name, 4)
