"""Training on composed queries: blocks, duplicates, second views, chunks, stages that run, resume and are skipped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

import xretrieve as xr
from tests.training.composed_recipes import tiny_composed
from xretrieve.data.base import Triplet
from xretrieve.data.triplets import ComposedDataset
from xretrieve.errors import XRetrieveError
from xretrieve.training.build import Split, build_matcher, load_split
from xretrieve.training.chunked import encode_chunked
from xretrieve.training.composed_trainee import Attributes, flip_and_crop
from xretrieve.training.feeds import LiveFeed
from xretrieve.training.losses import create_loss
from xretrieve.training.recipe import Recipe
from xretrieve.training.run import resolve, train
from xretrieve.training.tasks import create_work
from xretrieve.training.triplet_data import Tags, items_of, triplet_duplicates, with_texts
from xretrieve.training.triplets import ComposedScores, protocol_of, triplet_data


def made(recipe: Recipe, stage: int) -> tuple[Any, Any, Any]:
    """Matcher, work and trainee of a stage, both sides encoded in the step."""
    data = triplet_data(recipe, [load_split(recipe.dataset, split) for split in ("train", "val")])
    torch.manual_seed(0)
    matcher = build_matcher(recipe, data[0].captions + data[1].captions)
    splits = [Split(d, LiveFeed(matcher.image, d.images), LiveFeed(matcher.text, d.captions)) for d in data]
    config = recipe.stages[stage]
    work = create_work(recipe, splits, config)
    work.modules(matcher.head)
    loss = create_loss(config.loss.name, **config.loss.options)
    return matcher, work, work.trainee(matcher.head, loss, matcher.image, matcher.text)


def small(triplets: list[Triplet], images: int = 6, **more: Any) -> ComposedDataset:
    return ComposedDataset(
        name="toy", split="train", image_ids=[f"i{n}" for n in range(images)], images=[Path("x")] * images,
        captions=[f"thing {n}" for n in range(images)], caption_ids=[str(n) for n in range(images)],
        owner=np.arange(images), expected_images=images, layout="toy", triplets=triplets, **more,
    )  # fmt: skip


# data ------------------------------------------------------------------------------------------------------------


def test_modification_texts_stand_behind_the_descriptions_once_each() -> None:
    data = small([Triplet(0, ("is red", "long"), 1), Triplet(1, ("is red", "long"), 2), Triplet(2, ("is big",), 3)])
    said = with_texts(data, "and-random", "and")
    assert said.described == 6 and said.captions[:6] == data.captions
    assert said.captions[6:] == ["Is red and long", "Long and is red", "Is red", "Long", "Is big"]
    assert said.asked == [[6, 7, 8, 9], [6, 7, 8, 9], [10, 10, 10, 10]]
    assert [said.captions[said.place[text]] for text in said.place] == list(said.place)
    assert len(said.captions) == len(said.caption_ids) == len(said.owner)
    plain = said.descriptions()
    assert plain.captions == data.captions and len(plain.owner) == 6
    with pytest.raises(XRetrieveError, match="and-random"):
        with_texts(data, "and-rondom")


def test_duplicates_are_shared_targets_positives_and_agreeing_metadata() -> None:
    triplets = [Triplet(0, ("a",), 1, positives=(1, 3)), Triplet(2, ("b",), 1), Triplet(4, ("c",), 3),
                Triplet(5, ("d",), 4)]  # fmt: skip
    about = [{"colour": c, "kind": "x"} for c in ("red", "red", "blue", "green", "red", "red")]
    data = small(triplets, metadata=about)
    same = triplet_duplicates(data, np.arange(4)).int().tolist()
    assert same == [[0, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]  # not symmetric: 0 also wants 3
    agreeing = triplet_duplicates(data, np.arange(4), ["colour", "kind"])
    assert agreeing.int().tolist() == [[0, 1, 1, 1], [1, 0, 0, 1], [0, 0, 0, 0], [1, 1, 0, 0]]


def test_what_is_known_of_tags() -> None:
    tags = [["colour=red", "use=sports"], ["colour=red"], ["colour=blue", "soft"], ["colour=blue", "soft"], [], []]
    found = Tags.of(small([Triplet(0, ("a",), 1)], metadata=[{"tags": t} for t in tags]))
    assert found.names == ["colour=blue", "colour=red", "soft"]  # one image alone has use=sports
    assert found.value[0].tolist() == [False, True, False]
    assert found.known.tolist() == [[True, True, False]] * 2 + [[True, True, True]] * 2 + [[False] * 3] * 2
    with pytest.raises(XRetrieveError, match="domain.tasks"):
        Tags.of(small([Triplet(0, ("a",), 1)]))


def test_the_attribute_loss_counts_known_entries_only() -> None:
    reads, raw = Attributes(3, 2), torch.randn(2, 3)
    value, known = torch.tensor([[True, False], [False, True]]), torch.tensor([[True, False], [False, False]])
    wanted = -torch.nn.functional.logsigmoid(reads.read(raw)[0, 0])
    assert_close(reads(raw, value, known), wanted)
    assert float(reads(raw, value, torch.zeros_like(known)).detach()) == 0


# blocks ----------------------------------------------------------------------------------------------------------


def test_a_block_of_triplets_pairs_references_texts_and_targets() -> None:
    recipe = tiny_composed()
    _, work, _ = made(recipe, 1)
    batch = work.sampler(recipe.stages[1], 1, 1).epoch(0)[0]
    (pictures, place), texts, duplicates = work.block(recipe.stages[1], batch, np.random.default_rng(0), 0, 1)
    rows = batch[0]
    distinct = np.unique(np.concatenate([work.reference[rows], work.target[rows]]))
    assert len(pictures) == len(distinct)  # each picture is encoded once
    whole = work.train.images.take(np.concatenate([work.reference[rows], work.target[rows]]))
    assert torch.equal(pictures[place], whole)
    assert duplicates.shape == (12, 12) and not duplicates.diagonal().any()
    said = {tuple(work.train.texts.take(np.array(work.data.asked[row]))["ids"][0].tolist()) for row in rows[:1]}
    assert len(texts["ids"]) == 12 and said


def test_a_triplet_that_asks_for_its_own_reference_is_not_trained_on() -> None:
    recipe = tiny_composed()
    _, work, _ = made(recipe, 1)
    data = work.data
    t = data.triplets[3]
    data.triplets[3] = replace(t, target=t.reference, positives=())
    again = create_work(recipe, [work.train, work.val], recipe.stages[1])
    assert not again.usable[3] and again.usable.sum() == work.usable.sum() - 1
    assert 3 not in np.concatenate([b.ravel() for b in again.sampler(recipe.stages[1], 1, 1).epoch(0)])


def test_second_views_are_another_photo_of_the_item_then_shared_tags_then_the_photo_itself() -> None:
    _, work, _ = made(tiny_composed(domain={"shared_tags": 2}), 0)
    rng = np.random.default_rng(0)
    assert {work._view(0, rng) for _ in range(20)} == {1}  # the other photo of item a
    assert {work._view(2, rng) for _ in range(40)} == {3, 4}  # two tags in common
    assert work._view(5, rng) == 5  # nothing like it
    assert items_of(work.data)[0] == items_of(work.data)[1]


@pytest.fixture(autouse=True)
def _tags(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scenes with made-up items and tags on the first six pictures."""
    import xretrieve.training.triplets as module

    plain = module.with_texts

    def with_tags(data: Any, mode: str, queries: str = "") -> Any:
        said = plain(data, mode, queries)
        tags = [["x=1", "y=1"], ["x=2"], ["x=3", "y=3"], ["x=3", "y=3"], ["x=3", "y=3", "z=1"], ["z=2"]]
        about = [{"item": "a"}, {"item": "a"}, {}, {}, {}, {}]
        said.metadata = [{**m, **a, "tags": t} for m, a, t in zip(said.metadata, about, tags, strict=False)] + [
            {"tags": ["w=1"]} for _ in said.metadata[6:]
        ]
        return said

    monkeypatch.setattr(module, "with_texts", with_tags)


