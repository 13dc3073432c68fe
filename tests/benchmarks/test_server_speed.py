"""benchmarks/speed/server.py for a second on a tiny index."""

from __future__ import annotations

import pytest

pytest.importorskip("timm")

from benchmarks.speed.server import main  # noqa: E402
from tests.gallery_fakes import noise_photos, tiny_matcher  # noqa: E402
from xretrieve.gallery import Gallery  # noqa: E402


@pytest.mark.slow
def test_searches_are_answered_and_what_is_malformed_is_no_error(tmp_path, capsys):
    tiny_matcher("dual").save(tmp_path / "run" / "matcher")
    Gallery.build(tiny_matcher("dual"), noise_photos(tmp_path / "photos", 5), tmp_path / "g.xr")
    found = main([str(tmp_path / "g.xr"), "--clients", "2", "--seconds", "1", "--malformed", "20", "--model",
                  str(tmp_path / "run"), "--out", str(tmp_path / "out.json")])  # fmt: skip
    assert found["errors"] == 0 and set(found["answers"]) == {"200"} and found["searches"] > 1
    assert sum(found["malformed"].values()) == 20 and "200" not in found["malformed"]
    assert (tmp_path / "out.json").is_file() and "errors 0" in capsys.readouterr().out
