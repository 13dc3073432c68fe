"""`Matcher`: image backbone + text backbone + head, one thing that loads, saves, encodes and scores."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from xretrieve.backbones import load_backbone
from xretrieve.backbones.base import Backbone
from xretrieve.errors import XRetrieveError
from xretrieve.heads import create_head, head_class
from xretrieve.heads.base import Head
from xretrieve.heads.scoring import in_dtype
from xretrieve.query import Image, ImageText, MultiText, Query, checked_query, texts_of
from xretrieve.tokens import Prepared, Tokens
from xretrieve.utils.checksums import verify
from xretrieve.utils.files import atomic_folder, read_json, write_json
from xretrieve.utils.paths import is_file, is_folder
from xretrieve.utils.precision import DTYPES, described, resolve

if TYPE_CHECKING:
    from xretrieve.data.cache import FeatureCache
    from xretrieve.gallery import Gallery

FORMAT = 1
WEIGHTS = 256 * 2**20  # bytes of weights whose checksums are looked at when they are loaded


def check_sets(sets: Sequence[Sequence[str]]) -> list[int]:
    """The sizes of query sets; none at all, a single string or an empty set is an error."""
    if not len(sets):
        raise XRetrieveError("nothing to encode: the list of query sets is empty")
    for row, said in enumerate(sets):
        if isinstance(said, str) or not len(said):
            raise XRetrieveError(f"query set {row}: give a list of at least one sentence, got {said!r}")
    return [len(said) for said in sets]


def build_head(name: str, image: Backbone, text: Backbone, **options: Any) -> Head:
    """A head of the right widths for two backbones (see :func:`xretrieve.heads.create_head`)."""
    cls = head_class(name)
    widths = {}
    for side, backbone in (("image", image), ("text", text)):
        reads = cls.reads(side, options)
        widths[f"{side}_dim"] = backbone.pooled_dim if reads == "pooled" else backbone.local_dim
    return create_head(name, **widths, **options)


class Matcher(nn.Module):
    """Encodes pictures, texts and queries, and scores them.

    Args:
        image: image backbone.
        text: text backbone.
        head: the task's head, built for these two backbones (:func:`build_head`).
        name: shown in reports.
        source: where :func:`load` finds it again: a run folder or a model name.
        source_options: the options that :func:`load` was given with it.

    ``precision`` is that of scores that are made token by token: ``auto`` (bf16 or fp16 where the device computes it
    natively, else float32), ``32``, ``bf16`` or ``fp16``. Encoding, coarse vectors and their products are float32.
    """

    precision: str = "auto"

    def __init__(
        self,
        image: Backbone,
        text: Backbone,
        head: Head,
        name: str = "",
        source: str = "",
        source_options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        for side, backbone in (("image", image), ("text", text)):
            if backbone.modality != side:
                raise XRetrieveError(
                    f"the {side} side of a matcher needs a backbone of {side}s; "
                    f"{backbone.name} reads {backbone.modality}s"
                )
        self.image, self.text, self.head = image, text, head
        self.name = name or f"{image.name} + {text.name} + {head.name}"
        self.source, self.source_options = source, dict(source_options or {})
        self.eval()

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return next((p.device for p in self.parameters()), torch.device("cpu"))

    def pair_dtype(self, precision: str | None = None) -> torch.dtype | None:
        """``dtype`` of :func:`xretrieve.heads.scoring.score_matrix` in ``precision``, by default the matcher's own."""
        if self.head.pair_stage is None:
            return None
        return DTYPES[resolve(self.precision if precision is None else precision, self.device)]

    def scored_in(self, precision: str | None = None) -> str:
        """What :meth:`score` computes in, and why, for people."""
        if self.head.pair_stage is None:
            return "float32 (inner products)"
        return described(self.precision if precision is None else precision, self.device)

    def reads(self, side: str) -> str:
        """What the head takes from the backbone of ``side`` (`image`, `text`): its `local` or its `pooled` tokens."""
        return self.head.reads(side, self.head.config)

    @torch.inference_mode()
    def encode_images(
        self,
        items: Sequence[Any],
        ids: Sequence[str] | None = None,
        batch_size: int = 64,
        cache: FeatureCache | None = None,
        progress: bool = False,
    ) -> Prepared:
        """Pictures (paths, PIL images or feature rows) to prepared gallery tokens, N rows.

        With a ``cache`` the backbone's tokens are read from it, and written to it where they are missing.
        A picture that cannot be read, or features with NaN, raise an error that names it.
        """
        return self.encode_images_for([self.head], items, ids, batch_size, cache, progress)[0]

    @torch.inference_mode()
    def encode_images_for(
        self,
        heads: Sequence[Head],
        items: Sequence[Any],
        ids: Sequence[str] | None = None,
        batch_size: int = 64,
        cache: FeatureCache | None = None,
        progress: bool = False,
    ) -> list[Prepared]:
        """As :meth:`encode_images`, for several heads over this image backbone, which sees each picture once."""
        return self._encode(self.image, heads, items, ids, batch_size, cache, progress)

    @torch.inference_mode()
    def encode_texts(
        self, texts: Sequence[str], batch_size: int = 256, cache: FeatureCache | None = None, progress: bool = False
    ) -> Prepared:
        """Texts to prepared query tokens, N rows.

        The ``cache`` serves a frozen text backbone only: what a trained one computes is cheap and no other run uses it.
        """
        return self.encode_texts_for([self.head], texts, batch_size, cache, progress)[0]

    @torch.inference_mode()
    def encode_texts_for(
        self,
        heads: Sequence[Head],
        texts: Sequence[str],
        batch_size: int = 256,
        cache: FeatureCache | None = None,
        progress: bool = False,
    ) -> list[Prepared]:
        """As :meth:`encode_texts`, for several heads over this text backbone, which sees each text once."""
        cache = cache if self.text.frozen else None
        return self._encode(self.text, heads, texts, None, batch_size, cache, progress)

    def _encode(
        self,
        backbone: Backbone,
        heads: Sequence[Head],
        items: Sequence[Any],
        ids: Sequence[str] | None,
        batch_size: int,
        cache: FeatureCache | None,
        progress: bool,
    ) -> list[Prepared]:
        if not len(items):
            raise XRetrieveError(f"nothing to encode: the list of {backbone.modality}s is empty")
        was_training = self.training
        if any(part.training for part in (self, backbone, *heads)):  # a trainer switches whole parts
            self.eval()  # walks through all modules, which a single text would feel
        stored = (
            cache.encode(backbone, items, ids=ids, batch_size=batch_size, progress=progress)
            if cache is not None
            else None
        )
        side = backbone.modality
        only_pooled = all(head.reads(side, head.config) == "pooled" for head in heads)
        pooled = stored.pooled if stored is not None and only_pooled else None
        parts: list[list[Prepared]] = [[] for _ in heads]
        for start in range(0, len(items), batch_size):
            rows = range(start, min(start + batch_size, len(items)))
            if pooled is not None:  # the local tokens stay on disk
                tokens = Tokens.from_pooled(pooled[rows.start : rows.stop])
            elif stored is not None:
                tokens = stored[list(rows)]
            else:
                tokens = backbone.encode([items[i] for i in rows], batch_size)
            tokens.check_finite([str(ids[i]) if ids is not None else str(items[i]) for i in rows])
            tokens = tokens.to(self.device)
            for head, done in zip(heads, parts, strict=True):
                done.append(head.prepare_gallery(tokens) if side == "image" else head.prepare_queries(tokens))
        if was_training:
            self.train()
        return [Prepared.cat(done) for done in parts]

    @torch.inference_mode()
    def encode_query(self, query: Query | str, coarse: bool = False) -> Prepared:
        """Any query to one row of prepared tokens; a plain string is taken as :class:`Text`.

        With ``coarse`` only the coarse vector is made, which answers more kinds of queries than some heads can score;
        a kind that the head cannot answer is a :class:`~xretrieve.errors.QueryKindError`.
        """
        query = checked_query(query)
        image = self.encode_images([query.image]) if isinstance(query, (Image, ImageText)) else None
        said = texts_of(query)
        return self.combine_query(query, image, self.encode_texts(said) if said else None, coarse)

    @torch.inference_mode()
    def combine_query(
        self, query: Query, image: Prepared | None, texts: Prepared | None, coarse: bool = False
    ) -> Prepared:
        """One query from its parts: its ``image`` (one row) and its ``texts`` (one row each), encoded by this matcher.

        ``coarse`` as in :meth:`encode_query`.
        """
        if coarse:
            image = Prepared.from_pooled(image.pooled) if image is not None else None
            texts = Prepared.from_pooled(texts.pooled) if texts is not None else None
        if isinstance(query, ImageText):
            assert image is not None and texts is not None
            return self.head.combine_image_text(image, texts)
        if isinstance(query, Image):
            assert image is not None
            return self.head.image_query(image)
        assert texts is not None
        return self.head.combine_texts(texts) if isinstance(query, MultiText) else texts

    def encode_sets(
        self,
        sets: Sequence[Sequence[str]],
        batch_size: int = 256,
        cache: FeatureCache | None = None,
        progress: bool = False,
    ) -> Prepared:
        """Query sets, each some sentences in the order in which they were said, to M prepared queries.

        All sentences are encoded together (see :meth:`encode_texts`); an empty set is an error.
        """
        sizes = check_sets(sets)
        texts = self.encode_texts([text for said in sets for text in said], batch_size, cache, progress)
        with torch.inference_mode():
            return self.head.combine_sets(texts, sizes)

    @torch.inference_mode()
    def score(self, queries: Prepared, gallery: Prepared) -> Tensor:
        """float32 scores (Q, G); the head computes them in ``precision``."""
        with in_dtype(queries.device, self.pair_dtype()):
            return self.head.score(queries, gallery).float()

    @torch.inference_mode()
    def score_rounds(self, queries: Prepared, gallery: Prepared) -> Tensor:
        """float32 scores (T, N, M) of query sets after each round: round, image, set."""
        from xretrieve.heads.rounds import score_rounds

        return score_rounds(self.head, queries, gallery, dtype=self.pair_dtype()).float()

    def fingerprint(self) -> str:
        """Hash of the backbones' fingerprints, the head's configuration and its weights."""
        digest = hashlib.sha256()
        sides = [self.side_fingerprint(side) for side in ("image", "text")]
        digest.update(json.dumps([*sides, self.head.name, self.head.config], sort_keys=True).encode())
        for key, value in sorted(self.head.state_dict().items()):
            digest.update(key.encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def side_fingerprint(self, side: str) -> str:
        """That of the backbone of ``side`` (`image`, `text`)."""
        return str(getattr(self, side).fingerprint())

    def save(self, folder: str | Path) -> Path:
        """Write ``config.json``, ``head.safetensors``, ``image/`` and ``text/``; an existing one is replaced whole."""
        folder = Path(folder)
        with atomic_folder(folder, sealed=True) as part:
            self.image.save(part / "image")
            self.text.save(part / "text")
            self.save_head(part)
        return folder

    def save_head(self, folder: Path) -> None:
        """Write ``config.json`` and ``head.safetensors`` alone into a folder that is there."""
        state = {k: v.detach().cpu().contiguous() for k, v in self.head.state_dict().items()}
        save_file(state, folder / "head.safetensors")
        config = {"format": FORMAT, "name": self.name, "head": self.head.name, "options": self.head.config}
        write_json(folder / "config.json", config | {"fingerprint": self.fingerprint()})

    @classmethod
    def load(cls, folder: str | Path) -> Matcher:
        """Read what :meth:`save` wrote; anything missing or of a wrong shape is an error that names the file."""
        folder = Path(folder)
        head, name = read_saved(folder)
        loaded = cls(load_backbone(folder / "image"), load_backbone(folder / "text"), head, name, str(folder))
        verify(folder, WEIGHTS)
        return loaded

    def index(self, source: Any, out: str | Path, **options: Any) -> Gallery:
        """Build a gallery over a folder of pictures or a dataset (see :meth:`xretrieve.Gallery.build`)."""
        from xretrieve.gallery import Gallery

        return Gallery.build(self, source, out, **options)


def read_saved(folder: Path) -> tuple[Head, str]:
    """The head and the name of a saved matcher."""
    config = read_json(folder / "config.json")
    if not isinstance(config, dict) or config.get("format") != FORMAT or "head" not in config:
        raise XRetrieveError(f"{folder / 'config.json'} is not a matcher of format {FORMAT}")
    head = head_class(config["head"])(**config["options"])
    weights = folder / "head.safetensors"
    try:
        head.load_state_dict(load_file(weights))
    except FileNotFoundError as error:
        raise XRetrieveError(f"no file {weights}; save the matcher again") from error
    except Exception as error:  # safetensors and load_state_dict each raise their own types
        raise XRetrieveError(
            f"{weights} does not fit head {config['head']!r} as {folder / 'config.json'} describes it: {error}"
        ) from error
    return head, config["name"]


def saved_folder(name: str | Path) -> Path | None:
    """The folder of a run, of a matcher or of an ensemble that holds one of the last two; None where there is none."""
    for folder in (Path(name) / "matcher", Path(name)):
        if is_file(folder / "ensemble.json") or (is_file(folder / "config.json") and is_folder(folder / "image")):
            return folder
    return None


def load_saved(folder: str | Path) -> Matcher:
    """The one matcher of a run or matcher folder; ``source`` is that folder."""
    saved = saved_folder(folder)
    if saved is None:
        raise XRetrieveError(
            f"{folder} holds no matcher (no matcher/config.json): give a run folder made by `xretrieve train`"
        )
    matcher = Matcher.load(saved)
    matcher.source = str(folder)
    return matcher