def test_a_photo_without_a_second_view_is_flipped_and_cropped_twice() -> None:
    recipe = tiny_composed(domain={"tasks": ["i2i"]})
    _, work, trainee = made(recipe, 0)
    stage = recipe.stages[0]
    rows = np.array([[0, 7, 8]])
    (taken,), texts, duplicates = work.block(stage, rows, np.random.default_rng(0), 0, 1)
    plain = work.train.images.take(np.array([0, 7, 8, 1, 7, 8]))
    changed = [not torch.equal(a, b) for a, b in zip(taken, plain, strict=True)]
    assert changed == [False, True, True, False, True, True] and texts == ()
    assert not torch.equal(taken[1], taken[4])
    again = work.block(stage, rows, np.random.default_rng(0), 0, 1)[0][0]
    assert torch.equal(again, taken)
    loss, stats = trainee((taken,), texts, duplicates)
    assert float(loss) == pytest.approx(float(stats["i2i_loss"])) and "t2i_loss" not in stats


def test_flip_and_crop_changes_no_colour_and_keeps_the_kind_of_numbers() -> None:
    flat = torch.full((4, 3, 9, 9), 200, dtype=torch.uint8)
    assert torch.equal(flip_and_crop(flat, np.random.default_rng(0)), flat)
    ramp = torch.linspace(0, 1, 8).expand(30, 3, 8, 8).contiguous()
    seen = flip_and_crop(ramp, np.random.default_rng(0), smallest=1.0)
    same, mirrored = (((seen - other).abs().amax((1, 2, 3)) < 1e-4) for other in (ramp, ramp.flip(3)))
    assert bool((same | mirrored).all()) and 5 < int(same.sum()) < 25


