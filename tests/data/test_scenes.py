"""The built-in `scenes` pictures: true sentences, near-duplicates one edit apart, the same bytes everywhere."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from xretrieve.data import scenes
from xretrieve.data.scenes import SceneOptions, contact_sheet, load
from xretrieve.data.scenes.build import build_split
from xretrieve.data.scenes.captions import TEMPLATES
from xretrieve.data.scenes.ceiling import Truth, ceilings
from xretrieve.data.scenes.changes import may_mean
from xretrieve.data.scenes.generate import generate
from xretrieve.data.scenes.render import png_bytes, render
from xretrieve.data.scenes.sample import KINDS, draw_scene, edit_between
from xretrieve.data.scenes.scene import Claim, Description, Draw, Scene, Thing, describe, related
from xretrieve.data.scenes.vocabulary import COLOURS, NUMBERS, PLACES, SHAPES, TEXTURES
from xretrieve.errors import XRetrieveError

SMALL = {"train": 12, "val": 6, "test": 24, "size": 64}
OPTIONS = SceneOptions(test=300)


@pytest.fixture(scope="module")
def built():
    return build_split(OPTIONS, "test")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return generate(tmp_path_factory.mktemp("scenes") / "small", SceneOptions(**SMALL))


def test_every_template_says_only_what_is_true_of_its_scene() -> None:
    said = dict.fromkeys((t.__name__ for t in TEMPLATES), 0)
    for i in range(400):
        scene = draw_scene(Draw(f"scene {i}"), 2, 6)
        for template in TEMPLATES:
            caption = template(Draw(f"{i} {template.__name__}"), scene, scene.things[:1])
            if caption is not None:
                assert caption[1].holds(scene), (caption, scene)
                said[template.__name__] += 1
    assert min(said.values()) > 200


def test_a_caption_names_the_shapes_colours_and_places_of_its_claim(built) -> None:
    """The words are checked against the claim, so that a true claim cannot hide a false sentence."""
    for picture in built[0]:
        for text, claim in [*picture.captions, *((t, c) for t, c, _ in picture.turns)]:
            lower = f" {text.lower()} "
            for said in claim.things:
                if said.shape:
                    assert any(one in lower for one, _ in SHAPES[said.shape]), (text, said)
                if said.colour and not any(d.colour == said.colour for d, _ in claim.counts):
                    assert any(word in lower for word in COLOURS[said.colour][1]), (text, said)
                if said.texture and not any(d.texture == said.texture for d, _ in claim.counts):
                    adjectives, additions = TEXTURES[said.texture]
                    assert any(word in lower for word in adjectives + additions), (text, said)
                if said.row is not None and said.col is not None and not claim.counts:
                    assert any(where in lower for where in PLACES[said.row, said.col]), (text, said)
            bare = lower.translate({ord(c): " " for c in ",.;:"})
            named = {shape for shape, ways in SHAPES.items() for pair in ways for way in pair if f" {way} " in bare}
            meant = {d.shape for d in claim.things} | {d.shape for d, _ in claim.counts}
            assert named <= meant, (text, claim)


def test_captions_are_five_and_varied(built) -> None:
    for picture in built[0]:
        texts = [text for text, _ in picture.captions]
        assert len(texts) == len(set(texts)) == 5
        assert all(text[0].isupper() and text.endswith(".") for text in texts)
        assert all(claim.holds(picture.scene) for _, claim in picture.captions)
    words = [len(text.split()) for p in built[0] for text, _ in p.captions]
    assert min(words) <= 5 and max(words) >= 18
    assert any(number in text.lower().split() for p in built[0] for text, _ in p.captions for number in NUMBERS[2:5])


def test_region_captions_do_not_repeat_and_point_at_one_thing(built) -> None:
    for picture in built[0]:
        texts = [text for text, _, _ in picture.turns]
        assert len(texts) == len(set(texts)) == OPTIONS.turns
        subjects = [subject for _, _, subject in picture.turns]
        count = len(picture.scene.things)
        assert sorted(subjects[:count]) == sorted(picture.scene.things)  # the first ones give each thing one
        for _, claim, subject in picture.turns:
            assert claim.holds(picture.scene)
            if isinstance(subject, Thing):
                assert claim.things[0].fits(subject) and claim.things[0].count(picture.scene) == 1
            else:
                assert subject in picture.scene.free_places()


def test_all_region_captions_together_are_true_of_one_picture_only(built) -> None:
    pictures, _ = built
    for picture in pictures:
        fitting = [p.id for p in pictures if all(claim.holds(p.scene) for _, claim, _ in picture.turns)]
        assert fitting == [picture.id]


def test_families_differ_in_one_edit_and_stay_together(built) -> None:
    pictures, changes = built
    inside = [p for p in pictures if p.family_size > 1]
    assert 0.3 < len(inside) / len(pictures) < 0.7
    assert {c.edit.kind for c in changes} == set(KINDS)
    for change in changes:
        a, b = pictures[change.reference], pictures[change.target]
        assert a.family == b.family and edit_between(a.scene, b.scene) == change.edit
        back = next(c for c in changes if (c.reference, c.target) == (change.target, change.reference))
        assert (back.edit.old, back.edit.new) == (change.edit.new, change.edit.old)
    assert len({p.scene.signature() for p in pictures}) == len(pictures)


def test_modification_texts_say_the_new_value_and_differ(built) -> None:
    pictures, changes = built
    for change in changes:
        assert len(set(change.texts)) == 2
        if change.edit.kind in ("add", "shape"):
            assert any(way in text for text in change.texts[:1] for way, _ in SHAPES[change.edit.new.shape])
        if change.edit.kind == "colour":
            assert all(any(w in text for w in COLOURS[change.edit.new.colour][1]) for text in change.texts)
        siblings = [p.scene for p in pictures if p.family == pictures[change.reference].family]
        edits = [edit_between(pictures[change.reference].scene, s) for s in siblings]
        assert sum(e is not None and may_mean(change.edit, e) for e in edits) == 1


def test_relations_are_as_people_see_them() -> None:
    def at(row, col, front=False):
        return Thing("star", "red", "small", "plain", row, col, front)

    assert related(at(1, 0), "left of", at(1, 2)) and not related(at(1, 2), "left of", at(1, 0))
    assert related(at(0, 1), "above", at(2, 1)) and related(at(2, 1), "below", at(0, 1))
    assert not related(at(0, 0), "left of", at(2, 1))  # mostly above
    assert related(at(1, 1), "next to", at(1, 2)) and not related(at(1, 0), "next to", at(1, 2))
    assert related(at(1, 1, True), "in front of", at(1, 1)) and related(at(1, 1), "behind", at(1, 1, True))


def test_a_claim_of_two_things_needs_two_things() -> None:
    star = Thing("star", "red", "small", "plain", 0, 0)
    scene = Scene("grey", (star, Thing("ring", "blue", "small", "plain", 0, 1)))
    red, a_star = Description(colour="red"), Description(shape="star")
    assert Claim((red,)).holds(scene) and Claim((a_star,)).holds(scene)
    assert not Claim((red, a_star)).holds(scene)
    assert not Claim(counts=((red, 2),)).holds(scene) and not Claim(background="dark").holds(scene)


def test_the_ceiling_is_what_a_plain_loop_over_all_pairs_finds() -> None:
    pictures, changes = build_split(SceneOptions(test=60), "test")
    meant = [sum(claim.holds(p.scene) for p in pictures) for picture in pictures for _, claim in picture.captions]
    found = ceilings(pictures, changes)
    assert found["t2i"]["R@1"] == round(100 * float(np.mean([1 / m for m in meant])), 2)
    assert found["ambiguous_captions"] == sum(m > 1 for m in meant)
    assert found["multi_query"] == sorted(found["multi_query"]) and found["multi_query"][-1] == 100


def test_captions_mostly_identify_their_picture_but_not_always(built) -> None:
    found = ceilings(*built)
    assert 60 < found["t2i"]["R@1"] < 95
    assert found["ambiguous_sets"] == 0 and found["composed"]["R@1"] > 99
    assert Truth([p.scene for p in built[0]]).count(describe(built[0][0].scene.things[0], "shape"))[0] >= 1


def test_boxes_hold_the_thing_and_lie_in_the_picture(folder) -> None:
    for line in (folder / "annotations.jsonl").read_text().splitlines():
        row = json.loads(line)
        for thing in row["objects"]:
            x, y, w, h = thing["box"]
            assert 0 <= x and 0 <= y and x + w <= 64 and y + h <= 64 and min(w, h) >= 4
            assert int((x + w / 2) * 3 / 64) == thing["col"] and int((y + h / 2) * 3 / 64) == thing["row"]


def test_a_box_is_where_the_pixels_change() -> None:
    scene = Scene("cream", (Thing("heart", "blue", "large", "plain", 1, 1),))
    picture, [(x, y, w, h)] = render(scene, "heart", 96)
    blue = picture[:, :, 2].astype(int) - picture[:, :, 0] > 40
    ys, xs = np.nonzero(blue)
    assert abs(xs.min() - x) <= 2 and abs(ys.min() - y) <= 2
    assert abs(xs.max() - (x + w - 1)) <= 2 and abs(ys.max() - (y + h - 1)) <= 2


def test_two_pictures_of_one_scene_differ_in_most_pixels() -> None:
    scene = draw_scene(Draw("same"), 4, 4)
    one, other = render(scene, "one", 96)[0], render(scene, "other", 96)[0]
    assert (one != other).any(-1).mean() > 0.8


def test_png_bytes_are_read_back_unchanged() -> None:
    picture = render(draw_scene(Draw("png"), 3, 3), "png", 200)[0]  # more than one stored block of 64 KiB
    assert (np.asarray(Image.open(io.BytesIO(png_bytes(picture)))) == picture).all()


def digest(folder: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        total.update(path.relative_to(folder).as_posix().encode())
        total.update(path.read_bytes())
    return total.hexdigest()


def test_same_seed_same_bytes_in_another_process(folder, tmp_path) -> None:
    code = (
        "import sys; from xretrieve.data.scenes import SceneOptions\n"
        "from xretrieve.data.scenes.generate import generate\n"
        f"generate(sys.argv[1], SceneOptions(**{SMALL!r}))"
    )
    root = Path(__file__).resolve().parents[2]
    env = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(root)}
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "again")], check=True, env=env)
    assert digest(tmp_path / "again") == digest(folder)


def test_bytes_are_those_of_every_other_machine(folder) -> None:
    """A change here changes everybody's data: raise VERSION in options.py, and say so."""
    assert hashlib.sha256((folder / "annotations.jsonl").read_bytes()).hexdigest()[:16] == "618e1967c08b43c2"
    assert hashlib.sha256((folder / "triplets.jsonl").read_bytes()).hexdigest()[:16] == "a492bb0301893873"
    pixels = b"".join(Image.open(folder / "images" / f"test-{i:05d}.png").tobytes() for i in range(8))
    assert hashlib.sha256(pixels).hexdigest()[:16] == "1b466a38385fa59a"


