"""Training on query sets: an item is an image with several of its sentences, drawn anew each epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xretrieve.data.turns import QuerySets
from xretrieve.evaluation.metrics import values_of
from xretrieve.evaluation.protocols import LONGEST, get_protocol
from xretrieve.evaluation.round_metrics import round_columns
from xretrieve.evaluation.round_scores import RoundScorer, combined_texts
from xretrieve.evaluation.rounds import Counter
from xretrieve.heads.fusion import check_combine, paragraphs
from xretrieve.matcher import Matcher
from xretrieve.training.build import Split
from xretrieve.training.feeds import LiveFeed, block_to
from xretrieve.training.losses import find_duplicates
from xretrieve.training.recipe import Recipe, StageConfig
from xretrieve.training.samplers import SetSampler, shard
from xretrieve.training.set_trainee import SetTrainee
from xretrieve.training.trainee import Gather
from xretrieve.training.validate import encode_feed
from xretrieve.training.work import Block, PairWork
from xretrieve.utils.precision import scoring_in


def turns_of(recipe: Recipe) -> int:
    """T: the recipe's ``turns``, else the protocol's rounds, else 10."""
    return recipe.turns or getattr(get_protocol(recipe.protocol), "turns", None) or LONGEST


class SetWork(PairWork):
    """Multi-query retrieval. The captions of the splits' datasets are the turns (:func:`xretrieve.data.turns.spoken`).

    Each image brings ``turns`` distinct sentences in random order; an image with fewer brings all of them. Validation
    takes the first ``turns`` sentences of each image in their stored order.
    """

    def __init__(self, recipe: Recipe, splits: Sequence[Split]) -> None:
        super().__init__(recipe, splits)
        self.combine = check_combine(recipe.combine)
        self.turns = turns_of(recipe)

    def sampler(self, stage: StageConfig, number: int, world: int) -> SetSampler:
        """The order of the images and the sentences of each."""
        return SetSampler(self.train.dataset.owner, stage.batch_size, self.turns, self.recipe.seed, number, world,
                          self.train.usable)  # fmt: skip

    def trainee(self, *parts: Any) -> SetTrainee:
        """As :meth:`PairWork.trainee`."""
        return SetTrainee(*parts, combine=self.combine)

    def block(self, stage: StageConfig, batch: np.ndarray, rng: np.random.Generator, rank: int, world: int) -> Block:
        """One block as tensors on the CPU.

        This process's images (n), their sentences with the size of each set ``(tokens, (n,))``, and which sets say the
        same in each round (T, P, P). ``batch`` (T, P) are caption rows, -1 where a set has no more.
        """
        return self._block(self.train, batch, rng, stage.word_dropout, rank, world)

    def _block(self, split: Split, batch: np.ndarray, rng: Any, dropout: float, rank: int, world: int) -> Block:
        rows, data = shard(batch, rank, world).T, split.dataset  # (n,T)
        sizes = (rows >= 0).sum(1)
        if self.combine == "paragraph":
            said = [[data.captions[c] for c in row if c >= 0] for row in rows]
            joined = LiveFeed(split.texts.backbone, [text for one in said for text in paragraphs(one)])
            texts = joined.take(np.arange(len(joined.items)), rng, dropout)
        else:
            texts = split.texts.take(rows[rows >= 0], rng, dropout)
        images = split.images.take(data.owner[rows[:, 0]])
        return images, (texts, torch.from_numpy(sizes)), self._duplicates(split, batch)

    def _duplicates(self, split: Split, batch: np.ndarray) -> Tensor:
        captions, owners = split.dataset.captions, split.dataset.owner[batch[0]].tolist()
        said = [[captions[c].lower().strip() for c in column if c >= 0] for column in batch.T]
        alone = self.combine == "rank_fusion"  # each sentence is trained by itself

        def key(sentences: list[str], turn: int) -> str:
            return sentences[min(turn, len(sentences) - 1)] if alone else "\n".join(sorted(sentences[: turn + 1]))

        return torch.stack([find_duplicates(owners, [key(s, turn) for s in said]) for turn in range(len(batch))])

    # validation --------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def validate(self, matcher: Matcher, trainee: Any, stage: StageConfig, device: Any) -> dict[str, float]:
        """R@1/5/10 of the last round and their sum ``rsum`` on the fixed sets of the validation split.

        ``rounds``, the mean of that sum over all rounds, and ``val_loss`` are added where the stage keeps the best of
        these.
        """
        rows, head = self._fixed(), matcher.head
        data, kept = self.val.dataset, self.val.images.kept
        place = np.full(len(data), -1)
        place[kept] = np.arange(len(kept))
        owner, ids = data.owner[rows[:, 0]], [data.image_ids[i] for i in kept]
        sets = QuerySets([data.captions[c] for c in rows[rows >= 0]], (rows >= 0).sum(1), place[owner],
                         [data.image_ids[i] for i in owner])  # fmt: skip
        gallery = encode_feed(self.val.images, kept, head.prepare_gallery, device)
        if self.combine == "paragraph":
            joined = combined_texts(sets, self.combine)
            texts = encode_feed(LiveFeed(matcher.text, joined), np.arange(len(joined)), head.prepare_queries, device)
        else:
            texts = encode_feed(self.val.texts, rows[rows >= 0], head.prepare_queries, device)
        queries = head.combine_sets(texts, sets.sizes.tolist()) if self.combine == "head" else texts
        scorer, last = RoundScorer(matcher, sets, queries, gallery, self.combine), stage.keep != "rounds"
        counter = Counter(sets, ids, rounds=1 if last else sets.longest)
        with scoring_in(matcher, "32"):  # as ever: a resumed run chooses among its weights as it began
            for chosen in scorer.blocks():
                counter.add(chosen, scorer.score(chosen, last).cpu().numpy())
        ranks = counter.counts().ranks()
        columns = round_columns(ranks)
        values = values_of(columns)
        metrics = {name: values[f"round{len(ranks)}_{name}"] for name in ("r1", "r5", "r10")} | {"rsum": values["rsum"]}
        if stage.keep == "rounds":
            metrics["rounds"] = sum(values[c.name] for c in columns if c.unit == "percent" and not c.parts) / len(ranks)
        if stage.keep == "loss":
            metrics["val_loss"] = self._loss(trainee, stage, rows, device)
        return metrics

    def _fixed(self) -> np.ndarray:
        """Caption rows (M,T) of the first usable sentences of each validation image, -1 where it has no more."""
        owner = self.val.dataset.owner
        kept = np.flatnonzero(self.val.usable)
        kept = kept[np.argsort(owner[kept], kind="stable")]
        _, start, count = np.unique(owner[kept], return_index=True, return_counts=True)
        place = np.arange(min(self.turns, int(count.max())))[None]  # (1,T)
        return np.where(place < count[:, None], kept[start[:, None] + np.minimum(place, count[:, None] - 1)], -1)

    def _loss(self, trainee: SetTrainee, stage: StageConfig, rows: np.ndarray, device: Any) -> float:
        """The stage's loss over the fixed sets in batches of its size, a mean over the sets."""
        alone = SetTrainee(trainee.head, trainee.loss, trainee.image, trainee.text, Gather(), trainee.coarse_loss,
                           trainee.coarse_weight, combine=self.combine).eval()  # fmt: skip
        total, count = 0.0, 0
        for start in range(0, len(rows), stage.batch_size):
            batch = rows[start : start + stage.batch_size].T
            if batch.shape[1] > 1:  # one set alone has no negatives
                block = self._block(self.val, batch, None, 0.0, 0, 1)
                loss, _ = alone(*(block_to(part, device) for part in block))
                total, count = total + float(loss) * batch.shape[1], count + batch.shape[1]
        return total / max(count, 1)
