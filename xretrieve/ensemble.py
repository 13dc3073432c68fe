"""`Ensemble`: several matchers whose scores are averaged before anything is ranked.

It encodes and scores like a :class:`xretrieve.Matcher`, so it is evaluated and compared like one. Rows of an ensemble
are marked with a star.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import torch
from torch import Tensor, nn

from xretrieve.backbones.base import Backbone
from xretrieve.errors import XRetrieveError, unknown
from xretrieve.heads.base import Head
from xretrieve.heads.tshsr import fuse_logits
from xretrieve.matcher import Matcher, check_sets, load_saved
from xretrieve.tokens import Prepared
from xretrieve.utils.files import atomic_folder, read_json, write_json

if TYPE_CHECKING:
    from xretrieve.data.cache import FeatureCache

FORMAT = 1
FILE = "ensemble.json"
FUSIONS = ("mean", "logit")
Fusion = Literal["mean", "logit"]


@dataclass
class Bundle:
    """What an ensemble keeps of N items: each member's prepared tokens."""

    parts: list[Prepared]

    def __len__(self) -> int:
        return len(self.parts[0])

    def __getitem__(self, rows: slice | Tensor | Sequence[int]) -> Bundle:
        """Some items, still a batch."""
        return Bundle([part[rows] for part in self.parts])

    def to(self, device: torch.device | str) -> Bundle:
        """Move to a device."""
        return Bundle([part.to(device) for part in self.parts])


def fuse(heads: Sequence[Head], scores: Sequence[Tensor], fusion: Fusion = "mean") -> Tensor:
    """One score from each member's, all of one shape.

    Args:
        heads: of the members: where all their scores are logits of a probability, ``mean`` is the exact logit of the
            mean probability; where none are, it is the mean of the scores.
        scores: of each member, float32.
        fusion: ``mean``, or ``logit``: the mean of the logits themselves (losses that are not taken on probabilities,
            such as InfoNCE, leave them at any offset).
    """
    check_fusion(heads, fusion)
    if fusion == "mean" and heads[0].logits:
        return fuse_logits(*scores)
    return torch.stack(list(scores)).mean(0)


def check_fusion(heads: Sequence[Head], fusion: str) -> None:
    """An unknown fusion, or heads whose scores have no common scale, are an error."""
    if fusion not in FUSIONS:
        raise unknown("fusion", str(fusion), FUSIONS)
    kinds = {head.logits: head.name for head in heads}
    if len(kinds) > 1:
        raise XRetrieveError(
            f"head {kinds[True]!r} gives logits of probabilities and head {kinds[False]!r} cosines: their mean means "
            "nothing; average heads of one kind (sgr, saf, tshsr; or cosine, dual, scan)"
        )
    if fusion == "logit" and not heads[0].logits:
        raise XRetrieveError(f"fusion 'logit' is for heads that give logits, not {heads[0].name!r}; use 'mean'")


