"""`xretrieve index` and `xretrieve search` with a real, tiny, untrained matcher."""

import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image as PILImage

import xretrieve as xr
from xretrieve.cli.main import main
from xretrieve.data.cache import FeatureCache

pytest.importorskip("timm")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    import torch

    from xretrieve.matcher import Matcher, build_head

    torch.manual_seed(0)
    image = xr.create_backbone("timm:resnet18", modality="image", size=32, pretrained=False, frozen=True)
    text = xr.create_backbone(
        "words", captions=["a red dog in the snow", "a blue sledge"], min_count=1, word_dim=8, dim=16
    )
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    Matcher(image, text, build_head("dual", image, text, dim=16), name="tiny").save(folder / "matcher")
    return folder


@pytest.fixture
def photos(tmp_path):
    root = tmp_path / "my photos"
    (root / "été").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(12):
        picture = PILImage.fromarray(rng.integers(0, 256, (40, 48, 3), dtype=np.uint8))
        picture.save(root / ("été" if i % 3 == 0 else ".") / f"photo {i}.JPG", quality=95)
    return root


def call(capsys, *args):
    """Exit status, stdout, stderr of one command."""
    status = main([str(a) for a in args])
    out = capsys.readouterr()
    return status, out.out, out.err


@pytest.fixture
def built(run, photos, tmp_path, capsys):
    status, out, err = call(capsys, "index", photos, "--model", run, "--out", tmp_path / "g.xr", "--batch-size", 4)
    assert status == 0, err
    return tmp_path / "g.xr", out


def test_index_reports_speed_size_and_the_next_command(built):
    folder, out = built
    assert "12 pictures" in out and "images/s" in out and "index flat, exact" in out
    assert f'search it: xretrieve search {folder} "a dog in the snow"' in out


def test_search_prints_what_python_gives(built, run, capsys):
    folder, _ = built
    status, out, _ = call(capsys, "search", folder, "a red dog", "-k", 3, "--json")
    hits = json.loads(out)["hits"]
    ranking = xr.Gallery.open(folder).search(xr.Text("a red dog"), k=3)
    assert status == 0 and [h["id"] for h in hits] == ranking.ids and [h["score"] for h in hits] == ranking.scores
    matcher = xr.load(run)
    paths = [h.path for h in ranking]
    for cache, within in ((FeatureCache(), 1e-5), (None, 1e-3)):  # the cache keeps local tokens as float16
        scores = matcher.score(matcher.encode_query("a red dog"), matcher.encode_images(paths, cache=cache))[0]
        assert np.allclose(scores.numpy(), ranking.scores, atol=within), "a score is the matcher's own"
    status, table, _ = call(capsys, "search", folder, "a red dog", "-k", 3)
    assert all(id_ in table for id_ in ranking.ids) and "rank" in table


def test_every_kind_of_query(built, photos, tmp_path, capsys):
    folder, _ = built
    picture = photos / "photo 1.JPG"
    status, out, _ = call(capsys, "search", folder, "--image", picture, "-k", 2, "--json")
    assert status == 0 and json.loads(out)["hits"][0]["id"] == "photo 1.JPG"
    _, out, _ = call(capsys, "search", folder, "a sledge", "--and", "a dog", "--and", "snow", "--json", "--explain")
    value = json.loads(out)
    assert value["query"]["texts"] == ["a sledge", "a dog", "snow"]
    for hit in value["hits"]:
        assert np.mean([p["score"] for p in hit["parts"]]) == pytest.approx(hit["score"], abs=1e-5)
    _, out, _ = call(capsys, "search", folder, "blue", "--image", picture, "-k", 99, "--json")
    value = json.loads(out)
    assert (
        "photo 1.JPG" not in [h["id"] for h in value["hits"]]
        and "left out" in value["note"]
        and "all 11 shown" in value["note"]
    )
    _, out, _ = call(capsys, "search", folder, "dog", "--and", "snow", "--explain", "--html", tmp_path / "page.html")
    assert "snow" in out and (tmp_path / "page.html").read_text().count("data:image") == 10


def test_where_filters(built, capsys):
    folder, _ = built
    _, out, _ = call(capsys, "search", folder, "dog", "--where", "folder=été", "--json")
    assert {h["metadata"]["folder"] for h in json.loads(out)["hits"]} == {"été"}
    status, out, err = call(capsys, "search", folder, "dog", "--where", "foldr=x")
    assert status == 2 and "did you mean 'folder'" in err and out == ""


def test_a_folder_that_is_not_there_is_said_before_a_model_is_fetched(tmp_path, capsys):
    status, _, err = call(capsys, "index", tmp_path / "nowhere", "--out", tmp_path / "x.xr")
    assert status == 2 and "no folder and no picture at" in err and "hub" not in err


