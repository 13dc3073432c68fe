"""A run: its folder, that it learns, and that a stopped one resumes to the very same weights."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Barrier, Event
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file

from xretrieve.errors import XRetrieveError
from xretrieve.training.build import make_splits
from xretrieve.training.checkpoint import clean
from xretrieve.training.recipe import HeadConfig, LossConfig, Recipe, StageConfig
from xretrieve.training.recipes import save_recipe
from xretrieve.training.run import train
from xretrieve.training.run_folder import Run
from xretrieve.utils.files import locked


class KilledError(Exception):
    pass


def kill_at(step: int) -> Any:
    def on_step(done: int) -> None:
        if done == step:
            raise KilledError

    return on_step


def weights(folder: Path) -> dict[str, torch.Tensor]:
    last = max((folder / "last").iterdir(), key=lambda p: p.name)
    found = {
        f"last/{k}": v for name in ("model", "optimizer") for k, v in load_file(last / f"{name}.safetensors").items()
    }
    found |= {f"text/{k}": v for k, v in load_file(folder / "matcher/text/model.safetensors").items()}
    return found | {f"head/{k}": v for k, v in load_file(folder / "matcher/head.safetensors").items()}


def same(a: Path, b: Path) -> None:
    first, second = weights(a), weights(b)
    assert first.keys() == second.keys()
    for key, value in first.items():
        assert torch.equal(value, second[key]), key


def log_without_time(run: Run) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in run.log]


def test_a_run_learns_and_leaves_the_whole_folder(tiny: Recipe, tmp_path: Path) -> None:
    run = train(tiny, out=tmp_path / "run", overrides={"stages.0.epochs": 6}, seed=1)
    assert {p.name for p in run.folder.iterdir()} >= {
        "recipe.yaml",
        "log.csv",
        "curves.png",
        "matcher",
        "last",
        "report.json",
        "report.html",
        "ranks.npz",
    }
    assert run.recipe.seed == 1 and len(run.log) == 6
    assert run.log[-1]["loss"] < run.log[0]["loss"]
    assert run.report["rsum"].value > 380  # chance on 12 images is about 250
    again = Run.open(run.folder)
    assert again.report["rsum"].value == pytest.approx(run.report["rsum"].value)
    assert [row["loss"] for row in again.log] == pytest.approx([row["loss"] for row in run.log], rel=1e-4)
    assert len(run.matcher().encode_texts(["a dog"])) == 1


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "everything": {
        "accumulate": 3,
        "ema": 0.9,
        "batching": "images",
        "batch_size": 4,
        "optimizer": "adam",
        "precision": "bf16",
        "loss": LossConfig("hinge", {"warmup_epochs": 1}),
        "schedule": "step",
        "step_epochs": 1,
        "weight_decay": 0.1,
    },
}


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("stop", [1, 2, 4])
def test_killed_at_a_step_and_resumed_gives_the_same_bits(
    make_recipe: Callable[..., Recipe], tmp_path: Path, options: str, stop: int
) -> None:
    recipe = make_recipe(**OPTIONS[options])
    recipe.save_every = 2
    whole = train(recipe, out=tmp_path / "whole")
    with pytest.raises(KilledError):
        train(recipe, out=tmp_path / "cut", on_step=kill_at(stop))
    resumed = train(recipe, out=tmp_path / "cut", resume=True)
    same(whole.folder, resumed.folder)
    assert log_without_time(whole) == log_without_time(resumed)
    assert whole.report["rsum"].value == resumed.report["rsum"].value


@pytest.mark.slow
def test_a_process_that_is_really_killed_resumes_too(make_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    recipe = make_recipe()
    recipe.save_every = 3
    save_recipe(recipe, tmp_path / "recipe.yaml")
    script = tmp_path / "job.py"
    script.write_text(
        "import os, signal, sys\nfrom xretrieve.training import train\n"
        "def stop(done):\n    if done == 8: os.kill(os.getpid(), signal.SIGKILL)\n"
        "train(sys.argv[1], out=sys.argv[2], on_step=stop)\n",
        encoding="utf-8",
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "recipe.yaml"), str(tmp_path / "cut")],
        timeout=120,
        check=False,
        env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": str(torch.get_num_threads())},
    )
    assert done.returncode == -9
    same(train(recipe, out=tmp_path / "whole").folder, train(recipe, out=tmp_path / "cut", resume=True).folder)


def test_what_a_kill_leaves_behind_is_put_right(tiny: Recipe, tmp_path: Path) -> None:
    run = train(tiny, out=tmp_path / "run", overrides={"stages.0.epochs": 1})
    (run.folder / ".matcher.x.old").mkdir()
    (run.folder / "matcher").replace(run.folder / ".matcher.x.old/folder")  # killed between the two renames
    (run.folder / "last/.00000009.y.part").mkdir()
    clean(run.folder)
    assert len(run.matcher().encode_texts(["a dog"])) == 1
    assert not list(run.folder.glob(".*")) and not list((run.folder / "last").glob(".*"))


def test_the_bar_goes_to_stderr_only(tiny: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(tiny, out=tmp_path / "run", overrides={"stages.0.epochs": 1}, progress=True)
    assert capsys.readouterr().out == ""


def test_the_report_is_told_before_its_page_is_drawn(tiny: Recipe, tmp_path: Path) -> None:
    told: list[Any] = []

    def first(report: Any) -> None:
        told.append((report, [(tmp_path / "run" / name).exists() for name in ("curves.png", "report.html")]))

    run = train(tiny, out=tmp_path / "run", overrides={"stages.0.epochs": 1}, on_report=first)
    assert told == [(run.report, [False, False])] and (run.folder / "curves.png").is_file()


class FakeCache:
    """Encodes a side by calling a function of the test with what takes the steps."""

    def __init__(self, **sides: Callable[[Callable[[int], None]], None]) -> None:
        self.sides = sides

    def encode(self, backbone: Any, items: Any, ids: Any, progress: Any, on_error: str) -> Any:
        self.sides[backbone.modality](progress(len(items), backbone.modality))
        return SimpleNamespace(kept=range(len(items)), failed=[])


def made_splits(cache: FakeCache, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr("torch.get_num_threads", lambda: 1)
    sides = {side: SimpleNamespace(modality=side, device=torch.device("cpu")) for side in ("image", "text")}
    data = SimpleNamespace(images=["a"], image_ids=["a"], captions=["b", "c"], caption_ids=["b", "c"])
    matcher = SimpleNamespace(**sides, reads=lambda side: "local")
    return make_splits(cast(Any, [data]), cast(Any, matcher), [], cast(Any, cache), False)


def test_pictures_and_texts_are_encoded_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    both = Barrier(2)
    (split,) = made_splits(FakeCache(image=lambda _: both.wait(60), text=lambda _: both.wait(60)), monkeypatch)
    assert (len(split.images.kept), len(split.texts.kept)) == (1, 2)


@pytest.mark.parametrize("error", [KeyboardInterrupt, XRetrieveError])
def test_what_ends_the_pictures_ends_the_texts_after_their_batch(
    error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, ended = Event(), Event()

    def image(step: Callable[[int], None]) -> None:
        assert begun.wait(60)
        raise error("a picture")

    def text(step: Callable[[int], None]) -> None:
        begun.set()
        try:
            for _ in range(6000):
                time.sleep(0.01)
                step(1)
        except BaseException:
            ended.set()
            raise

    with pytest.raises(error, match="a picture"):
        made_splits(FakeCache(image=image, text=text), monkeypatch)
    assert ended.is_set()


def test_two_stages_killed_twice(make_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    recipe = make_recipe(train=["head"], eval_every=2)
    recipe.stages.append(
        StageConfig(
            LossConfig("hinge"), epochs=2, name="all", batch_size=16, lr=0.003, lr_scale={"text": 0.1}, patience=1
        )
    )
    whole = train(recipe, out=tmp_path / "whole")
    for stop in (5, 25):
        with pytest.raises(KilledError):
            train(recipe, out=tmp_path / "cut", resume=True, on_step=kill_at(stop))
    resumed = train(recipe, out=tmp_path / "cut", resume=True)
    same(whole.folder, resumed.folder)
    assert {row["stage"] for row in resumed.log} == {"train", "all"}
    assert "rsum" not in resumed.log[0] and "rsum" in resumed.log[1]


def test_a_part_that_is_not_listed_keeps_its_weights(make_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    run = train(make_recipe(train=["head"], epochs=1), out=tmp_path / "run")
    torch.manual_seed(run.recipe.seed)
    from xretrieve.training.build import build_matcher, load_split

    captions = [c for s in ("train", "val") for c in load_split(run.recipe.dataset, s).captions]
    start = build_matcher(run.recipe, captions)
    trained = run.matcher()
    for key, value in start.text.state_dict().items():
        assert torch.equal(value, trained.text.state_dict()[key]), key
    assert any(not torch.equal(v, trained.head.state_dict()[k]) for k, v in start.head.state_dict().items())


def test_early_stop_ends_the_stage(make_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    run = train(make_recipe(epochs=30, lr=1e-9, patience=2), out=tmp_path / "run")
    assert len(run.log) == 3  # the first is the best, then two without a better one


def test_the_caller_keeps_its_random_numbers(tiny: Recipe, tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train(tiny, out=tmp_path / "run", overrides={"stages.0.epochs": 1})
    assert torch.equal(torch.rand(3), expected)


def test_a_folder_with_a_run_is_not_overwritten_by_accident(tiny: Recipe, tmp_path: Path) -> None:
    once = {"stages.0.epochs": 1}
    first = train(tiny, out=tmp_path / "run", overrides=once)
    with pytest.raises(XRetrieveError, match="already holds a run: --resume"):
        train(tiny, out=tmp_path / "run", overrides=once)
    with pytest.raises(XRetrieveError, match=r"another value of seed \(0, now 1\)"):
        train(tiny, out=tmp_path / "run", overrides=once, resume=True, seed=1)
    assert (
        train(tiny, out=tmp_path / "run", overrides=once, resume=True).report["rsum"].value
        == first.report["rsum"].value
    )
    assert train(tiny, out=tmp_path / "run", overrides=once, overwrite=True, seed=1).recipe.seed == 1


def test_a_start_that_failed_does_not_block_the_next(tiny: Recipe, tmp_path: Path) -> None:
    with pytest.raises(XRetrieveError, match="dim"):
        train(tiny, out=tmp_path / "run", overrides={"image.options.dim": 7})
    assert train(tiny, out=tmp_path / "run", overrides={"stages.0.epochs": 1}).report is not None


def test_absent_data_is_said_before_absent_weights(tiny: Recipe, tmp_path: Path) -> None:
    with pytest.raises(XRetrieveError, match="no data root"):
        train(tiny, out=tmp_path / "run", overrides={"dataset.root": str(tmp_path / "none"), "image.weights": "w.pt"})
    assert not (tmp_path / "run").exists()


def test_a_place_that_cannot_be_written_is_named(tiny: Recipe, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(XRetrieveError, match="cannot write .*file.*choose another place"):
        train(tiny, out=tmp_path / "file" / "run")


def test_of_two_trainings_in_one_folder_the_second_is_refused(tiny: Recipe, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with locked(tmp_path / "run"), pytest.raises(XRetrieveError, match="another program is writing .*run"):
        train(tiny, out=tmp_path / "run")
    assert not list((tmp_path / "run").iterdir())


def test_wrong_names_are_found_before_any_work(tiny: Recipe, tmp_path: Path) -> None:
    for key, value, said in (
        ("protocol", "ful", "did you mean 'full'"),
        ("head.name", "dula", "did you mean 'dual'"),
        ("stages.0.loss.name", "hinges", "did you mean 'hinge'"),
        ("image.weights", "no.safetensors", "looked for"),
    ):
        with pytest.raises(XRetrieveError, match=said):
            train(tiny, out=tmp_path / "run", overrides={key: value})
    assert not (tmp_path / "run").exists()


def test_a_test_split_that_does_not_fit_the_protocol_is_said_before_training(tiny: Recipe, tmp_path: Path) -> None:
    with pytest.raises(
        XRetrieveError, match="'flickr-1k' ranks 1000 images, this split has 12; use the protocol 'full'"
    ):
        train(tiny, out=tmp_path / "run", overrides={"protocol": "flickr-1k"})
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite_says_where_and_what_to_do(tiny: Recipe, tmp_path: Path) -> None:
    def poison(_: int) -> None:
        import gc

        for module in gc.get_objects():
            if type(module).__name__ == "DualEncoder":
                module.text.linear.weight.data.fill_(float("nan"))

    with pytest.raises(XRetrieveError, match="stage 'train', epoch 1, step 2: the loss is nan; take a lower lr"):
        train(tiny, out=tmp_path / "run", on_step=poison)


def test_tensorboard_writes_its_events(tiny: Recipe, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    run = train(tiny, out=tmp_path / "run", overrides={"stages.0.epochs": 1, "log": "tensorboard"})
    assert list((run.folder / "tensorboard").glob("events*")) and (run.folder / "log.csv").is_file()


def coarse(recipe: Recipe) -> Recipe:
    recipe.head = HeadConfig("sgr", {"dim": 16, "sim_dim": 8, "steps": 1})
    recipe.stages[0].coarse_loss = LossConfig("infonce", {"temperature": 0.05})
    return recipe


def test_a_coarse_loss_is_trained_logged_kept_with_the_head_and_resumed(
    make_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    recipe = coarse(make_recipe(loss=LossConfig("hinge"), epochs=3))
    whole = train(recipe, out=tmp_path / "whole")
    assert whole.log[-1]["coarse_loss"] < whole.log[0]["coarse_loss"]
    head = whole.matcher().head
    assert head.coarse and head.config["coarse"] is True
    assert not train(recipe, out=tmp_path / "plain", overrides={"stages.0.coarse_loss": None}).matcher().head.coarse
    with pytest.raises(KilledError):
        train(recipe, out=tmp_path / "cut", on_step=kill_at(9))
    same(whole.folder, train(recipe, out=tmp_path / "cut", resume=True).folder)


@pytest.mark.parametrize(
    "key, value, said",
    [
        ("head", {"name": "dual", "options": {"dim": 16}}, "head 'dual' has none"),
        ("head.options.coarse", False, "is False, but a stage has a coarse_loss"),
        ("stages.0.coarse_loss.name", "infonc", "did you mean 'infonce'"),
        ("stages.0.coarse_weight", 0, "'coarse_weight': must be above 0"),
    ],
)
def test_a_coarse_loss_that_cannot_be_is_said_before_any_work(
    tiny: Recipe, tmp_path: Path, key: str, value: object, said: str
) -> None:
    with pytest.raises(XRetrieveError, match=said):
        train(coarse(tiny), out=tmp_path / "run", overrides={key: value})
    assert not (tmp_path / "run").exists()


def test_a_head_that_claims_a_coarse_loss_needs_a_stage_with_one(tiny: Recipe, tmp_path: Path) -> None:
    tiny.head = HeadConfig("sgr", {"dim": 16, "coarse": True})
    with pytest.raises(XRetrieveError, match="is True, but no stage has a coarse_loss"):
        train(tiny, out=tmp_path / "run")