def test_a_picture_does_not_depend_on_how_many_there_are() -> None:
    few, many = (build_split(SceneOptions(test=n), "test")[0] for n in (20, 60))
    assert few == many[:20]


def test_splits_and_seeds_differ() -> None:
    drawn = [
        [p.scene for p in build_split(SceneOptions(seed=seed, val=20, test=20), split)[0]]
        for seed, split in ((0, "val"), (0, "test"), (1, "test"))
    ]
    assert drawn[0] != drawn[1] != drawn[2]


def test_load_gives_regions_triplets_and_metadata(folder) -> None:
    test = load(folder, "test")
    assert (len(test), len(test.captions), test.layout, test.coverage) == (24, 120, "scenes", 1.0)
    assert all(len(r) == 10 for r in test.regions) and test.triplets
    assert test.metadata[3].keys() == {"split", "objects", "background", "family", "family_size"}
    for triplet in test.triplets:
        assert test.metadata[triplet.reference]["family"] == test.metadata[triplet.target]["family"]
    assert len(load(folder, "train", **SMALL)) == 12


def test_load_generates_once_below_the_root_and_in_the_cache(tmp_path, monkeypatch) -> None:
    tiny = {**SMALL, "train": 2, "val": 2, "test": 3}
    monkeypatch.setenv("XRETRIEVE_CACHE", str(tmp_path / "cache"))
    first = load(None, "test", **tiny)
    assert scenes.found() == [f"scenes-{SceneOptions(**tiny).key} (7 pictures)"]
    stamp = first.images[0].stat().st_mtime_ns
    assert first.images[0].is_relative_to(tmp_path / "cache" / "scenes")
    assert load(None, "test", **tiny).images[0].stat().st_mtime_ns == stamp
    assert load(tmp_path, "val", **tiny).images[0].parts[-3] == f"scenes-{SceneOptions(**tiny).key}"


