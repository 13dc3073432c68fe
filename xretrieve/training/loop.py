"""The loop on Lightning Fabric: stages, epochs, steps, validation, best and last weights."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from xretrieve.backbones.base import batch_to
from xretrieve.data.base import RetrievalDataset
from xretrieve.data.cache import FeatureCache
from xretrieve.errors import XRetrieveError
from xretrieve.matcher import Matcher
from xretrieve.tokens import Tokens
from xretrieve.training.build import Split, make_split
from xretrieve.training.checkpoint import Ema, Progress, load_model, load_optimizer, save_point
from xretrieve.training.feeds import prefetch
from xretrieve.training.log import Log, Meter
from xretrieve.training.losses import create_loss, find_duplicates
from xretrieve.training.optimizer import make_optimizer
from xretrieve.training.recipe import PARTS, Recipe, StageConfig
from xretrieve.training.samplers import BatchSampler, shard, step_seed
from xretrieve.training.schedule import lr_factor
from xretrieve.training.skipped import note_skipped
from xretrieve.training.trainee import Gather, Trainee
from xretrieve.training.validate import recalls, score_split

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
        bar: anything with ``start(text, total, done)`` and ``advance(text)``.
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
        self.log = Log(folder, recipe.log, progress.rows) if fabric.is_global_zero else None

    def run(self) -> None:
        """All stages that are left."""
        for number in range(self.at.stage, len(self.recipe.stages)):
            self._open(number)
            stage = self.recipe.stages[number]
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
        for name, part in parts.items():
            part.requires_grad_(name in learns)
            part.to(self.fabric.device)
        self.learns = learns
        self.train, self.val = self._splits()
        if self.fabric.is_global_zero:
            note_skipped(self.folder, (self.train, self.val))
        self.sampler = BatchSampler(self.train.dataset.owner, stage.batch_size, stage.batching,
                                    stage.captions_per_image, recipe.seed, number,
                                    self.fabric.world_size, self.train.usable)
        self.steps = math.ceil(len(self.sampler) / stage.accumulate)  # optimizer steps of an epoch
        losses = {"loss": create_loss(stage.loss.name, **stage.loss.options)}
        if stage.coarse_loss is not None:
            losses["coarse_loss"] = create_loss(stage.coarse_loss.name, **stage.coarse_loss.options)
        kept = {p: m for p, m in parts.items() if p == "head" or not getattr(recipe, p).frozen}
        self.saved = nn.ModuleDict({**kept, **losses})
        if self.point is not None:
            load_model(self.point, self.saved)
        trainee = Trainee(
            parts["head"],
            losses["loss"],
            *(parts[p] if p in learns else None for p in ("image", "text")),
            Gather(self.fabric.world_size),
            losses.get("coarse_loss"),
            stage.coarse_weight,
        )
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

    def _splits(self) -> list[Split]:
        """Feeds of both splits; one process fills the cache, the others then read it."""
        def make() -> list[Split]:
            return [make_split(d, self.matcher, self.learns, self.cache, self.bar.shown) for d in self.data]

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
            logged = self._step(stage, epoch, [next(ready) for _ in group])
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
        """One block of items as tensors on the CPU.

        This process's images (n) and texts (K n, one set of captions after the other), and the duplicates of the whole
        block (K, P, P).
        """
        data, rank = self.train.dataset, self.fabric.global_rank
        rows = shard(batch, rank, self.fabric.world_size)
        rng = np.random.default_rng([self.recipe.seed, self.at.stage, number, rank])
        owners = data.owner[batch[0]].tolist()  # the same in each of the K sets
        duplicates = torch.stack([find_duplicates(owners, [data.captions[c] for c in texts]) for texts in batch])
        texts = self.train.texts.take(rows.ravel(), rng, stage.word_dropout)
        return self.train.images.take(data.owner[rows[0]]), texts, duplicates

    def _step(self, stage: StageConfig, epoch: int, blocks: list[tuple[Any, Any, torch.Tensor]]) -> dict[str, float]:
        """One optimizer step; returns the numbers to log."""
        fabric, number = self.fabric, epoch * self.steps + self.at.step
        torch.manual_seed(step_seed(self.recipe.seed, self.at.stage, number, fabric.global_rank))
        factor = lr_factor(stage, number, self.steps)
        for group in self.raw.param_groups:
            group["lr"] = group["base_lr"] * factor
        hide = (stage.token_dropout, 0.0 if self.train.texts.live else stage.word_dropout)
        meter = Meter()
        for i, (images, texts, duplicates) in enumerate(blocks):
            with fabric.no_backward_sync(self.model, enabled=i < len(blocks) - 1):
                loss, stats = self.model(self._move(images), self._move(texts), duplicates.to(fabric.device), hide)
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

    def _move(self, batch: Any) -> Any:
        return batch.to(self.fabric.device) if isinstance(batch, Tokens) else batch_to(batch, self.fabric.device)

    def _explain(self, epoch: int, value: float, *sides: Any) -> None:
        for tokens in sides:
            if isinstance(tokens, Tokens):
                tokens.check_finite()
        stage = self.recipe.stages[self.at.stage]
        raise XRetrieveError(f"stage {stage.name!r}, epoch {epoch + 1}, step {self.at.step + 1}: the loss is {value}; "
                             f"take a lower lr (now {stage.lr:g}), a warm-up, or clip (now {stage.clip:g})")

    def _training_mode(self) -> None:
        self.matcher.eval()
        self.model.train()
        for name in PARTS:
            getattr(self.matcher, name).train(name in self.learns)

    # the end of an epoch -----------------------------------------------------------------------------------------

    def _end_epoch(self, stage: StageConfig, epoch: int, started: float) -> None:
        last = epoch + 1 == stage.epochs
        means = self.meter.means()
        metrics = self._validate() if last or (epoch + 1) % stage.eval_every == 0 else {}
        self.meter = Meter()
        row = {"stage": stage.name, "epoch": epoch + 1, "step": self.at.total, **means, **metrics,
               "seconds": round(time.perf_counter() - started, 3)}
        self.at.rows = [*self.at.rows, row]
        if self.log is not None:
            self.log.add(row)
        stop = bool(stage.patience) and self.at.waited >= stage.patience
        self.at.epoch, self.at.step, self.at.seconds = (stage.epochs if stop else epoch + 1), 0, 0.0
        self._save()

    def _validate(self) -> dict[str, float]:
        """Recalls on the validation split; the best weights so far are written to matcher/."""
        metrics: dict[str, float] = {}
        if self.fabric.is_global_zero:
            self.matcher.eval()
            self.ema.swap()
            metrics = recalls(
                *score_split(self.matcher.head, self.val.images, self.val.texts, self.val.dataset, self.fabric.device)
            )
            if metrics["rsum"] > self.at.best:
                self.matcher.save(self.folder / "matcher")
            self.ema.swap()
        metrics = self.fabric.broadcast(metrics)
        better = metrics["rsum"] > self.at.best
        self.at.best, self.at.waited = (metrics["rsum"], 0) if better else (self.at.best, self.at.waited + 1)
        return metrics

    def _save(self) -> None:
        self.at.sums = dict(self.meter.sums)
        self.at.scaler = self.fabric.strategy.precision.state_dict()
        if self.fabric.is_global_zero:
            save_point(self.folder, self.saved, self.raw, self.ema.average, self.at)
        self.fabric.barrier()
