"""The recipe: dataset + backbones + head + stages + protocol, as dataclasses that check themselves."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from xretrieve.errors import XRetrieveError, unknown

Part = Literal["image", "text", "head"]
PARTS = ("image", "text", "head")


def _need(ok: bool, key: str, value: Any, wanted: str) -> None:
    if not ok:
        raise XRetrieveError(f"recipe key {key!r}: must be {wanted}, got {value!r}")


@dataclass
class DatasetConfig:
    """Which pictures and captions."""

    name: str
    """dataset name, one of `xretrieve data list`"""
    root: str | None = None
    """data root; default XRETRIEVE_DATA, else ./data"""
    layout: str | None = None
    """karpathy or precomp; default: what is found there"""
    options: dict[str, Any] = field(default_factory=dict)
    """further options of the dataset (for `scenes`: how many scenes, the seed)"""


@dataclass
class BackboneConfig:
    """One encoder."""

    backbone: str
    """its name, for example timm:mobilenetv2_100 or words"""
    weights: str | None = None
    """a local weights file: as given, or below the data root"""
    frozen: bool = False
    """never trained; its tokens are computed once and cached"""
    options: dict[str, Any] = field(default_factory=dict)
    """further options of the backbone"""


@dataclass
class HeadConfig:
    """The model that scores."""

    name: str
    """one of xr.list_heads()"""
    options: dict[str, Any] = field(default_factory=dict)
    """further options of the head"""


@dataclass
class LossConfig:
    """The training signal."""

    name: str
    """one of xretrieve.training.list_losses()"""
    options: dict[str, Any] = field(default_factory=dict)
    """further options of the loss"""


@dataclass
class DomainConfig:
    """Single-modality queries: descriptions and pictures of the dataset, no triplets."""

    tasks: list[Literal["t2i", "i2i", "attributes"]] = field(default_factory=lambda: ["t2i", "i2i"])
    """t2i: a description finds its picture, and back; i2i: a picture finds another view of its item, and back;
    attributes: known tags are read off the picture, and off its description by a head that reads attributes"""
    i2i_weight: float = 1.0
    """factor on the loss of i2i"""
    attribute_weight: float = 1.0
    """factor on the loss of attributes"""
    shared_tags: int = 0
    """i2i: where an item has no second photo, one of an item with at least this many tags in common is taken; 0: no.
    Else the picture is flipped and cropped twice (in cached features nothing but dropout differs)"""

    def __post_init__(self) -> None:
        _need(len(self.tasks) > 0 and len({*self.tasks}) == len(self.tasks), "domain.tasks", self.tasks,
              "a list of t2i, i2i, attributes, each at most once")  # fmt: skip
        for key in ("i2i_weight", "attribute_weight", "shared_tags"):
            _need(0 <= getattr(self, key) < math.inf, f"domain.{key}", getattr(self, key), "0 or more")


@dataclass
class CompositionConfig:
    """Triplets: a reference picture and a modification text find the target picture."""

    label: Literal["none", "logprob", "cosine", "grid"] = "logprob"
    """what teaches a head's weights of image and text, beside the match: how well each alone finds the target"""
    label_weight: float = 1.0
    """factor on it"""
    label_tau: float = 0.05
    """temperature of the softmax over the batch's targets in the label"""
    label_kappa: float = 4.0
    """temperature of the logprob label; large values give 1/2"""
    texts: str = ""
    """caption mode in training; default: the protocol's (and-random where that is `and`)"""
    same: list[str] = field(default_factory=list)
    """metadata keys: targets that agree in all of them count as each other's duplicates"""
    attribute_weight: float = 0.0
    """factor on reading the tags of references and targets, of a head that reads attributes"""

    def __post_init__(self) -> None:
        for key in ("label_weight", "attribute_weight"):
            _need(0 <= getattr(self, key) < math.inf, f"composition.{key}", getattr(self, key), "0 or more")
        for key in ("label_tau", "label_kappa"):
            _need(0 < getattr(self, key) < math.inf, f"composition.{key}", getattr(self, key), "above 0")