def test_pictures_that_are_gone_are_said_and_removed_on_request(run, photos, tmp_path, capsys):
    some, folder = tmp_path / "some", tmp_path / "some.xr"
    shutil.copytree(photos, some)
    assert call(capsys, "index", some, "--model", run, "--out", folder)[0] == 0
    (some / "photo 1.JPG").unlink()
    _, out, _ = call(capsys, "index", some, "--add", "--out", folder)
    assert "1 picture no longer on the disk, still found; --add --prune removes them: photo 1.JPG" in out
    assert "photo 1.JPG" in xr.Gallery.open(folder).ids
    status, out, _ = call(capsys, "index", some, "--add", "--prune", "--out", folder, "--json")
    told = json.loads(out)
    assert status == 0 and told["gone"] == ["photo 1.JPG"] and told["images"] == 11
    assert "photo 1.JPG" not in xr.Gallery.open(folder).ids
    status, _, err = call(capsys, "index", some, "--prune", "--out", folder)
    assert status == 2 and "--add" in err


def test_patterns_and_what_was_left_out_are_told(run, photos, tmp_path, capsys):
    (photos / "notes.txt").write_text("no picture")
    command = ["index", photos, "--model", run, "--out", tmp_path / "e.xr", "--exclude", "été", "--exclude", "nothing"]
    status, out, err = call(capsys, *command)
    assert status == 0 and "8 pictures" in out and "left out: 1 file or folder excluded (été/)" in out, err
    assert "left out: 1 other file (.txt 1)" in out and "the pattern 'nothing' matches nothing" in out
    status, out, _ = call(capsys, "index", photos, "--add", "--out", tmp_path / "e.xr", "--json")
    told = json.loads(out)
    assert told["images"] == 8 and told["patterns"]["exclude"] == ["été", "nothing"]
    assert {entry["reason"]: entry["count"] for entry in told["left_out"]} == {"excluded": 1, "other": 1}
    status, out, _ = call(capsys, "index", photos, "--add", "--out", tmp_path / "e.xr", "--exclude", "", "--json")
    assert json.loads(out)["added"] == 4
    exclude = ["--exclude", "photo 1*", "--prune"]
    _, out, _ = call(capsys, "index", photos, "--add", "--out", tmp_path / "e.xr", *exclude)
    assert "9 pictures" in out and "3 pictures left out by the patterns now, removed" in out


def test_add_and_overwrite(built, run, photos, capsys):
    folder, _ = built
    status, _, err = call(capsys, "index", photos, "--model", run, "--out", folder)
    assert status == 2 and "--add" in err and "--overwrite" in err
    shutil.copy(photos / "photo 1.JPG", photos / "copy.jpg")
    PILImage.new("RGB", (30, 30), "red").save(photos / "new.webp")
    (photos / "zero.png").write_bytes(b"")
    (photos / "cut.jpg").write_bytes((photos / "photo 2.JPG").read_bytes()[:700])
    status, out, _ = call(capsys, "index", photos, "--out", folder, "--add", "--json")
    value = json.loads(out)
    assert status == 0 and (value["added"], value["unchanged"], value["duplicates"], value["images"]) == (1, 12, 1, 13)
    assert len(value["failed"]) == 2 and {"zero bytes"} < {entry["reason"] for entry in value["failed"]}
    status, out, _ = call(capsys, "index", photos, "--model", run, "--out", folder, "--overwrite")
    assert (
        status == 0
        and "13 pictures" in out
        and "2 pictures could not be indexed" in out
        and "zero.png: zero bytes" in out
    )
    assert "1 copy of the same content" in out


def test_an_approximate_index_prints_its_recall(run, photos, tmp_path, capsys):
    pytest.importorskip("faiss")
    status, out, err = call(
        capsys, "index", photos, "--model", run, "--out", tmp_path / "h.xr", "--index", "hnsw", "-o", "m=8"
    )
    assert (
        status == 0 and "index hnsw, recall@10 against exact search 1.0000 (12 moved vectors of the gallery; " in out
    ), err
    _, out, _ = call(capsys, "search", tmp_path / "h.xr", "dog", "-k", 2, "--json")
    assert len(json.loads(out)["hits"]) == 2