# steps -----------------------------------------------------------------------------------------------------------


HEADS = ("progressive", "combiner", "tirg", "dqu", "sum", "constant", "image_only", "text_only")


@pytest.mark.parametrize("head", HEADS)
def test_every_head_takes_a_step_in_both_stages(head: str) -> None:
    for stage in (0, 1):
        recipe = tiny_composed(head)
        matcher, work, trainee = made(recipe, stage)
        batch = work.sampler(recipe.stages[stage], stage, 1).epoch(0)[0]
        loss, stats = trainee.train()(*work.block(recipe.stages[stage], batch, np.random.default_rng(0), 0, 1))
        loss.backward()
        assert torch.isfinite(loss.detach()) and all(np.isfinite(float(v)) for v in stats.values())
        assert any(p.grad is not None and p.grad.abs().max() > 0 for p in matcher.head.parameters())


def test_the_label_is_added_where_weights_are_learned_and_left_out_by_its_switch() -> None:
    def step(head: str, **composition: Any) -> tuple[float, dict[str, Any]]:
        recipe = tiny_composed(head, composition=composition)
        matcher, work, trainee = made(recipe, 1)
        batch = work.sampler(recipe.stages[1], 1, 1).epoch(0)[0]
        loss, stats = trainee.eval()(*work.block(recipe.stages[1], batch, np.random.default_rng(0), 0, 1))
        return float(loss), stats

    without, plain = step("progressive", label="none")
    with_label, stats = step("progressive", label="cosine", label_weight=2.0)
    assert "label_loss" not in plain and float(stats["label_loss"]) > 0
    assert with_label == pytest.approx(without + 2 * float(stats["label_loss"]), rel=1e-5)
    assert "label_loss" not in step("combiner", label="cosine")[1]
    assert float(stats["weight_image"]) == pytest.approx(0.5)