class Ensemble(nn.Module):
    """Some matchers, averaged with equal weights.

    Args:
        members: by name, at least two.
        fusion: see :func:`fuse`.
        name: shown in reports.
        source: the folder it was loaded from.
    """

    def __init__(
        self, members: Mapping[str, Matcher], fusion: Fusion = "mean", name: str = "", source: str = ""
    ) -> None:
        super().__init__()
        if len(members) < 2:
            raise XRetrieveError(f"an ensemble needs at least two members, got {list(members)}")
        self.members = nn.ModuleList(members.values())
        check_fusion([m.head for m in members.values()], fusion)
        self.names, self.fusion, self.source = list(members), fusion, source
        self.name = name or " + ".join(self.names)
        self.eval()

    @property
    def matchers(self) -> list[Matcher]:
        """The members, in the order of ``names``."""
        return [member for member in self.members if isinstance(member, Matcher)]

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return self.matchers[0].device

    @property
    def precision(self) -> str:
        """That of all members' scores, as :attr:`xretrieve.Matcher.precision`; setting it sets theirs."""
        return self.matchers[0].precision

    @precision.setter
    def precision(self, value: str) -> None:
        """Of all members."""
        for member in self.matchers:
            member.precision = value

    def scored_in(self) -> str:
        """As :meth:`xretrieve.Matcher.scored_in`, of all members."""
        return " + ".join(dict.fromkeys(member.scored_in() for member in self.matchers))

    @torch.inference_mode()
    def encode_images(
        self,
        items: Sequence[Any],
        ids: Sequence[str] | None = None,
        batch_size: int = 64,
        cache: FeatureCache | None = None,
        progress: bool = False,
    ) -> Bundle:
        """As :meth:`xretrieve.Matcher.encode_images`; an image backbone that members share sees each picture once."""
        return self._encode("image", items, ids=ids, batch_size=batch_size, cache=cache, progress=progress)

    @torch.inference_mode()
    def encode_texts(
        self, texts: Sequence[str], batch_size: int = 256, cache: FeatureCache | None = None, progress: bool = False
    ) -> Bundle:
        """As :meth:`xretrieve.Matcher.encode_texts`; a text backbone that members share sees each text once."""
        return self._encode("text", texts, batch_size=batch_size, cache=cache, progress=progress)

    def _encode(self, side: str, items: Sequence[Any], **how: Any) -> Bundle:
        self.eval()
        groups: dict[str, list[int]] = {}
        for i, member in enumerate(self.matchers):
            groups.setdefault(getattr(member, side).fingerprint(), []).append(i)
        parts: dict[int, Prepared] = {}
        for places in groups.values():
            heads = [self.matchers[i].head for i in places]
            lead = self.matchers[places[0]]
            encode = lead.encode_images_for if side == "image" else lead.encode_texts_for
            parts |= dict(zip(places, encode(heads, items, **how), strict=True))
        return Bundle([parts[i] for i in range(len(self.matchers))])

    @torch.inference_mode()
    def score(self, queries: Bundle, gallery: Bundle) -> Tensor:
        """float32 scores (Q, G): the members' own, fused."""
        sides = zip(self.matchers, queries.parts, gallery.parts, strict=True)
        return fuse([m.head for m in self.matchers], [m.score(q, g) for m, q, g in sides], self.fusion)

    @torch.inference_mode()
    def encode_sets(
        self,
        sets: Sequence[Sequence[str]],
        batch_size: int = 256,
        cache: FeatureCache | None = None,
        progress: bool = False,
    ) -> Bundle:
        """As :meth:`xretrieve.Matcher.encode_sets`; a text backbone that members share sees each sentence once."""
        sizes = check_sets(sets)
        texts = self.encode_texts([text for said in sets for text in said], batch_size, cache, progress)
        members = zip(self.matchers, texts.parts, strict=True)
        return Bundle([member.head.combine_sets(part, sizes) for member, part in members])

    @torch.inference_mode()
    def score_rounds(self, queries: Bundle, gallery: Bundle) -> Tensor:
        """float32 scores (T, N, M) of query sets after each round: the members' own, fused."""
        sides = zip(self.matchers, queries.parts, gallery.parts, strict=True)
        return fuse([m.head for m in self.matchers], [m.score_rounds(q, g) for m, q, g in sides], self.fusion)

    def fingerprint(self) -> str:
        """Hash of the members' fingerprints and of how they are fused."""
        about = [self.fusion, [member.fingerprint() for member in self.matchers]]
        return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]

    def save(self, folder: str | Path) -> Path:
        """Write ``ensemble.json`` and ``members/<name>/``; an existing folder is replaced whole."""
        folder = Path(folder)
        with atomic_folder(folder) as part:
            for name, member in zip(self.names, self.matchers, strict=True):
                member.save(part / "members" / name)
            self.describe(part)
        return folder

    def describe(self, folder: Path) -> None:
        """Write ``ensemble.json`` into a folder that holds the members as ``members/<name>/``."""
        about = {"format": FORMAT, "name": self.name, "fusion": self.fusion, "members": self.names}
        write_json(folder / FILE, about | {"fingerprint": self.fingerprint()})

    @classmethod
    def load(cls, folder: str | Path) -> Ensemble:
        """Read what :meth:`save` or a training of a recipe with ``members`` wrote."""
        folder = Path(folder)
        about = read_json(folder / FILE)
        names = about.get("members") if isinstance(about, dict) and about.get("format") == FORMAT else None
        if not isinstance(names, list) or any(not isinstance(n, str) or Path(n).name != n for n in names):
            raise XRetrieveError(f"{folder / FILE} is not an ensemble of format {FORMAT}")
        members = {name: load_saved(folder / "members" / name) for name in names}
        return cls(members, about.get("fusion", "mean"), str(about.get("name", "")), str(folder))

    # what an average of scores cannot do ---------------------------------------------------------------------------

    @property
    def head(self) -> Head:
        """Refused: each member has its own."""
        self.refuse()

    @property
    def image(self) -> Backbone:
        """Refused: each member has its own."""
        self.refuse()

    @property
    def text(self) -> Backbone:
        """Refused: each member has its own."""
        self.refuse()

    def encode_query(self, query: Any, coarse: bool = False) -> NoReturn:
        """Refused: see :meth:`index`."""
        self.refuse()

    def index(self, source: Any, out: str | Path, **options: Any) -> NoReturn:
        """Refused: a gallery keeps one head's tokens."""
        self.refuse()

    def refuse(self) -> NoReturn:
        """Raise the error that says what an ensemble is for, and names its members."""
        where = [f"{self.source}/members/{name}" if self.source else name for name in self.names]
        raise XRetrieveError(
            f"{self.name!r} is an average of {len(self.names)} matchers: it can be evaluated and compared, but not "
            f"indexed, searched or explained; index one of its members, each into its own gallery: {', '.join(where)}"
        )
