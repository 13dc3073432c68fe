import json

import numpy as np
import pytest

from tests.gallery_fakes import FakeMatcher, noise_photos, paint, tiny_matcher
from xretrieve.cli.main import main
from xretrieve.evaluation import evaluate_scores
from xretrieve.gallery import Gallery
from xretrieve.integrity import check_up


@pytest.fixture
def place(tmp_path):
    """An index of a head with tokens, an approximate one, a run with its report."""
    pytest.importorskip("faiss")
    photos = noise_photos(tmp_path / "photos", 4)
    sgr = tiny_matcher("sgr")
    sgr.save(tmp_path / "all" / "run" / "matcher")
    evaluate_scores(np.random.default_rng(0).standard_normal((9, 18)), np.arange(18) // 2, bootstrap=20).save(
        tmp_path / "all" / "run"
    )
    Gallery.build(sgr, photos, tmp_path / "all" / "tokens.xr")
    hnsw = Gallery.build(FakeMatcher(), photos, tmp_path / "all" / "hnsw.xr", index="hnsw")
    hnsw.add([paint(tmp_path / "more.png", "red")])
    return tmp_path / "all"


def test_what_is_whole_has_a_checksum_for_every_file(place):
    found = check_up(place)
    assert not found.problems and not found.unknown and found.files >= 20
    assert found.bytes > 1000


def test_a_flipped_bit_in_any_file_and_a_cut_one_are_named(place, capsys):
    files = sorted(path for path in place.rglob("*") if path.is_file())
    for path in files:
        whole = path.read_bytes()
        path.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
        assert any(path.name in said or path.parent.name in said for said in check_up(place).problems), path
        path.write_bytes(whole[: len(whole) // 2])
        assert any(path.name in said or path.parent.name in said for said in check_up(place).problems), path
        path.write_bytes(whole)
    files[0].write_bytes(b"")
    assert main(["check", str(place)]) == 1 and "damaged" in capsys.readouterr().out


def test_what_former_versions_wrote_is_listed_and_no_problem(place, capsys):
    for path in place.rglob("checksums.json"):
        path.unlink()
    for path in [*place.rglob("gallery.json"), *place.rglob("report.json")]:
        values = json.loads(path.read_text())
        for part in [*values.get("parts", []), values.get("index", {})]:
            part.pop("sum", None)
        path.write_text(json.dumps({k: v for k, v in values.items() if k not in ("checksum", "files")}))
    assert main(["check", str(place)]) == 0
    assert "without a checksum" in capsys.readouterr().out
    assert main(["check", "--json", str(place)]) == 0
    assert json.loads(capsys.readouterr().out)[0]["files"] == 0
    assert main(["check", str(place / "none")]) == 2