def test_soft_triplet_trains_on_the_scaled_vectors() -> None:
    recipe = tiny_composed("tirg", loss="soft_triplet")
    matcher, work, trainee = made(recipe, 1)
    batch = work.sampler(recipe.stages[1], 1, 1).epoch(0)[0]
    loss, _ = trainee.train()(*work.block(recipe.stages[1], batch, np.random.default_rng(0), 0, 1))
    loss.backward()
    assert matcher.head.network.normalization_layer.norm_s.grad.abs() > 0


@pytest.mark.parametrize("stage", [0, 1])
def test_chunks_give_the_loss_and_the_gradients_of_the_whole_batch(stage: int) -> None:
    found = []
    for chunk in (0, 5):
        recipe = tiny_composed(frozen=False, chunk=chunk)
        matcher, work, trainee = made(recipe, stage)
        trainee.eval()  # batch norms would see a chunk's statistics
        batch = work.sampler(recipe.stages[stage], stage, 1).epoch(0)[0]
        loss, _ = trainee(*work.block(recipe.stages[stage], batch, np.random.default_rng(0), 0, 1))
        loss.backward()
        grads = {n: p.grad for n, p in trainee.named_parameters() if p.grad is not None}
        found.append((loss.detach(), grads))
    assert_close(found[0][0], found[1][0])
    assert found[0][1].keys() == found[1][1].keys() and any(n.startswith("image.") for n in found[0][1])
    for name, grad in found[0][1].items():
        assert_close(grad, found[1][1][name], rtol=1e-4, atol=1e-5, msg=name)


def test_chunks_move_running_statistics_once_each_and_keep_no_activations() -> None:
    backbone = xr.create_backbone("timm:test_resnet", modality="image", pretrained=False, size=32, mean=0.5, std=0.5)
    pictures = torch.randint(0, 255, (6, 3, 32, 32), dtype=torch.uint8)
    backbone.train()
    tokens = encode_chunked(backbone, pictures, 2)
    norm = next(m for m in backbone.modules() if isinstance(m, torch.nn.BatchNorm2d))
    before = {name: value.clone() for name, value in norm.named_buffers()}
    assert int(before["num_batches_tracked"]) == 3
    tokens.pooled.sum().backward()
    for name, value in norm.named_buffers():
        assert torch.equal(value, before[name]), name


# runs ------------------------------------------------------------------------------------------------------------


def test_stages_run_in_order_and_the_headline_is_that_of_the_evaluation(tmp_path: Path) -> None:
    run = train(tiny_composed(), out=tmp_path / "run")
    assert [row["stage"] for row in run.log] == ["domain", "composition", "composition"]
    assert "rsum" in run.log[0] and "headline" in run.log[2] and "headline" not in run.log[0]
    assert any("stage 1: unaligned" in line for line in run.report.warnings)
    recipe, matcher = run.recipe, run.matcher()
    data = triplet_data(recipe, [load_split(recipe.dataset, "test")])[0]
    split = Split(data, LiveFeed(matcher.image, data.images), LiveFeed(matcher.text, data.captions))
    with torch.no_grad():
        found = ComposedScores(split, protocol_of(recipe), matcher.head, "cpu").metrics()
    assert {name: run.report[name].value for name in found} == pytest.approx(found)


def test_an_interrupted_run_resumes_to_the_same_numbers(tmp_path: Path) -> None:
    recipe = resolve(tiny_composed("tirg", domain={"tasks": ["t2i", "i2i", "attributes"]}), {"save_every": 1})
    whole = train(recipe, out=tmp_path / "whole")

    class KilledError(Exception):
        pass

    def kill(at: int) -> Any:
        def step(number: int) -> None:
            if number == at:
                raise KilledError

        return step

    for at in (2, 4):  # inside stage 2, inside stage 3
        with pytest.raises(KilledError):
            train(recipe, out=tmp_path / "broken", resume=True, on_step=kill(at))
    again = train(recipe, out=tmp_path / "broken", resume=True)
    for one, other in zip(whole.log, again.log, strict=True):
        assert {k: v for k, v in one.items() if k != "seconds"} == {k: v for k, v in other.items() if k != "seconds"}
    assert whole.report.metrics.values == again.report.metrics.values


