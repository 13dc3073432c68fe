"""The loop on Lightning Fabric: stages, epochs, steps, validation, best and last weights."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from xretrieve.data.base import RetrievalDataset
from xretrieve.data.cache import FeatureCache
from xretrieve.errors import XRetrieveError
from xretrieve.heads.base import freeze_coarse, learn_coarse_only, set_learning
from xretrieve.matcher import Matcher
from xretrieve.tokens import Tokens
from xretrieve.training.alarms import collapsed, norms_apart
from xretrieve.training.build import Split, make_splits
from xretrieve.training.checkpoint import Ema, Progress, load_model, load_optimizer, save_point
from xretrieve.training.feeds import block_to, prefetch
from xretrieve.training.groups import CoarseVectors
from xretrieve.training.log import Log, Meter
from xretrieve.training.losses import create_loss
from xretrieve.training.optimizer import make_optimizer
from xretrieve.training.precision import use_precision
from xretrieve.training.recipe import PARTS, Recipe, StageConfig
from xretrieve.training.samplers import step_seed
from xretrieve.training.schedule import lr_factor
from xretrieve.training.skipped import note_skipped
from xretrieve.training.tasks import create_work
from xretrieve.training.trainee import Gather
from xretrieve.training.validate import goal
from xretrieve.training.work import live_sides

OnStep = Callable[[int], None]


class Loop:
    """Trains a matcher through the stages of a recipe, from the start or from a resume point.

    Args:
        fabric: launched Lightning Fabric.
        recipe: what to do.
        folder: the run folder; receives log.csv, matcher/ (best) and last/ (resume point).
        matcher: with its start weights; it is changed.
        data: train and validation split.
        cache: of the frozen backbones' tokens.
        point: resume point, None to start.
        progress: what the resume point says.
        bar: a :class:`~xretrieve.training.bar.Bar`.
        on_step: called with the number of optimizer steps done, after each; what it raises stops the run like a kill.
    """

    def __init__(
        self,
        fabric: Any,
        recipe: Recipe,
        folder: Path,
        matcher: Matcher,
        data: tuple[RetrievalDataset, RetrievalDataset],
        cache: FeatureCache,
        point: Path | None,
        progress: Progress,
        bar: Any,
        on_step: OnStep | None = None,
    ) -> None:
        self.fabric, self.recipe, self.folder, self.matcher, self.data = fabric, recipe, folder, matcher, data
        self.cache, self.point, self.at, self.bar, self.on_step = cache, point, progress, bar, on_step
        self.logged: dict[str, float] = {}  # of the last step
        self.log = Log(folder, recipe.log, progress.rows) if fabric.is_global_zero else None

    def run(self) -> None:
        """All stages that are left."""
        for number in range(self.at.stage, len(self.recipe.stages)):
            stage = self.recipe.stages[number]
            if stage.skip:
                continue
            self._open(number)
            for epoch in range(self.at.epoch, stage.epochs):
                if self.at.epoch < stage.epochs:  # an early stop sets it to the end
                    self._epoch(stage, epoch)
        if self.log is not None:
            self.log.close()

    # one stage ---------------------------------------------------------------------------------------------------

    def _open(self, number: int) -> None:
        """All of a stage: what learns, feeds, loss, optimizer; restored from the resume point if there is one."""
        recipe, stage, learns = self.recipe, self.recipe.stages[number], self.recipe.trained(number)
        parts = {p: getattr(self.matcher, p) for p in PARTS}
        if number > 0 and self.point is None:
            self._take_best()
            self.at.stage, self.at.epoch, self.at.step, self.at.waited = number, 0, 0, 0
            before = next((s for s in recipe.stages[number - 1 :: -1] if not s.skip), stage)
            if stage.keep != before.keep or any(
                (getattr(stage, key) is None) != (getattr(before, key) is None) for key in ("loss", "domain")
            ):
                self.at.best = Progress().best  # another measure
        for name, part in parts.items():
            set_learning(part, name in learns)
            if name == "head" and name in learns and stage.loss is None:
                learn_coarse_only(part)
            if name == "head" and stage.freeze_coarse:
                freeze_coarse(part)
            part.to(self.fabric.device)
        self.learns = learns
        live = [*learns, *(side for side in live_sides(recipe) if side not in learns)]
        splits = self._splits(live)
        if self.fabric.is_global_zero:
            note_skipped(self.folder, splits)
        self.work = create_work(recipe, splits, stage)
        self.work.precision = self.at.precision[str(number)]
        wanted = {"loss": stage.loss, "coarse_loss": stage.coarse_loss}
        losses = {key: create_loss(loss.name, **loss.options) for key, loss in wanted.items() if loss is not None}
        losses |= self.work.modules(parts["head"])
        kept = {p: m for p, m in parts.items() if p == "head" or not getattr(recipe, p).frozen}
        self.saved = nn.ModuleDict({**kept, **losses})
        if self.point is not None:
            load_model(self.point, self.saved)
        grouped = {"vectors": self._coarse_vectors(number)} if stage.group_pool else {}
        self.sampler = self.work.sampler(stage, number, self.fabric.world_size, **grouped)
        self.steps = math.ceil(len(self.sampler) / stage.accumulate)  # optimizer steps of an epoch
        trainee = self.work.trainee(
            parts["head"],
            losses.get("loss"),
            *(parts[p] if p in live else None for p in ("image", "text")),
            Gather(self.fabric.world_size),
            losses.get("coarse_loss"),
            stage.coarse_weight,
            stage.group,
        )
        if self.log is not None and (told := norms_apart(trainee, self.fabric.world_size)):
            print(f"warning: {told}", file=sys.stderr, flush=True)
        use_precision(self.fabric, self.work.precision)
        self.raw = make_optimizer(stage, {**{p: parts[p] for p in learns}, **losses})
        self.model, self.optimizer = self.fabric.setup(trainee, self.raw)
        average = load_optimizer(self.point, self.saved, self.raw) if self.point is not None else {}
        if self.at.scaler:
            self.fabric.strategy.precision.load_state_dict(self.at.scaler)
        self.ema = Ema(self.saved, stage.ema, average)
        self.meter = Meter(self.at.sums, self.at.step)
        if self.point is None:
            self._save()
        self.point = None

    def _coarse_vectors(self, number: int) -> CoarseVectors:
        """Of the train split at the start of a stage; kept in the run folder, so a resumed stage draws equal groups."""
        path = self.folder / "groups" / f"{number}.safetensors"
        if self.fabric.is_global_zero and (self.point is None or not path.is_file()):
            CoarseVectors.of(self.matcher, self.work.train, self.fabric.device).save(path)
        self.fabric.barrier()
        return CoarseVectors.load(path)

    def _splits(self, live: list[str]) -> list[Split]:
        """Feeds of both splits; one process fills the cache, the others then read it."""

        def make() -> list[Split]:
            return make_splits(self.data, self.matcher, live, self.cache, self.bar.shown)

        if self.fabric.world_size == 1:
            return make()
        with self.fabric.rank_zero_first():
            return make()

    def _take_best(self) -> None:
        """A later stage starts from the best weights of the earlier ones."""
        self.fabric.barrier()
        if (self.folder / "matcher").is_dir():
            best = Matcher.load(self.folder / "matcher")
            for name in PARTS:
                getattr(self.matcher, name).load_state_dict(getattr(best, name).state_dict())

    # one epoch ---------------------------------------------------------------------------------------------------

    def _epoch(self, stage: StageConfig, epoch: int) -> None:
        batches = self.sampler.epoch(epoch)
        groups = [range(i, min(i + stage.accumulate, len(batches))) for i in range(0, len(batches), stage.accumulate)]
        started = time.perf_counter() - self.at.seconds
        self._training_mode()
        self.model.module.set_epoch(epoch)
        self.bar.start(f"{stage.name} {epoch + 1}/{stage.epochs}", self.steps, self.at.step)
        jobs = [(epoch * len(batches) + b, batches[b]) for group in groups[self.at.step :] for b in group]
        ready = prefetch(lambda job: self._prepare(stage, *job), jobs)
        for group in groups[self.at.step :]:
            self.logged = logged = self._step(stage, epoch, [next(ready) for _ in group])
            self.meter.add(logged)
            self.at.step += 1
            self.at.total += 1
            self.bar.advance(f"loss {logged['loss']:.3f}")
            if self.on_step is not None:
                self.on_step(self.at.total)
            every = self.recipe.save_every
            if every and self.at.total % every == 0 and self.at.step < self.steps:
                self.at.seconds = time.perf_counter() - started
                self._save()
        self._end_epoch(stage, epoch, started)

    def _prepare(self, stage: StageConfig, number: int, batch: np.ndarray) -> tuple[Any, Any, torch.Tensor]:
        """One block of this process's items as tensors on the CPU."""
        rank = self.fabric.global_rank
        rng = np.random.default_rng([self.recipe.seed, self.at.stage, number, rank])
        return self.work.block(stage, batch, rng, rank, self.fabric.world_size)

    def _step(self, stage: StageConfig, epoch: int, blocks: list[tuple[Any, Any, torch.Tensor]]) -> dict[str, float]:
        """One optimizer step; returns the numbers to log."""
        fabric, number = self.fabric, epoch * self.steps + self.at.step
        torch.manual_seed(step_seed(self.recipe.seed, self.at.stage, number, fabric.global_rank))
        factor = lr_factor(stage, number, self.steps)
        for group in self.raw.param_groups:
            group["lr"] = group["base_lr"] * factor
        hide = (stage.token_dropout, 0.0 if self.work.train.texts.live else stage.word_dropout)
        meter = Meter()
        for i, (images, texts, duplicates) in enumerate(blocks):
            with fabric.no_backward_sync(self.model, enabled=i < len(blocks) - 1):
                loss, stats = self.model(*(block_to(part, fabric.device) for part in (images, texts, duplicates)), hide)
                value = float(loss.detach())
                if not math.isfinite(value):
                    self._explain(epoch, value, images, texts)
                fabric.backward(loss / len(blocks))
            meter.add({"loss": value, **stats})
        norm = fabric.clip_gradients(
            self.model, self.optimizer, max_norm=stage.clip or math.inf, error_if_nonfinite=False
        )
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.ema.update(number)
        return {**meter.means(), "grad_norm": float(norm) if norm is not None else 0.0, "lr": stage.lr * factor}

    def _explain(self, epoch: int, value: float, *sides: Any) -> None:
        for tokens in (part for side in sides for part in (side if isinstance(side, tuple) else (side,))):
            if isinstance(tokens, Tokens):
                tokens.check_finite()
        stage = self.recipe.stages[self.at.stage]
        raise XRetrieveError(
            f"stage {stage.name!r}, epoch {epoch + 1}, step {self.at.step + 1}: the loss is {value}; "
            f"take a lower lr (now {stage.lr:g}), a warm-up, or clip (now {stage.clip:g})"
        )

    def _training_mode(self) -> None:
        self.matcher.eval()
        self.model.train()
        for name in PARTS:
            getattr(self.matcher, name).train(name in self.learns)

    # the end of an epoch -----------------------------------------------------------------------------------------

    def _end_epoch(self, stage: StageConfig, epoch: int, started: float) -> None:
        last = epoch + 1 == stage.epochs
        means = self.meter.means()
        metrics = self._validate(stage) if last or (epoch + 1) % stage.eval_every == 0 else {}
        self.meter = Meter()
        row = {
            "stage": stage.name,
            "epoch": epoch + 1,
            "step": self.at.total,
            **means,
            **metrics,
            "seconds": round(time.perf_counter() - started, 3),
        }
        self.at.rows = [*self.at.rows, row]
        if self.log is not None:
            self.log.add(row)
            self.bar.epoch(self.at.rows, self.recipe.stages, self.at.stage)
            if epoch == 0 and (told := collapsed(stage, self.at.stage, self.logged)):
                print(f"warning: {told}", file=sys.stderr, flush=True)
        stop = bool(stage.patience) and self.at.waited >= stage.patience
        self.at.epoch, self.at.step, self.at.seconds = (stage.epochs if stop else epoch + 1), 0, 0.0
        self._save()

    def _validate(self, stage: StageConfig) -> dict[str, float]:
        """Recalls on the validation split; the best weights so far are written to matcher/."""
        metrics: dict[str, float] = {}
        if self.fabric.is_global_zero:
            self.matcher.eval()
            self.ema.swap()
            metrics = self.work.validate(self.matcher, self.model.module, stage, self.fabric.device)
            if goal(metrics, stage.keep) > self.at.best:
                self.matcher.save(self.folder / "matcher")
            self.ema.swap()
        metrics = self.fabric.broadcast(metrics)
        value = goal(metrics, stage.keep)
        better = value > self.at.best
        self.at.best, self.at.waited = (value, 0) if better else (self.at.best, self.at.waited + 1)
        return metrics

    def _save(self) -> None:
        self.at.sums = dict(self.meter.sums)
        self.at.scaler = self.fabric.strategy.precision.state_dict()
        if self.fabric.is_global_zero:
            save_point(self.folder, self.saved, self.raw, self.ema.average, self.at)
        self.fabric.barrier()