def test_a_missing_picture_lowers_the_coverage_and_takes_its_triplets_along(folder, tmp_path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    whole = load(copy, "test")
    gone = whole.triplets[0].target
    whole.images[gone].unlink()
    part = load(copy, "test")
    assert len(part) == 23 and part.expected_images == 24 and len(part.captions) == 115
    assert len(part.triplets) < len(whole.triplets)
    assert {(part.image_ids[t.reference], part.image_ids[t.target]) for t in part.triplets} < {
        (whole.image_ids[t.reference], whole.image_ids[t.target]) for t in whole.triplets
    }


def test_a_stopped_generation_leaves_nothing_behind(tmp_path) -> None:
    def stop(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(tmp_path / "out", SceneOptions(**SMALL), stop)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"trian": 5}, "did you mean 'train'"),
        ({"size": 8}, "48 to 1024"),
        ({"max_objects": 1}, "min_objects <= max_objects"),
        ({"families": 2.0}, "share"),
        ({"turns": 4}, "turns=9"),
        ({"test": -1}, "test=-1"),
        ({"size": "big"}, "expected int"),
    ],
)
def test_wrong_options_are_named(tmp_path, options, words) -> None:
    with pytest.raises(XRetrieveError, match=words):
        load(tmp_path, "test", **options)
    assert not list(tmp_path.iterdir())