@pytest.mark.parametrize("skipped", [0, 1])
def test_a_stage_can_be_skipped(tmp_path: Path, skipped: int) -> None:
    run = train(tiny_composed(), out=tmp_path / "run", overrides={f"stages.{skipped}.skip": True})
    assert {row["stage"] for row in run.log} == ({"composition"} if skipped == 0 else {"domain"})


def test_stage_one_can_be_a_dual_encoder_whose_words_are_others(tmp_path: Path) -> None:
    recipe = tiny_composed(options={"sides": {"projection": "dual", "image_source": "local", "text_source": "local"}},
                           frozen=False)  # fmt: skip
    first = resolve(recipe, {"task": "image_text", "head": {"name": "dual", "options": {"dim": 8}}, "protocol": "full",
                             "stages": [{"loss": {"name": "infonce"}, "epochs": 1, "batch_size": 16}]})  # fmt: skip
    start = train(first, out=tmp_path / "dual").matcher()
    data = triplet_data(recipe, [load_split(recipe.dataset, split) for split in ("train", "val")])
    matcher = build_matcher(replace(recipe, start=str(tmp_path / "dual")), data[0].captions + data[1].captions)
    assert_close(matcher.head.image.linear.weight, start.head.image.linear.weight)
    own, other = matcher.text, start.text
    assert own.vocabulary.words != other.vocabulary.words
    word = next(w for w in other.vocabulary.words[4:] if w in own.vocabulary.numbers)
    assert_close(own.embed.weight[own.vocabulary.numbers[word]], other.embed.weight[other.vocabulary.numbers[word]])


def test_a_constant_weight_is_the_best_of_its_choices_on_validation(tmp_path: Path) -> None:
    run = train(tiny_composed("constant"), out=tmp_path / "run")
    matcher, recipe = run.matcher(), run.recipe
    chosen = float(matcher.head.weight)
    assert any(f"{chosen:.2f}, chosen on the val split" in line for line in run.report.warnings)
    data = triplet_data(recipe, [load_split(recipe.dataset, "val")])[0]
    split = Split(data, LiveFeed(matcher.image, data.images), LiveFeed(matcher.text, data.captions))
    with torch.no_grad():
        scores = ComposedScores(split, protocol_of(recipe), matcher.head, "cpu")
        found = {}
        for v in matcher.head.choices():
            matcher.head.weight.fill_(v)
            found[v] = scores.metrics()[protocol_of(recipe).headline]
    best = [v for v, value in found.items() if value == max(found.values())]
    assert chosen == pytest.approx(min(best, key=lambda v: (round(abs(v - 0.5), 6), v)))


# wrong recipes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("overrides", "said"), [
    ({"head.name": "dual"}, "composes nothing"),
    ({"stages.1.loss.name": "infonce"}, "match, soft_triplet"),
    ({"protocol": "full"}, "of task image_text"),
    ({"stages.1.composition": None}, "either `domain` or `composition`"),
    ({"stages.0.domain.tasks": []}, "t2i, i2i, attributes"),
    ({"stages.0.domain.tasks": ["t2v"]}, "t2i"),
    ({"stages.1.composition.label": "log"}, "logprob"),
    ({"stages.1.composition.texts": "ands"}, "caption mode"),
    ({"stages.0.skip": True, "stages.1.skip": True}, "not skipped"),
    ({"task": "image_text"}, "unless task is composed"),
])  # fmt: skip
def test_a_wrong_recipe_is_one_error_that_names_the_key(tmp_path: Path, overrides: dict[str, Any], said: str) -> None:
    with pytest.raises(XRetrieveError, match=said):
        train(resolve(tiny_composed(), overrides), out=tmp_path / "run")
