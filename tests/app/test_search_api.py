"""Every endpoint answers what the gallery answers, and shows nothing but the index."""

from __future__ import annotations

import base64
import shutil

import pytest
from PIL import Image as PILImage

import xretrieve as xr
from tests.app.conftest import client_of
from tests.gallery_fakes import noise_photos
from xretrieve.gallery import Gallery


def hits(answer):
    assert answer.status_code == 200, answer.text
    return [hit["id"] for hit in answer.json()["hits"]]


def test_the_four_kinds_of_query_find_what_the_gallery_finds(client, served, served_photos):
    photo = served_photos / "3.png"
    for body, query in (
        ({"texts": ["a red dog"]}, xr.Text("a red dog")),
        ({"texts": ["a red dog", "snow"]}, xr.MultiText(["a red dog", "snow"])),
        ({"image": "3.png"}, xr.Image(photo)),
        ({"image": "3.png", "texts": ["a red dog"]}, xr.ImageText(photo, "a red dog")),
        ({"image": "3.png", "texts": ["a red dog", "snow"]}, xr.ImageText(photo, "a red dog and snow")),
    ):
        answer, wanted = client.post("/api/search", json=body | {"k": 5}), served.search(query, k=5)
        assert hits(answer) == wanted.ids and answer.json()["note"] == wanted.note
        assert [hit["score"] for hit in answer.json()["hits"]] == pytest.approx(wanted.scores)
        assert [hit["exact"] for hit in answer.json()["hits"]] == [hit.exact for hit in wanted]


def test_a_sent_picture_is_searched_like_the_file(client, served, served_photos):
    data = (served_photos / "5.png").read_bytes()
    text = base64.b64encode(data).decode()
    wanted = served.search(xr.Image(PILImage.open(served_photos / "5.png")), k=4).ids
    assert hits(client.post("/api/search", json={"picture": text, "k": 4})) == wanted
    assert hits(client.post("/api/search", json={"picture": f"data:image/png;base64,{text}", "k": 4})) == wanted
    form = {"files": {"picture": ("5.png", data)}, "data": {"k": "4"}}
    assert hits(client.post("/api/search/upload", **form)) == wanted
    form["data"]["text"] = "a red dog"
    both = served.search(xr.ImageText(PILImage.open(served_photos / "5.png"), "a red dog"), k=4).ids
    assert hits(client.post("/api/search/upload", **form)) == both


def test_rerank_where_and_drop_reference_are_passed_on(client, served):
    first = client.post("/api/search", json={"texts": ["a red dog"], "rerank": 0, "k": 12})
    assert hits(first) == served.search("a red dog", k=12, rerank=0).ids and first.json()["share"] == 0
    assert hits(client.post("/api/search", json={"texts": ["a red dog"], "rerank": "all", "where": {"folder": "."}}))
    assert hits(client.post("/api/search", json={"image": "3.png", "k": 1})) == ["3.png"]
    assert "3.png" not in hits(client.post("/api/search", json={"image": "3.png", "drop_reference": True}))


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({}, 422, "nothing to search for: send texts, an image, or both"),
        ({"texts": [" "]}, 422, r"texts.0: string should match pattern"),
        ({"texts": ["x" * 1001]}, 422, "texts.0: string should have at most 1000 characters"),
        ({"texts": ["x"] * 51}, 422, "texts: list should have at most 50 items"),
        ({"texts": "a dog"}, 422, "texts: input should be a valid list"),
        ({"text": "a dog"}, 422, "text: extra inputs are not permitted"),
        ({"texts": ["a"], "k": 201}, 422, "k: input should be less than or equal to 200"),
        ({"texts": ["a"], "k": 0}, 422, "k: input should be greater than or equal to 1"),
        ({"texts": ["a"], "rerank": 1001}, 422, "rerank"),
        ({"texts": ["a"], "rerank": "some"}, 422, "rerank"),
        ({"texts": ["a"], "where": {"colour": "red"}}, 400, "unknown metadata key 'colour'"),
        ({"image": "none.png"}, 404, "the index has no id 'none.png'"),
        ({"image": "3.png", "picture": "AAAA"}, 422, "image and picture are both given"),
        ({"picture": "not base64!"}, 422, "picture: give the bytes of a picture file in base64"),
        ({"picture": base64.b64encode(b"GIF89a broken").decode()}, 400, "the picture that was sent: "),
        ([], 422, "the request: "),
    ],
)
def test_a_wrong_search_is_one_sentence(client, body, status, message):
    answer = client.post("/api/search", json=body)
    assert answer.status_code == status and list(answer.json()) == ["error"]
    assert message in answer.json()["error"] and "\n" not in answer.json()["error"]


def test_wrong_paths_methods_and_json_are_one_sentence_too(client):
    for answer, status, message in (
        (client.get("/api/nothing"), 404, "there is nothing at /api/nothing"),
        (client.put("/api/search"), 405, "PUT does not go with /api/search"),
        (client.post("/api/search", content=b"{", headers={"content-type": "application/json"}), 422, "not valid JSON"),
        (client.get("/static/nothing.js"), 404, "nothing at"),
    ):
        assert answer.status_code == status and message in answer.json()["error"]
    assert client.put("/api/search").headers["allow"] == "POST"


