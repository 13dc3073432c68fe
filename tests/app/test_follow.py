"""A server over an index that other programs change, replace and delete."""

import shutil

import pytest

from tests.app.conftest import client_of
from tests.gallery_fakes import noise_photos
from xretrieve.gallery import Gallery

DOG = {"texts": ["a red dog"], "k": 20}


@pytest.fixture(scope="module")
def dual(served):
    return served.coarse


@pytest.mark.parametrize("index", ["flat", "hnsw"])
def test_a_server_answers_whatever_other_programs_do(dual, tmp_path, index):
    if index != "flat":
        pytest.importorskip("faiss")
    dual.save(tmp_path / "run" / "matcher")
    built = Gallery.build(dual, noise_photos(tmp_path / "photos", 5), tmp_path / "g.xr", index=index)
    with client_of(Gallery.open(tmp_path / "g.xr", dual)) as client:

        def found():
            answer = client.post("/api/search", json=DOG)
            assert answer.status_code == 200, answer.text
            return {hit["id"] for hit in answer.json()["hits"]}

        session = client.post("/api/sessions", json={}).json()["session"]
        built.add(noise_photos(tmp_path / "more", 2, seed=7))
        assert client.get("/api/health").json() == {"status": "ok", "pictures": 7, "waiting": 0}
        assert len(found()) == 7
        built.remove("0.png")
        built.save()
        assert len(found()) == 6 and client.get("/api/pictures?id=0.png").status_code == 404
        Gallery.build(dual, [tmp_path / "photos" / "3.png"], tmp_path / "g.xr", overwrite=True)
        assert found() == {"3.png"}
        client.post(f"/api/sessions/{session}/add", json={"text": "a red dog"})
        assert len(client.get(f"/api/sessions/{session}/ranking").json()["hits"]) == 5, (
            "it stays with what it began with"
        )
        shutil.rmtree(tmp_path / "g.xr")
        assert found() == {"3.png"}
        health = client.get("/api/health").json()
        assert health["status"] == "stale" and "is not a gallery" in health["problem"] and health["pictures"] == 1
        assert str(tmp_path) not in health["problem"]