@dataclass
class StageConfig:
    """One pass of training with its own optimizer; a recipe has one or more.

    A later stage starts from the best weights so far.
    """

    loss: LossConfig | None
    """what is minimised; null trains the coarse vectors alone, by `coarse_loss`"""
    epochs: int
    """passes over the items"""
    coarse_loss: LossConfig | None = None
    """a second loss, on the cosines of a local head's coarse vectors: they can then pick candidates for the head"""
    coarse_weight: float = 1.0
    """factor on it"""
    freeze_coarse: bool = False
    """only what scores pairs learns: a local head's projections and coarse vectors stay as earlier stages left them"""
    domain: DomainConfig | None = None
    """task composed: the stage learns from descriptions and pictures of the domain (stage 2 of the three)"""
    composition: CompositionConfig | None = None
    """task composed: the stage learns from triplets (stage 3)"""
    skip: bool = False
    """the stage is left out, as if it were not listed"""
    chunk: int = 0
    """task composed: sides that learn are encoded this many items at a time, and once more in the backward pass: large
    batches in the memory of a chunk, the same gradients; 0: all at once"""
    group: int = 0
    """pairs are scored within groups of this many items of a batch, 0 for all pairs; for heads that score tokens"""
    group_pool: int = 0
    """groups are of items alike in the coarse space at the stage's start, out of this many; 0: groups at random"""
    name: str = "train"
    """shown in the log"""
    batch_size: int = 128
    """items of one in-batch block, over all devices together"""
    lr: float = 5e-4
    """peak learning rate"""
    lr_scale: dict[str, float] = field(default_factory=dict)
    """factor on lr for a part, for example {image: 0.1}, or for what of it has a name, for example {head.image: 0.1};
    the longest name counts; 0 is not allowed, leave the part out of `train` instead"""
    optimizer: Literal["adam", "adamw"] = "adamw"
    """adam (no decoupled decay) or adamw"""
    weight_decay: float = 0.0
    """on matrices only; vectors, biases and the temperature are left alone"""
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    """cosine to 0 at the last step, step (x step_factor every step_epochs), or constant; moved on every step"""
    step_epochs: int = 10
    """epochs between two drops of the step schedule"""
    step_factor: float = 0.1
    """factor of one drop"""
    warmup_steps: int = 0
    """optimizer steps of linear warm-up from 0"""
    warmup_epochs: float = 0.0
    """the same in epochs; give one of the two"""
    clip: float = 0.0
    """largest global gradient norm, 0 for no clipping"""
    accumulate: int = 1
    """blocks whose gradients are averaged before one optimizer step; negatives come from one block"""
    precision: Literal["auto", "32", "bf16", "fp16"] = "auto"
    """of a step's products: auto is bf16 or fp16 where the device computes it natively, else 32; losses stay float32"""
    token_dropout: float = 0.0
    """share of an image's local tokens hidden per sample in training, at least one stays (VSE-infinity: 0.2)"""
    word_dropout: float = 0.0
    """share of a caption's words left out per sample in training, at least one stays"""
    batching: Literal["captions", "images"] = "captions"
    """an item is a caption (an image comes once per caption), or an image with random captions, drawn each epoch"""
    captions_per_image: int = 1
    """with batching images: captions an image brings; it is encoded once, each set of captions is a loss by itself"""
    train: list[Part] | None = None
    """parts that learn; default: the head and every backbone that is not frozen"""
    eval_every: int = 1
    """epochs between validations; the last epoch is always validated"""
    keep: Literal["rsum", "rounds", "loss"] = "rsum"
    """what the kept weights are best at: validation rsum (of query sets: R@1 + R@5 + R@10 of the last round; of
    composed queries: the protocol's headline); for query sets also its mean over all rounds, or the lowest validation
    loss"""
    patience: int = 0
    """validations without a better value of `keep` before the stage stops, 0 for never"""
    ema: float = 0.0
    """decay of a moving average of the weights that is validated and kept instead, 0 for none"""

    def __post_init__(self) -> None:
        for key in ("epochs", "batch_size", "accumulate", "eval_every", "step_epochs", "captions_per_image"):
            _need(getattr(self, key) >= 1, key, getattr(self, key), "at least 1")
        _need(
            self.batch_size >= 2, "batch_size", self.batch_size, "at least 2: the negatives are the rest of the batch"
        )
        for key in ("lr", "step_factor", "coarse_weight"):
            _need(0 < getattr(self, key) < math.inf, key, getattr(self, key), "above 0")
        for key in ("weight_decay", "warmup_steps", "warmup_epochs", "clip", "patience"):
            _need(0 <= getattr(self, key) < math.inf, key, getattr(self, key), "0 or more")
        for key in ("token_dropout", "word_dropout", "ema"):
            _need(0 <= getattr(self, key) < 1, key, getattr(self, key), "at least 0 and below 1")
        _need(
            not (self.warmup_steps and self.warmup_epochs),
            "warmup_epochs",
            self.warmup_epochs,
            "0 when warmup_steps is given",
        )
        _need(
            self.batching == "images" or self.captions_per_image == 1,
            "captions_per_image",
            self.captions_per_image,
            "1 unless batching is images",
        )
        _need(self.loss is not None or self.coarse_loss is not None, "loss", None, "given, unless coarse_loss is")
        _need(
            not self.freeze_coarse or (self.loss is not None and self.coarse_loss is None),
            "freeze_coarse",
            True,
            "false in a stage that trains the coarse vectors; it needs a loss and no coarse_loss",
        )
        for key in ("group", "group_pool", "chunk"):
            _need(getattr(self, key) >= 0, key, getattr(self, key), "0 or more")
        _need(
            not self.group or (self.group > 1 and self.batch_size % self.group == 0),
            "group",
            self.group,
            f"0, or a divisor of batch_size ({self.batch_size}) above 1",
        )
        _need(
            not self.group_pool or self.group_pool >= self.group > 0,
            "group_pool",
            self.group_pool,
            f"0, or at least group ({self.group}, itself above 0)",
        )
        _need(
            not self.freeze_coarse or self.train in (None, ["head"]),
            "train",
            self.train,
            "[head] or left out with freeze_coarse",
        )
        _need(self.train is None or len(self.train) > 0, "train", self.train, "a list of image, text, head")
        for part, factor in self.lr_scale.items():
            if str(part).split(".")[0] not in PARTS:
                raise XRetrieveError(f"recipe key 'lr_scale': {unknown('part', str(part), PARTS)}")
            _need(isinstance(factor, (int, float)) and factor > 0, f"lr_scale.{part}", factor, "above 0")