def test_wrong_folders_and_splits_are_named(folder, tmp_path) -> None:
    with pytest.raises(XRetrieveError, match="did you mean 'test'"):
        load(folder, "tset")
    with pytest.raises(XRetrieveError, match="generated with seed=0, not 5"):
        load(folder, "test", seed=5)
    with pytest.raises(XRetrieveError, match="has no pictures"):
        load(tmp_path, "val", train=1, val=0, test=1)
    other = tmp_path / "other"
    other.mkdir()
    (other / "meta.json").write_text("{}")
    with pytest.raises(XRetrieveError, match="does not belong to a scenes folder"):
        load(other, "test")
    (other / "meta.json").write_text((folder / "meta.json").read_text())
    (other / "annotations.jsonl").write_text('{"split": "test"')
    with pytest.raises(XRetrieveError, match="line 1"):
        load(other, "test")


def test_a_root_that_cannot_be_written_is_named(tmp_path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(XRetrieveError, match="cannot be generated in .*XRETRIEVE_CACHE"):
        load(tmp_path / "file", "test", **SMALL)


def test_different_options_never_share_a_folder() -> None:
    base = SceneOptions()
    keys = {base.key}
    for field in dataclasses.fields(SceneOptions):
        value = {"families": 0.25, "min_objects": 3}.get(field.name, getattr(base, field.name) + 1)
        keys.add(dataclasses.replace(base, **{field.name: value}).key)
    assert len(keys) == 1 + len(dataclasses.fields(SceneOptions))


def test_contact_sheet_shows_captions_or_boxes(folder) -> None:
    test = load(folder, "test")
    plain, boxed = contact_sheet(test, 4), contact_sheet(test, 4, boxes=True)
    assert plain.mode == "RGB" and plain.width > 3 * 240 and boxed.height > plain.height
    assert contact_sheet(test, 100).height > plain.height
    with pytest.raises(XRetrieveError, match="1 or more"):
        contact_sheet(test, 0)


def test_positives_of_triplets_are_the_pictures_that_the_ceiling_counts(tmp_path) -> None:
    data = load(tmp_path, "test", train=0, val=0, test=120, families=1.0)
    numbers = [len(t.positives) for t in data.triplets]
    meta = json.loads((Path(data.images[0]).parent.parent / "meta.json").read_text())
    assert meta["splits"]["test"]["ceiling"]["composed"]["R@1"] == round(100 * np.mean([1 / n for n in numbers]), 2)
    assert all(t.target in t.positives and t.reference not in t.positives for t in data.triplets)
    assert len(numbers) > 50


def test_two_processes_draw_the_same_files_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[generate.__module__], "CHUNK", 3)
    options = SceneOptions(train=7, val=2, test=2, size=48)
    told: list[tuple[int, int]] = []
    one = generate(tmp_path / "one", options)
    two = generate(tmp_path / "two", options, lambda done, total: told.append((done, total)), jobs=2)
    assert told == [(n + 1, 11) for n in range(11)]
    files = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert len(files) == 7 + 2 + 2 + 3
    assert files == sorted(path.relative_to(two) for path in two.rglob("*") if path.is_file())
    assert all((one / name).read_bytes() == (two / name).read_bytes() for name in files)