def test_explanations_show_regions_words_and_no_paths(client, served):
    told = client.post("/api/explain", json={"texts": ["a red dog"], "id": "2.png"}).json()
    assert told["id"] == "2.png" and told["parts"][0]["text"] == "a red dog"
    assert told["attention"]["layout"]["grid"] == [3, 3] and "dog" in told["attention"]["words"]
    assert told["parts"][0]["score"] == pytest.approx(served.explain("a red dog", "2.png")["parts"][0]["score"])
    composed = client.post("/api/explain", json={"texts": ["snow"], "image": "3.png", "id": "2.png"})
    assert [part["kind"] for part in composed.json()["parts"]] == ["image", "text"]
    assert str(served.path.parent) not in composed.text
    assert client.post("/api/explain", json={"texts": ["snow"], "id": "../2.png"}).status_code == 404


def test_pictures_are_small_upright_copies_with_a_tag(client, served_photos):
    answer = client.get("/api/pictures", params={"id": "2.png", "size": 64})
    assert answer.headers["content-type"] == "image/jpeg" and answer.content[:2] == b"\xff\xd8"
    tag = answer.headers["etag"]
    again = client.get("/api/pictures", params={"id": "2.png", "size": 64}, headers={"If-None-Match": tag})
    assert again.status_code == 304 and not again.content
    assert client.get("/api/pictures", params={"id": "2.png", "size": 4096}).status_code == 422


SECRET = ["../secret.png", "..%2fsecret.png", "/etc/passwd", "....//secret.png", "3.png/../../secret.png", "\0",
          "photos", "C:\\secret.png"]  # fmt: skip


@pytest.mark.parametrize("id_", SECRET)
def test_no_file_outside_the_index_is_read(client, served_photos, id_):
    PILImage.new("RGB", (8, 8)).save(served_photos.parent / "secret.png")
    shutil.copy(served_photos.parent / "secret.png", served_photos / "beside.png")  # in the folder, not in the index
    for name in (id_, "beside.png", str(served_photos / "3.png"), str(served_photos.parent / "secret.png")):
        assert client.get("/api/pictures", params={"id": name}).status_code == 404
        assert client.post("/api/search", json={"image": name}).status_code == 404
        assert client.post("/api/explain", json={"texts": ["a"], "id": name}).status_code == 404
    for path in ("/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2f..%2fgallery.py", "/static//etc/passwd"):
        assert client.get(path).status_code in (404, 405)


def test_places_on_the_disk_are_never_told(served_photos, tmp_path, served):
    photos = noise_photos(tmp_path / "private" / "photos", 3)
    shutil.copy(photos / "0.png", photos / "copy.png")
    gallery = Gallery.build(served.coarse, photos, tmp_path / "private" / "g.xr")
    with client_of(gallery) as client:
        answers = [client.post("/api/search", json={"texts": ["snow"]}), client.get("/api/info")]
        assert answers[0].json()["hits"][0]["metadata"].keys() >= {"folder"}
        assert {h["metadata"].get("copies") for h in answers[0].json()["hits"]} == {None, 1}
        (photos / "1.png").unlink()
        (photos / "2.png").write_bytes(b"no longer a picture")
        answers += [client.get("/api/pictures", params={"id": id_}) for id_ in ("1.png", "2.png")]
        answers += [client.post("/api/search", json={"image": id_}) for id_ in ("1.png", "2.png", "3.png")]
        answers += [client.post("/api/search", json={"texts": ["a"], "rerank": 5, "where": {"x": 1}})]
        answers += [client.post("/api/sessions", json={"where": {"folder": "nowhere"}})]
        gallery.remove(gallery.ids)
        answers += [client.post("/api/search", json={"texts": ["a"]}), client.post("/api/sessions", json={})]
    assert [a.status_code for a in answers[2:]] == [404, 404, 404, 400, 404, 400, 400, 400, 400]
    for answer in answers:
        assert str(tmp_path) not in answer.text and "private" not in answer.text


def test_info_health_metrics_and_pages(client):
    health = client.get("/api/health").json()
    assert health["limits"].pop("connections") == 512 and len(health.pop("limits")) > 20
    assert health == {"status": "ok", "pictures": 12, "revision": 1, "waiting": 0,
                      "lanes": {"texts": 0, "uploads": 0, "explanations": 0, "copies": 0}}  # fmt: skip
    info = client.get("/api/info").json()
    assert info["matcher"] == "tiny-sgr" and info["coarse"] == "tiny-dual" and info["regions"]
    client.post("/api/search", json={"texts": ["a dog"]})
    told = client.get("/metrics").text
    assert 'xretrieve_requests_total{path="/api/search",status="200"}' in told and "xretrieve_pictures 12.0" in told
    assert "xretrieve_revision 1.0" in told and "xretrieve_waiting 0.0" in told
    for page in ("/", "/docs"):
        answer = client.get(page)
        assert answer.headers["content-type"].startswith("text/html") and "default-src 'none'" in answer.headers[
            "content-security-policy"]  # fmt: skip