@dataclass
class MemberConfig:
    """One model of an ensemble."""

    recipe: str
    """a recipe's name or file, or the folder of a finished run"""
    overrides: dict[str, Any] = field(default_factory=dict)
    """keys set in this member's recipe, for example {head.options.stream: i2t}"""
    name: str = ""
    """its folder below members/; default: the last part of `recipe`"""


@dataclass
class Recipe:
    """Everything that makes a run, and the result it should give: one model, or an ensemble of several."""

    name: str
    """for people: the default folder is runs/<last part of the name>"""
    dataset: DatasetConfig
    """trained on its train split, chosen on val, reported on test"""
    protocol: str
    """how the test split is measured, one of xretrieve.evaluation's protocols"""
    image: BackboneConfig | None = None
    """image side"""
    text: BackboneConfig | None = None
    """text side"""
    head: HeadConfig | None = None
    """the model between them"""
    stages: list[StageConfig] = field(default_factory=list)
    """trained one after the other"""
    members: list[str | MemberConfig] = field(default_factory=list)
    """instead of image, text, head and stages: models to train, or finished runs; their scores are averaged"""
    fusion: Literal["mean", "logit"] = "mean"
    """with members: mean of the probabilities (where scores are logits, else of the scores), or logit: of the logits"""
    overrides: dict[str, Any] = field(default_factory=dict)
    """with members: keys set in every member's recipe, before its own; dataset, protocol and seed are set anyway"""
    start: str | None = None
    """a run folder whose weights the first stage starts from, wherever name and shape agree; default: fresh weights.
    For task composed this is stage 1, where the backbones' own weights do not share a space"""
    task: str = "image_text"
    """folder of tasks/ that it belongs to"""
    turns: int = 0
    """task multi_query: sentences of a set in training and validation; default: the protocol's rounds, else 10"""
    combine: Literal["", "head", "mean_similarity", "rank_fusion", "paragraph"] = ""
    """task multi_query: how sentences become a set; default: the head reads the sets itself. Or the mean of their
    scores, the mean of the ranks that they give, or their text joined into one"""
    seed: int = 0
    """start weights, order of the items, dropout"""
    save_every: int = 0
    """optimizer steps between two resume points, 0 for the ends of epochs only"""
    log: Literal["csv", "tensorboard"] = "csv"
    """log.csv is always written; tensorboard adds its event files"""
    expect: dict[str, Any] = field(default_factory=dict)
    """what it should give: {metric: [low, high]}"""
    published: list[str] = field(default_factory=list)
    """rows of xretrieve.evaluation.published to print beside the result, marked as published"""
    description: str = ""
    """one or two sentences for people"""

    def __post_init__(self) -> None:
        self._check_members() if self.members else self._check_model()
        _need(0 <= self.seed < 2**31, "seed", self.seed, "a whole number from 0 to 2147483647")
        _need(self.save_every >= 0, "save_every", self.save_every, "0 or more")
        for metric, span in self.expect.items():
            ok = isinstance(span, (list, tuple)) and len(span) == 2 and all(isinstance(v, (int, float)) for v in span)
            _need(ok, f"expect.{metric}", span, "[low, high]")

        _need(self.turns >= 0, "turns", self.turns, "0 or more")
        for key, value in (("turns", self.turns), ("combine", self.combine)):
            _need(not value or self.task == "multi_query", key, value, "left out unless task is multi_query")
        for i, stage in enumerate(self.stages):
            _need(
                not stage.group or self.task == "image_text",
                f"stages.{i}.group",
                stage.group,
                "0 unless task is image_text",
            )
            self._check_composed(i, stage)

    def _check_composed(self, i: int, stage: StageConfig) -> None:
        given = [key for key in ("domain", "composition") if getattr(stage, key) is not None]
        if self.task != "composed":
            for key in (*given, *(["chunk"] if stage.chunk else [])):
                _need(False, f"stages.{i}.{key}", getattr(stage, key), "left out unless task is composed")
            return
        _need(len(given) == 1, f"stages.{i}", stage.name, "a stage with either `domain` or `composition`")
        _need(stage.loss is not None, f"stages.{i}.loss", None, "given")
        for key in ("coarse_loss", "freeze_coarse"):
            _need(not getattr(stage, key), f"stages.{i}.{key}", getattr(stage, key), "left out of task composed")
        _need(stage.captions_per_image == 1, f"stages.{i}.captions_per_image", stage.captions_per_image, "1")

    def _check_members(self) -> None:
        members = [MemberConfig(m) if isinstance(m, str) else m for m in self.members]
        self.members = [*members]
        for key in ("image", "text", "head", "stages"):
            _need(not getattr(self, key), key, getattr(self, key), "left out: an ensemble's members bring their own")
        _need(self.task in ("image_text", "multi_query"), "members", self.task,
              "left out of recipes for other tasks than image_text and multi_query")  # fmt: skip
        _need(len(members) > 1, "members", [m.recipe for m in members], "at least two recipes or runs")
        taken: set[str] = set()
        for member in members:
            name = member.name or member.recipe.rstrip("/").rsplit("/", 1)[-1].removesuffix(".yaml")
            _need("/" not in name and name not in ("", ".", ".."), "members.name", name, "a name without slashes")
            member.name = (
                name
                if name not in taken
                else next(f"{name}-{i}" for i in range(2, len(members) + 2) if f"{name}-{i}" not in taken)
            )
            taken.add(member.name)

    def _check_model(self) -> None:
        for key in ("image", "text", "head"):
            _need(getattr(self, key) is not None, key, None, "given (or `members`, for an ensemble)")
        for key, value in (("fusion", self.fusion != "mean"), ("overrides", self.overrides)):
            _need(not value, key, getattr(self, key), "left out: it is for recipes with `members`")
        _need(any(not stage.skip for stage in self.stages), "stages", self.stages,
              "a list of at least one stage that is not skipped")  # fmt: skip
        _need(not self.stages[0].freeze_coarse or self.start is not None, "stages.0.freeze_coarse", True,
              "false, or `start` given: nothing has trained the coarse vectors yet")  # fmt: skip
        for i, stage in enumerate(self.stages):
            _need(stage.keep == "rsum" or self.task == "multi_query", f"stages.{i}.keep", stage.keep,
                  "rsum unless task is multi_query")  # fmt: skip
            for part in ("image", "text"):
                wants = stage.train is not None and part in stage.train
                _need(
                    not (wants and getattr(self, part).frozen),
                    f"stages.{i}.train",
                    stage.train,
                    f"without {part!r}: it is frozen",
                )

    @property
    def ensemble(self) -> list[MemberConfig]:
        """The members, each with its name; empty for a single model."""
        return [member for member in self.members if isinstance(member, MemberConfig)]

    def trained(self, stage: int) -> list[str]:
        """Parts that learn in a stage: what it lists, else the head and every backbone that is not frozen."""
        listed = self.stages[stage].train
        if self.stages[stage].freeze_coarse:
            return ["head"]
        if listed is not None:
            return [p for p in PARTS if p in listed]
        return [p for p in PARTS if p == "head" or not getattr(self, p).frozen]