def test_a_build_that_was_killed_resumes_from_the_cache(run, photos, tmp_path, capsys, monkeypatch):
    from xretrieve.backbones.timm_images import TimmImages

    forward, seen = TimmImages.forward, []

    def counted(self, batch):
        tokens = forward(self, batch)
        if len(tokens) > 1:  # loading a backbone probes it with one picture
            seen.append(len(tokens) if len(seen) != 2 else "killed")
            if seen[-1] == "killed":
                raise KeyboardInterrupt
        return tokens

    monkeypatch.setattr(TimmImages, "forward", counted)
    command = ["index", photos, "--model", run, "--out", tmp_path / "g.xr", "--batch-size", 4]
    monkeypatch.setenv("XRETRIEVE_CACHE", str(tmp_path / "own cache"))
    status, _, err = call(capsys, *command)
    assert (
        status == 130
        and not (tmp_path / "g.xr").exists()
        and sorted(p.name for p in tmp_path.iterdir()) == ["my photos", "own cache"]
    )
    assert call(capsys, *command)[0] == 0
    assert seen == [4, 4, "killed", 4], "only the last four are encoded again"
    assert len(xr.Gallery.open(tmp_path / "g.xr")) == 12


def test_a_dataset_can_be_indexed(run, tmp_path, capsys, data_root):
    from xretrieve.data import datasets

    full = datasets.load("flickr8k", root=data_root, split="test")
    small = type(full)(
        full.name,
        full.split,
        full.image_ids[:6],
        full.images[:6],
        full.captions[:2],
        full.caption_ids[:2],
        np.zeros(2),
        6,
        full.layout,
    )
    gallery = xr.load(run).index(small, tmp_path / "g.xr")
    assert gallery.ids == small.image_ids and {m["split"] for m in gallery.metadata} == {"test"}
    status, out, _ = call(
        capsys, "search", tmp_path / "g.xr", "a dog", "--where", "split=test", "--where", "split=train", "--json"
    )
    assert status == 0 and len(json.loads(out)["hits"]) == 6


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["search", "{g}", "  "], "text query is empty"),
        (["search", "{g}"], "nothing to search for"),
        (["search", "{g}", "--and", "x"], "--and adds to a text"),
        (["search", "{g}", "dog", "--image", "none.jpg"], "no picture at none.jpg"),
        (["search", "{g}", "dog", "-k", "0"], "k is 0"),
        (["search", "{g}", "dog", "--where", "split"], "write key=value"),
        (["search", "none.xr", "dog"], "none.xr is not a gallery (there is no such folder); make one with"),
        (["search", "{p}", "dog"], "`xretrieve index '{p}'` makes my photos.xr of them"),
        (["search", "{g}", "a", "red", "dog"], 'put quotes around it ("a red dog"), and --and before another'),
        (["explain", "{g}", "a", "red", "dog"], 'put quotes around it ("a red dog")'),
        (["search"], "Missing argument 'INDEX'; `xretrieve search --help` says what it takes"),
        (["search", "{g}", "dog", "--model", "none"], "no run folder 'none'"),
        (["index"], "Give a folder of pictures, or --dataset"),
        (["index", "none", "--model", "{run}", "--out", "{t}/x.xr"], "no folder"),
        (["index", "{t}", "--dataset", "flickr8k"], "not both"),
        (
            ["index", "a b", "c"],
            "first `xretrieve index 'a b' --out 'a b.xr'`, then `xretrieve index c --out 'a b.xr' --add`",
        ),
        (["index", "{p}", "--add", "--overwrite"], "--add keeps"),
        (["index", "{p}", "--model", "{run}", "--out", "{p}"], "not a gallery; choose another"),
        (["index", "{p}", "--model", "{run}", "--out", "{t}/x.xr", "--index", "hsnw"], "did you mean 'hnsw'"),
        (["index", "{p}", "--out", "{t}/none.xr", "--add"], "is not a gallery"),
    ],
)
def test_bad_input_is_one_line_on_stderr_and_status_2(built, run, photos, tmp_path, capsys, args, message):
    names = {"g": built[0], "run": run, "t": tmp_path, "p": photos}
    status, out, err = call(capsys, *[a.format(**names) for a in args])
    assert status == 2 and message.format(**names) in err and err.count("\n") == 1 and out == ""


def test_a_search_in_the_folder_of_the_pictures_names_their_gallery(built, run, photos, capsys, monkeypatch):
    monkeypatch.chdir(built[0].parent)
    assert call(capsys, "index", photos, "--model", run)[0] == 0
    status, _, err = call(capsys, "search", photos, "dog")
    assert status == 2 and "is not a gallery (no gallery.json); did you mean my photos.xr?" in err


def test_when_no_picture_can_be_indexed_the_commonest_reason_is_told(run, photos, tmp_path, capsys):
    for path in photos.rglob("*.JPG"):
        path.write_bytes(path.read_bytes()[:900])
    (photos / "a.jpg").write_bytes(b"")
    status, _, err = call(capsys, "index", photos, "--model", run, "--out", tmp_path / "x.xr")
    assert status == 2 and "none of the 13 pictures could be indexed; 12 of them, the first" in err
    assert "zero bytes" not in err and not (tmp_path / "x.xr").exists()


