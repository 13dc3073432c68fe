"""Texts of files: a wrong cut or a wrong encoding would lose names, captions and whole galleries."""

import codecs
import json

import pytest

from xretrieve.errors import XRetrieveError
from xretrieve.utils.files import read_json, write_json, write_text
from xretrieve.utils.texts import decode, encode, json_lines, read_text, split_lines, text_lines, to_json_lines

ODD = "".join(map(chr, (0x0B, 0x0C, 0x1C, 0x1D, 0x1E, 0x85, 0x2028, 0x2029)))  # where str.splitlines cuts too
SAID = "Grüße, 犬 🐶\nzwei"


def test_json_lines_are_cut_at_line_ends_only_and_read_back_as_they_were_written(tmp_path):
    values = [{"name": f"a{mark}b"} for mark in ODD] + [{"name": "c\r\nd"}, {"name": "\udce9"}]
    (tmp_path / "x.jsonl").write_bytes(encode(to_json_lines(values)))
    assert list(json_lines(tmp_path / "x.jsonl")) == list(enumerate(values, start=1))
    written = (tmp_path / "x.jsonl").read_text(encoding="utf-8")
    assert [json.loads(line) for line in written.splitlines()] == values  # also for readers that cut everywhere


def test_raw_line_separators_of_older_files_are_read(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"name": "a\u2028b"}\n\n{"name": "c\u0085d"}\n', encoding="utf-8")
    assert list(json_lines(tmp_path / "x.jsonl")) == [(1, {"name": "a\u2028b"}), (3, {"name": "c\u0085d"})]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_unicode_files_of_every_kind_give_the_same_text(tmp_path, encoding):
    path = tmp_path / "x.txt"
    path.write_bytes(SAID.encode(encoding))
    assert read_text(path) == SAID and list(text_lines(path)) == [(1, "Grüße, 犬 🐶"), (2, "zwei")]
    path.write_bytes(json.dumps({"a": [SAID]}, ensure_ascii=False).encode(encoding))
    assert read_json(path) == {"a": [SAID]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("eins\nGrüße".encode("latin-1"), r"x.txt: line 2 is not UTF-8 text \(byte 0xfc\); convert the file to UTF-8"),
        (codecs.BOM_UTF16_LE + b"a\0b", "x.txt: not UTF-16 text at byte"),
        (b"1\n2\0\0\0\0", "x.txt: line 2 holds zero bytes"),
    ],
)
def test_what_is_no_text_is_one_error_that_names_file_line_and_encoding(tmp_path, content, message):
    path = tmp_path / "x.txt"
    path.write_bytes(content)
    for read in (read_text, lambda p: list(text_lines(p)), lambda p: list(json_lines(p)), read_json):
        with pytest.raises(XRetrieveError, match=message) as caught:
            read(path)
        assert len(str(caught.value)) < 300


def test_files_that_cannot_be_read_are_named(tmp_path):
    for read in (read_text, read_json, lambda p: list(text_lines(p))):
        with pytest.raises(XRetrieveError, match="no file .*absent"):
            read(tmp_path / "absent")
        with pytest.raises(XRetrieveError, match="cannot be read"):
            read(tmp_path)


@pytest.mark.parametrize(
    ("text", "reason"), [("[" * 100_000, "nested too deeply"), ("1" * 5000, "too many digits"), ("[1,", "line 1")]
)
def test_odd_json_is_one_sentence(tmp_path, text, reason):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(XRetrieveError, match=f"x.json: .*{reason}"):
        read_json(tmp_path / "x.json")
    with pytest.raises(XRetrieveError, match="x.json, line 1: "):
        list(json_lines(tmp_path / "x.json"))


def test_lines_end_at_lf_crlf_and_cr_and_the_last_end_makes_no_line():
    assert split_lines("a\nb\r\nc\rd") == ["a", "b", "c", "d"] and split_lines("a\n\n") == ["a", ""]
    assert split_lines(ODD) == [ODD] and split_lines("") == []


def test_half_a_pair_and_bytes_of_file_names_are_written_and_read_back(tmp_path):
    value = {"path": b"caf\xe9.jpg".decode("utf-8", "surrogateescape"), "half": "\ud83d"}
    write_json(tmp_path / "x.json", value)
    assert read_json(tmp_path / "x.json") == value
    write_text(tmp_path / "x.txt", value["path"])
    assert read_text(tmp_path / "x.txt") == "caf\\udce9.jpg"


def test_a_text_of_bytes_needs_no_file():
    assert decode(b"\xef\xbb\xbfa", "x") == "a"


def test_lines_that_are_not_wanted_are_passed_over_and_keep_their_numbers(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"of": "a"}\n{"of": "b", broken\n{"of": "a"}\nbroken\n', encoding="utf-8")
    lines = json_lines(path, ['"of": "b"'])
    assert [next(lines)[0], next(lines)[0]] == [1, 3]
    with pytest.raises(XRetrieveError, match="line 4"):
        next(lines)
