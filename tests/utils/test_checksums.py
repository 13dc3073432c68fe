import pytest

from xretrieve.utils.checksums import DamagedError, is_sealed, read_sealed, seal, verify
from xretrieve.utils.files import atomic_folder, write_json


def flip(path, at=-1):
    data = bytearray(path.read_bytes())
    data[at] ^= 4
    path.write_bytes(data)


@pytest.fixture
def folder(tmp_path):
    with atomic_folder(tmp_path / "f", sealed=True) as part:
        (part / "small").write_bytes(b"12345678")
        (part / "sub").mkdir()
        (part / "sub" / "large").write_bytes(bytes(1000))
    return tmp_path / "f"


def test_a_sealed_folder_is_as_it_was(folder):
    assert verify(folder, 2000) == 2000 - 1008 and is_sealed(folder) and not is_sealed(folder / "sub")


@pytest.mark.parametrize("name", ["small", "sub/large", "checksums.json"])
def test_a_flipped_bit_in_any_file_is_noticed(folder, name):
    for at in range(0, (folder / name).stat().st_size, 7):
        flip(folder / name, at)
        with pytest.raises(DamagedError, match="damaged"):
            verify(folder)
        flip(folder / name, at)
    verify(folder)


def test_a_cut_or_missing_file_is_named(folder):
    (folder / "sub" / "large").write_bytes(bytes(999))
    with pytest.raises(DamagedError, match="large is damaged: it has 999 bytes instead of 1000"):
        verify(folder, budget=0)
    (folder / "small").unlink()
    with pytest.raises(DamagedError, match="small is damaged: it is missing"):
        verify(folder)


def test_large_files_are_read_when_asked_for_only(folder):
    flip(folder / "sub" / "large")
    assert verify(folder, budget=500) == 0
    with pytest.raises(DamagedError, match="large is damaged: its bytes changed"):
        verify(folder, budget=None)


def test_a_seal_of_another_folder_or_none_is_noticed(folder):
    sealed = seal(folder)
    verify(folder, sealed=sealed)
    (folder / "small").write_bytes(b"1")
    seal(folder)
    with pytest.raises(DamagedError, match="checksums.json is damaged"):
        verify(folder, sealed=sealed)
    (folder / "checksums.json").unlink()
    with pytest.raises(DamagedError, match="it is missing"):
        verify(folder, sealed=sealed)


def test_sealed_json_notices_another_digit_and_reads_what_has_no_checksum(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"rerank": 100, "x": [1.5, None, "ü"]}, sealed=True)
    assert read_sealed(path) == {"rerank": 100, "x": [1.5, None, "ü"]}
    path.write_text(path.read_text().replace("100", "108"))
    with pytest.raises(DamagedError, match='changed by hand\\? then delete its key "checksum"'):
        read_sealed(path)
    write_json(path, {"rerank": 100})
    assert read_sealed(path) == {"rerank": 100}


def test_where_a_model_lies_may_be_changed_by_hand(tmp_path):
    about = {"matcher": {"source": "runs/x", "source_options": {}, "fingerprint": "f00d"}}
    write_json(tmp_path / "a.json", about, sealed=True)
    text = (tmp_path / "a.json").read_text()
    (tmp_path / "a.json").write_text(text.replace("runs/x", "runs/y"))
    assert read_sealed(tmp_path / "a.json")["matcher"]["source"] == "runs/y"
    (tmp_path / "a.json").write_text(text.replace("f00d", "f00e"))
    with pytest.raises(DamagedError):
        read_sealed(tmp_path / "a.json")
