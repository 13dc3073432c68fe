"""A recipe says what is wrong with it, by key; names, overrides and weights are found where the documentation says."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from xretrieve.config import to_dict
from xretrieve.errors import XRetrieveError
from xretrieve.training.recipe import DatasetConfig, LossConfig, Recipe, StageConfig
from xretrieve.training.recipes import dataset_config, find_weights, list_recipes, load_recipe, save_recipe

MINIMAL = {
    "name": "x/tiny",
    "dataset": {"name": "scenes"},
    "image": {"backbone": "regions", "frozen": True},
    "text": {"backbone": "words"},
    "head": {"name": "dual"},
    "stages": [{"epochs": 1, "loss": {"name": "hinge"}}],
    "protocol": "full",
}


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(MINIMAL), encoding="utf-8")
    return path


def test_every_shipped_recipe_loads_and_names_things_that_exist() -> None:
    from xretrieve.evaluation.protocols import get_protocol
    from xretrieve.heads import head_class
    from xretrieve.training.losses import create_loss

    assert "image_text/flickr8k-dual" in list_recipes()
    for name in list_recipes():
        recipe = load_recipe(name)
        assert recipe.name == name and recipe.description
        get_protocol(recipe.protocol)
        if recipe.members:
            continue  # tests/test_docs.py loads its members
        head_class(recipe.head.name)
        for loss in [loss for stage in recipe.stages for loss in (stage.loss, stage.coarse_loss) if loss]:
            create_loss(loss.name, **loss.options)


def test_a_saved_recipe_is_read_back_equal(tiny: Path, tmp_path: Path) -> None:
    recipe = load_recipe(
        tiny, {"stages.0.lr": 1e-5, "seed": 3, "description": "with: colon, and #", "stages.0.train": ["head"]}
    )
    save_recipe(recipe, tmp_path / "again.yaml")
    assert to_dict(load_recipe(tmp_path / "again.yaml")) == to_dict(recipe)
    assert recipe.stages[0].lr == 1e-5 and recipe.seed == 3 and recipe.description == "with: colon, and #"


def test_overrides_as_a_dict_or_as_text_are_the_same(tiny: Path) -> None:
    assert to_dict(load_recipe(tiny, {"stages.0.batch_size": 8})) == to_dict(
        load_recipe(tiny, ["stages.0.batch_size=8"])
    )


@pytest.mark.parametrize(
    "override, said",
    [
        ("stages.0.epoch=3", "did you mean 'epochs'"),
        ("stages.0.epochs=0", "'epochs': must be at least 1"),
        ("stages.0.batch_size=1", "'batch_size': must be at least 2"),
        ("stages.0.lr=-1", "'lr': must be above 0"),
        ("stages.0.token_dropout=1.0", "'token_dropout'"),
        ("stages.0.optimizer=adm", "did you mean 'adam'"),
        ("stages.0.lr_scale={imge: 0.1}", "did you mean 'image'"),
        ("stages.0.train=[image]", "it is frozen"),
        ("stages=[]", "at least one stage"),
        ("seed=-1", "'seed'"),
        ("expect={rsum: 270}", "'expect.rsum': must be"),
        ("dataset.nam=x", "did you mean 'name'"),
    ],
)
def test_a_wrong_key_is_named(tiny: Path, override: str, said: str) -> None:
    with pytest.raises(XRetrieveError, match=said.replace("[", r"\[")):
        load_recipe(tiny, [override])


@pytest.mark.parametrize("written", ["32", '"32"', "'32'", "32.0"])
def test_precision_may_be_written_as_a_number(tiny: Path, written: str) -> None:
    assert load_recipe(tiny, [f"stages.0.precision={written}"]).stages[0].precision == "32"
    assert load_recipe(tiny, {"stages.0.precision": yaml.safe_load(written)}).stages[0].precision == "32"
    assert load_recipe(tiny).stages[0].precision == "auto"


def test_one_stage_may_have_another_precision(tiny: Path) -> None:
    two = [f"stages={[MINIMAL['stages'][0]] * 2}".replace("None", "null"), "stages.0.precision=32"]
    assert [stage.precision for stage in load_recipe(tiny, two).stages] == ["32", "auto"]
    with pytest.raises(XRetrieveError, match="unknown value '16'.*known: 32, auto, bf16, fp16"):
        load_recipe(tiny, ["stages.0.precision=16"])


def test_numbers_with_an_exponent_are_numbers_everywhere_and_quoted_ones_are_text(tiny: Path) -> None:
    made = load_recipe(tiny, ["head.options.a=5e-4", "head.options.b='5e-4'", "stages.0.lr=1E-3"])
    assert made.head is not None and (made.head.options["a"], made.head.options["b"]) == (0.0005, "5e-4")
    tiny.write_text(tiny.read_text().replace("lr:", "# lr:") + "overrides: {}\n", encoding="utf-8")
    assert load_recipe(tiny, ["name='2024'"]).name == "2024"
    with pytest.raises(XRetrieveError, match="expected str, got 2024; write it in quotes: '\"2024\"'"):
        load_recipe(tiny, ["name=2024"])


def test_unknown_recipes_name_the_nearest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(XRetrieveError, match="did you mean 'image_text/flickr8k-dual'"):
        load_recipe("image_text/flickr8k-dula")
    with pytest.raises(XRetrieveError, match="no recipe file"):
        load_recipe(tmp_path / "none.yaml")
    (tmp_path / "tasks/mine").mkdir(parents=True)
    (tmp_path / "tasks/mine/tiny.yaml").write_text(yaml.safe_dump(MINIMAL), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert "mine/tiny" in list_recipes() and load_recipe("tiny").name == "x/tiny"


def test_broken_yaml_names_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("name: x\nstages: [\n", encoding="utf-8")
    with pytest.raises(XRetrieveError, match=r"bad.yaml: line \d"):
        load_recipe(path)


def test_weights_are_found_below_the_data_root_or_the_error_lists_both_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XRETRIEVE_DATA", str(tmp_path))
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/a.safetensors").touch()
    assert find_weights("weights/a.safetensors", None) == tmp_path / "weights/a.safetensors"
    with pytest.raises(
        XRetrieveError,
        match="looked for weights/b.safetensors and .*b.safetensors .* image.weights=null or text.weights=null",
    ):
        find_weights("weights/b.safetensors", None)


def test_what_learns_by_default(tiny: Path) -> None:
    recipe = load_recipe(tiny)
    assert isinstance(recipe, Recipe) and recipe.trained(0) == ["text", "head"]
    recipe.stages.append(StageConfig(LossConfig("hinge"), epochs=1, train=["head"]))
    assert recipe.trained(1) == ["head"]


def test_the_dataset_of_a_run_is_that_of_its_recipe_unless_another_one_is_named(tmp_path: Path) -> None:
    own = {"name": "scenes", "root": "/data", "layout": "regions", "options": {"scenes": 9}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(MINIMAL | {"dataset": own}), encoding="utf-8")
    run = str(tmp_path)
    assert dataset_config(run) == dataset_config(run, "scenes") == DatasetConfig(**own)
    assert dataset_config(run, root=tmp_path, layout="photos") == DatasetConfig(
        "scenes", str(tmp_path), "photos", {"scenes": 9}
    )
    assert dataset_config(run, "flickr8k") == DatasetConfig("flickr8k")
    assert dataset_config("open_clip:RN50/openai", "flickr8k") == DatasetConfig("flickr8k")
    with pytest.raises(XRetrieveError, match="open_clip:RN50/openai has no recipe.yaml .* write --dataset NAME"):
        dataset_config("open_clip:RN50/openai")


def test_a_recipe_that_is_like_no_other_says_where_the_names_are() -> None:
    with pytest.raises(XRetrieveError, match="unknown recipe 'qqq' .* in all: `xretrieve train --list`"):
        load_recipe("qqq")
