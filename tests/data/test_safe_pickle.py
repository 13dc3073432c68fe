"""The restricted readers: every public form of the two kinds of pickle loads, nothing else does, and nothing runs."""

from __future__ import annotations

import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.data.vg_files import Command, vocabulary
from xretrieve.data.safe_pickle import ARRAYS, read_arrays, read_pickle, read_vocabulary
from xretrieve.errors import XRetrieveError

REGIONS = {
    "region_boxes": np.arange(8, dtype=np.float32).reshape(2, 4),
    "region_feats": np.linspace(-1, 1, 10, dtype=np.float32).reshape(2, 5),
    "region_clses": np.array([7, 300], np.int32),
}


def python2(features: np.ndarray) -> bytes:
    """What Python 2 wrote with protocol 2: text and array bytes are 8-bit strings (opcode U)."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value

    rows, width = features.shape
    order = b"(K\x03" + text(b"<") + b"NNN" + 2 * b"J\xff\xff\xff\xff" + b"K\x00tb"
    dtype = b"cnumpy\ndtype\n" + text(b"f4") + b"K\x00K\x01\x87R" + order
    start = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00t" + text(b"b") + b"tR"
    state = b"(K\x01(K" + bytes([rows]) + b"K" + bytes([width]) + b"t" + dtype + b"\x89"
    raw = features.tobytes()
    return b"\x80\x02}" + text(b"region_feats") + start + state + b"T" + struct.pack("<i", len(raw)) + raw + b"tbs."


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_of_every_protocol_are_read(tmp_path: Path, protocol: int) -> None:
    values = {**REGIONS, "columns": np.asfortranarray(REGIONS["region_feats"]), "axes": np.ones((2, 3, 4)).T}
    (tmp_path / "1.npy").write_bytes(pickle.dumps(values, protocol))
    found = read_arrays(tmp_path / "1.npy")
    assert found.keys() == values.keys()
    for name, value in values.items():
        assert found[name].dtype == value.dtype and np.array_equal(found[name], value), name


def test_arrays_that_old_and_new_numpy_name_differently_are_read(tmp_path: Path) -> None:
    written = pickle.dumps(REGIONS, 2)
    both = {written.replace(b"numpy._core.", b"numpy.core."), written.replace(b"numpy.core.", b"numpy._core.")}
    for content in both:
        (tmp_path / "1.npy").write_bytes(content)
        assert np.array_equal(read_arrays(tmp_path / "1.npy")["region_feats"], REGIONS["region_feats"])


def test_a_file_of_python_2_is_read_byte_for_byte(tmp_path: Path) -> None:
    features = np.frombuffer(bytes(range(1, 241)), np.float32).reshape(6, 10)  # bytes of all kinds, above 127 too
    (tmp_path / "1.npy").write_bytes(python2(features))
    assert read_arrays(tmp_path / "1.npy")["region_feats"].tobytes() == features.tobytes()


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("function", [os.system, exec, np.load, getattr])
def test_a_pickle_that_names_anything_else_is_refused_and_nothing_runs(
    tmp_path: Path, protocol: int, function: Any
) -> None:
    mark = tmp_path / "ran"
    argument = f"touch {mark}" if function is os.system else f"open({str(mark)!r}, 'w')"
    for read in (read_arrays, read_vocabulary):
        (tmp_path / "bad.npy").write_bytes(pickle.dumps({"region_feats": Command(function, argument)}, protocol))
        with pytest.raises(XRetrieveError, match=rf"bad.npy: .*{function.__name__}, which is refused; nothing in it"):
            read(tmp_path / "bad.npy")
    assert not mark.exists()


def test_the_reader_of_arrays_does_not_load_a_vocabulary_and_the_other_way_round(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(pickle.dumps(REGIONS, 2))
    with pytest.raises(XRetrieveError, match="asks for numpy.*multiarray._reconstruct"):
        read_vocabulary(tmp_path / "a")
    (tmp_path / "v").write_bytes(b"\x80\x02c__main__\nVocabulary\n)\x81.")
    with pytest.raises(XRetrieveError, match="asks for __main__.Vocabulary"):
        read_arrays(tmp_path / "v")


def test_allowed_names_cannot_be_made_to_fetch_memory_or_objects(tmp_path: Path) -> None:
    huge = b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(J\x00\x00\x00\x7ftU\x01btR."
    objects = pickle.dumps({"region_feats": np.array([[None, "x"]], dtype=object)}, 2)
    codec = b"\x80\x02c_codecs\nencode\n(X\x01\x00\x00\x00xX\x05\x00\x00\x00utf_8tR."
    for content, said in ((huge, "refused"), (objects, "no array of numbers"), (codec, "the encoding 'utf_8'")):
        (tmp_path / "1.npy").write_bytes(content)
        with pytest.raises(XRetrieveError, match=said):
            read_arrays(tmp_path / "1.npy")


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_file_cut_short_anywhere_is_an_error_that_names_it(tmp_path: Path, protocol: int) -> None:
    whole = pickle.dumps(REGIONS, protocol)
    for length in range(0, len(whole) - 1, 7):
        (tmp_path / "000000000042.npy").write_bytes(whole[:length])
        with pytest.raises(XRetrieveError, match="000000000042.npy"):
            read_arrays(tmp_path / "000000000042.npy")


def test_what_is_no_pickle_or_not_there_is_said(tmp_path: Path) -> None:
    (tmp_path / "page.npy").write_text("<html>404</html>")
    with pytest.raises(XRetrieveError, match="page.npy: not a pickled dict of arrays, or damaged"):
        read_arrays(tmp_path / "page.npy")
    with pytest.raises(XRetrieveError, match="nowhere.npy: cannot be read"):
        read_pickle(tmp_path / "nowhere.npy", ARRAYS, "anything")
    (tmp_path / "list.npy").write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(XRetrieveError, match="list.npy: expected a pickled dict of arrays, found list"):
        read_arrays(tmp_path / "list.npy")


WORDS = {"<pad>": 0, "<start>": 1, "<end>": 2, "<unk>": 3, "dog": 5, "red": 4}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_the_vocabulary_is_read_in_the_order_of_its_numbers(tmp_path: Path, protocol: int) -> None:
    (tmp_path / "v.pkl").write_bytes(vocabulary(WORDS, protocol))
    assert read_vocabulary(tmp_path / "v.pkl") == ["<pad>", "<start>", "<end>", "<unk>", "red", "dog"]


@pytest.mark.parametrize(
    ("words", "said"),
    [({}, "with word2idx"), ({"a": 0, "b": 2}, "not 0 to 1"), ({"a": 0, "b": 0}, "not 0 to 1"), ({"a": "0"}, "'a'")],
)
def test_a_vocabulary_with_wrong_numbers_is_an_error(tmp_path: Path, words: dict[Any, Any], said: str) -> None:
    (tmp_path / "v.pkl").write_bytes(vocabulary(words, 2))
    with pytest.raises(XRetrieveError, match=said):
        read_vocabulary(tmp_path / "v.pkl")