def test_an_index_of_another_model_is_refused(built, run, tmp_path, capsys):
    import torch

    other = xr.load(run)
    torch.nn.init.constant_(next(other.head.parameters()), 0.5)
    other.save(tmp_path / "other" / "matcher")
    status, _, err = call(capsys, "search", built[0], "dog", "--model", tmp_path / "other")
    made, given = xr.load(run).fingerprint(), other.fingerprint()
    assert status == 2 and made in err and given in err and "cannot be compared" in err


def test_a_matcher_that_moved_asks_for_model(built, run, tmp_path, capsys):
    moved = shutil.copytree(run, tmp_path / "moved")
    info = json.loads((built[0] / "gallery.json").read_text())
    info["matcher"]["source"] = str(tmp_path / "gone")
    (built[0] / "gallery.json").write_text(json.dumps(info))
    status, _, err = call(capsys, "search", built[0], "dog")
    assert status == 2 and "cannot be loaded" in err and "--model" in err
    assert call(capsys, "search", built[0], "dog", "--model", moved)[0] == 0


def test_one_picture_can_be_indexed(run, photos, tmp_path, capsys):
    status, out, err = call(capsys, "index", photos / "photo 1.JPG", "--model", run, "--out", tmp_path / "one.xr")
    assert status == 0 and "1 picture," in out, err


def test_names_that_the_terminal_cannot_write_are_escaped_and_json_stays_json(built, photos, monkeypatch):
    folder, _ = built
    (photos / "собака 🐶 é.jpg").write_bytes((photos / "photo 1.JPG").read_bytes() + b"\0")
    assert main(["index", str(photos), "--out", str(folder), "--add"]) == 0
    for encoding in ("ascii", "cp1252", "utf-8"):
        said = []
        for how in ("--json", "--explain"):
            out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
            monkeypatch.setattr("sys.stdout", out)
            assert main(["search", str(folder), "a red dog", "-k", "99", how]) == 0
            # typer writes UTF-8 where a stream says that it takes ASCII only
            said.append(out.buffer.getvalue().decode("utf-8" if encoding == "ascii" else encoding))
            monkeypatch.undo()
        assert "собака 🐶 é.jpg" in [hit["id"] for hit in json.loads(said[0])["hits"]]
        assert ("собака" in said[1] or "\\u0441" in said[1]) and "photo 1.JPG" in said[1]


def test_bytes_that_are_no_text_are_one_sentence_or_kept(built, photos, tmp_path, capsys):
    folder, _ = built
    status, out, err = call(capsys, "search", folder, b"caf\xe9".decode("utf-8", "surrogateescape"))
    assert status == 2 and out == "" and "text query is not valid text" in err and len(err.splitlines()) == 1
    odd = tmp_path / b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    odd.write_bytes((photos / "photo 1.JPG").read_bytes())
    page = tmp_path / b"page\xe9.html".decode("utf-8", "surrogateescape")
    status, out, err = call(capsys, "search", folder, "--image", odd, "-k", 1, "--json", "--html", page)
    assert status == 0 and json.loads(out)["query"]["image"] == str(odd) and page.read_bytes().decode("utf-8")


def test_a_text_where_a_path_is_expected_is_one_sentence(built, photos, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    long = "a very long sentence " * 40
    named = {"G": str(built[0]), "P": str(photos), "L": long, "L.yaml": long + ".yaml"}
    for line in (
        "search G --image L", "search L dog", "search G dog --model L", "search G dog --html L", "index L",
        "index P --out L", "index P --model L", "train L", "train L.yaml", "evaluate L", "explain L dog",
        "evaluate L --dataset scenes", "compare L L", "export L --out x", "import L scan --out x", "serve L", "tune L",
        "data check flickr8k --root L", "leaderboard --file L", "index ~nobody-there/x",
        "search G --image ~nobody-there/x",
    ):  # fmt: skip
        status, _, err = call(capsys, *(named.get(arg, arg) for arg in line.split()))
        assert (status == 2) == bool(err) and len(err.splitlines()) <= 1 and len(err) < 1100, (line, err)


def test_a_disk_that_fails_is_one_sentence(built, capsys, monkeypatch):
    def broken(self):
        raise OSError(5, "Input/output error", str(self))

    monkeypatch.setattr("pathlib.Path.is_file", broken)
    monkeypatch.setattr("pathlib.Path.exists", broken)
    for args in (["search", built[0], "dog"], ["search", built[0], "--image", "x.jpg"], ["evaluate", built[0]],
                 ["train", "x.yaml"], ["compare", built[0], built[0]], ["data", "check", "flickr8k"]):  # fmt: skip
        status, _, err = call(capsys, *args)
        assert status in (1, 2) and "Traceback" not in err and len(err.splitlines()) <= 1, err
