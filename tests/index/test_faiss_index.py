import numpy as np
import pytest

from xretrieve.errors import XRetrieveError
from xretrieve.index import FlatIndex, create_index, load_index, recall_against_flat

faiss = pytest.importorskip("faiss")
N, D = 1200, 16
NAMES = ["faiss-flat", "hnsw", "ivfpq"]
FLOOR = {"faiss-flat": 1.0, "hnsw": 0.95, "ivfpq": 0.3}  # top-10 recall on random vectors, the hardest case


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((N, D)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.arange(N) * 2 + 5, vectors, vectors[::40] + 0.1 * rng.standard_normal((N // 40, D)).astype(np.float32)


def both(name, ids, vectors):
    index, flat = create_index(name, D), FlatIndex(D)
    index.add(ids, vectors)
    flat.add(ids, vectors)
    return index, flat


@pytest.mark.parametrize("name", NAMES)
def test_recall_against_flat(data, name):
    ids, vectors, queries = data
    index, flat = both(name, ids, vectors)
    assert recall_against_flat(index, flat, queries, 10) >= FLOOR[name]
    scores = index.search(queries, 10)[0]
    assert (np.diff(scores, axis=1) <= 0).all(), "inner product: best first"


def test_recall_counts_what_is_missing():
    eye = np.eye(4, dtype=np.float32)
    flat, half = FlatIndex(4), FlatIndex(4)
    flat.add(np.arange(4), eye)
    half.add(np.array([0, 1, 9, 8]), eye)
    assert recall_against_flat(half, flat, np.array([[4, 3, 2, 1.0]]), 4) == 0.5
    assert recall_against_flat(half, flat, np.array([[4, 3, 2, 1.0]]), 2) == 1.0


@pytest.mark.parametrize("name", NAMES)
def test_removed_vectors_are_never_found(data, name):
    ids, vectors, queries = data
    index, flat = both(name, ids, vectors)
    gone = ids[:500]
    index.remove(gone)
    flat.remove(gone)
    assert len(index) == N - 500
    assert not np.isin(index.search(queries, 50)[1], gone).any()
    assert recall_against_flat(index, flat, queries, 10) >= FLOOR[name]
    with pytest.raises(XRetrieveError, match="no id 5"):
        index.remove(np.array([5]))
    if name == "hnsw":
        assert index.removed == 500 and index.rebuild


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("share", [0.5, 0.02])
def test_filter_returns_only_allowed_ids_and_enough_of_them(data, name, share):
    ids, vectors, queries = data
    index, flat = both(name, ids, vectors)
    allowed = np.random.default_rng(1).permutation(ids)[: int(share * N)]
    found = index.search(queries, 10, allowed)[1]
    assert np.isin(found, allowed).all(), "every place is filled, with allowed ids only"
    true = flat.search(queries, 10, allowed)[1]
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found.tolist(), true.tolist(), strict=True)])
    assert recall >= FLOOR[name]


@pytest.mark.parametrize("name", NAMES)
def test_k_beyond_the_gallery_and_empty_filters_are_padded(data, name):
    ids, vectors, queries = data
    index, _ = both(name, ids, vectors)
    scores, found = index.search(queries[:2], N + 5)
    assert found.shape == (2, N + 5) and (found[:, -5:] == -1).all() and (scores[:, -1] == -np.inf).all()
    assert (index.search(queries[:2], 3, np.array([0]))[1] == -1).all()


@pytest.mark.parametrize("name", NAMES)
def test_save_load_and_go_on_adding(data, name, tmp_path):
    ids, vectors, queries = data
    index, _ = both(name, ids[:-100], vectors[:-100])
    index.remove(ids[:10])
    index.save(tmp_path / "i")
    again = load_index(tmp_path / "i")
    assert len(again) == len(index) and (again.search(queries, 10)[1] == index.search(queries, 10)[1]).all()
    again.add(ids[-100:], vectors[-100:])
    assert len(again) == N - 10 and ids[-1] in again.search(vectors[-1:], 5)[1]


def test_ivfpq_needs_vectors_to_train_and_a_divisor(data):
    ids, vectors, _ = data
    with pytest.raises(XRetrieveError, match="too few to train.*'flat'"):
        create_index("ivfpq", D).add(ids[:100], vectors[:100])
    with pytest.raises(XRetrieveError, match="pq=5 does not divide"):
        create_index("ivfpq", D, pq=5).add(ids, vectors)
    with pytest.raises(XRetrieveError, match="nlist=5000"):
        create_index("ivfpq", D, nlist=5000).add(ids, vectors)


def test_a_damaged_index_file_is_an_error_that_names_the_folder(data, tmp_path):
    index, _ = both("hnsw", *data[:2])
    index.save(tmp_path / "i")
    (tmp_path / "i" / "index.faiss").write_bytes(b"xxxx")
    with pytest.raises(XRetrieveError, match="damaged index"):
        load_index(tmp_path / "i")


def test_the_gpu_copy_is_made_once_and_dropped_after_a_change(data, monkeypatch):
    """No GPU build here: its three calls are replaced, what is tested is when they are made."""
    ids, vectors, queries = data
    made = []

    def to_gpu(resources, device, index):
        made.append(device)
        return faiss.clone_index(index)

    monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1, raising=False)
    monkeypatch.setattr(faiss, "index_cpu_to_gpu", to_gpu, raising=False)
    index, flat = both("faiss-flat", ids[:-1], vectors[:-1])
    for _ in range(2):
        assert recall_against_flat(index, flat, queries, 10) == 1.0
    assert made == [0]
    index.search(queries, 3, ids[:50])  # filtered: on the CPU
    index.add(ids[-1:], vectors[-1:])
    assert made == [0] and ids[-1] in index.search(vectors[-1:], 1)[1] and made == [0, 0]
    off = create_index("faiss-flat", D, gpu=False)
    off.add(ids, vectors)
    off.search(queries, 1)
    assert made == [0, 0]
