"""What a pattern matches, and what a scan of a folder counts."""

from __future__ import annotations

import pytest
from PIL import Image

from xretrieve.data.folder import no_pictures, scan_folder
from xretrieve.data.patterns import Patterns
from xretrieve.errors import XRetrieveError


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("*.png", "a/b/x.PNG", True), ("*.png", "x.jpg", False), ("private", "a/private/x.jpg", True),
        ("private", "a/privately/x.jpg", False), ("private/", "private/x.jpg", True),
        ("/private", "a/private/x.jpg", False),
        ("a/*", "a/b/x.jpg", True), ("a/*.jpg", "a/b/x.jpg", False), ("a/**/x.jpg", "a/b/c/x.jpg", True),
        ("a/**/x.jpg", "a/x.jpg", True), ("**/b", "a/b/x.jpg", True), ("./a", "a/x.jpg", True),
        ("IMG_?.jpg", "IMG_1.jpg", True),
        ("[ab].jpg", "b.jpg", True), ("[!ab].jpg", "b.jpg", False), ("[", "[", True), ("(1)", "(1)/x.jpg", True),
        ("e\u0301t\u00e9", "\u00e9te\u0301/x.jpg", True),
    ],
)  # fmt: skip
def test_what_a_pattern_matches(pattern, path, matches):
    assert (Patterns(exclude=(pattern,)).reason(path) == "excluded") is matches
    assert (Patterns(include=(pattern,)).reason(path) == "") is matches


def test_hidden_and_system_folders_are_left_out_unless_a_pattern_names_them():
    for path, why in [("@eaDir/x.jpg", "system"), ("a/#RECYCLE/x.jpg", "system"), (".x.jpg", "hidden"),
                      ("$RECYCLE.BIN/x.jpg", "system"), ("__MACOSX/._x.jpg", "system"), (".Trash-1000/x.jpg", "hidden"),
                      ("lost+found", ""), ("x.jpg", "")]:  # fmt: skip
        assert Patterns().reason(path) == why, path
    assert Patterns(include=("@eaDir/*",)).reason("@eaDir/x.jpg") == ""
    assert Patterns(include=("*.jpg",)).reason("@eaDir/x.jpg") == "system", "a wildcard names nothing"
    assert Patterns(include=("*",), exclude=("x*",)).reason("x.jpg") == "excluded"


def test_patterns_that_are_kept_and_patterns_that_are_none():
    kept = Patterns(("a",), ("b",))
    assert Patterns.of(None, ["c", "c"], kept) == Patterns(("a",), ("c",))
    assert Patterns.of([""], [], kept) == Patterns()
    with pytest.raises(XRetrieveError, match="exclude: expected patterns"):
        Patterns.of(None, [3])
    with pytest.raises(XRetrieveError, match="pattern '.z-a.' cannot be read"):
        Patterns.of(None, ["[z-a]"])


def test_everything_that_is_left_out_is_counted_by_reason(tmp_path, monkeypatch):
    monkeypatch.setattr("xretrieve.data.folder.picture_suffixes", lambda: frozenset({".jpg", ".png"}))
    names = ["a.jpg", "b/c.PNG", "x.HEIC", "y.heic", "z.CR2", "w.psd", "notes.txt", "film.mov", ".h.jpg",
             ".cache/i.jpg", "@eaDir/j.jpg", "no/k.jpg", "no/l.jpg"]  # fmt: skip
    for name in names:
        path = tmp_path / "p" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    (tmp_path / "p" / "loop").symlink_to(tmp_path / "p", target_is_directory=True)
    found = scan_folder(tmp_path / "p", Patterns(exclude=("no", "nothing")))
    assert [path.name for path in found.pictures] == ["a.jpg", "c.PNG"] and found.idle == ["nothing"]
    counts = {entry["reason"]: entry["count"] for entry in found.left_out}
    assert counts == {"heic": 2, "raw": 1, "format": 1, "excluded": 1, "system": 1, "hidden": 2, "link": 1, "other": 2}
    said = {entry["reason"]: entry["message"] for entry in found.left_out}
    assert said["heic"].startswith("2 HEIC pictures (") and "pip install 'xretrieve[heic]'" in said["heic"]
    assert said["other"] == "2 other files (.txt 1, .mov 1): no pictures by their names" or ".mov 1" in said["other"]


def test_a_folder_of_heic_alone_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr("xretrieve.data.folder.picture_suffixes", lambda: frozenset({".jpg"}))
    (tmp_path / "x.heic").write_bytes(b"x")
    with pytest.raises(XRetrieveError, match=r"holds no pictures .*1 HEIC picture .*xretrieve\[heic\]"):
        raise no_pictures(tmp_path, scan_folder(tmp_path))


def test_a_closed_folder_is_counted_and_a_closed_root_is_an_error(tmp_path, monkeypatch):
    import os

    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "private").mkdir()
    scandir = os.scandir

    def closed(path):
        if str(path).endswith(name):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    name = "private"
    monkeypatch.setattr(os, "scandir", closed)
    found = scan_folder(tmp_path)
    assert [entry["message"] for entry in found.left_out] == [
        "1 folder that cannot be read (private: Permission denied): check their rights"
    ]
    name = tmp_path.name
    with pytest.raises(XRetrieveError, match="cannot be read .Permission denied."):
        scan_folder(tmp_path)
