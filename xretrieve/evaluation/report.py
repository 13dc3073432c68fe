"""`Report`: what one evaluation found, in the terminal, as a folder of files, and as one HTML page."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from xretrieve.errors import XRetrieveError, first_line
from xretrieve.evaluation.bootstrap import Difference, differences, resampled
from xretrieve.evaluation.metrics import DIRECTIONS, Fold, Metric, Metrics, Setting, pair_folds
from xretrieve.evaluation.protocols import Protocol, protocol_from_dict
from xretrieve.evaluation.ranks import RankCounts
from xretrieve.evaluation.rows import MemberRow, PublishedRow
from xretrieve.evaluation.samples import Sample
from xretrieve.utils.atomic import atomic_files, finish_files
from xretrieve.utils.checksums import compare, measure, read_sealed
from xretrieve.utils.files import write_json, write_text
from xretrieve.utils.paths import is_file, is_there

FORMAT = 1


@dataclass
class Report:
    """The result of :func:`xretrieve.evaluate`; ``report["rsum"]`` is a metric with its interval.

    Args:
        name: what its row is called in tables; a star at the end marks an ensemble.
        metrics: every number with its setting.
        protocol: the rule behind the numbers.
        counts: per query, the negatives above and level with its answer.
        image_ids, caption_ids: (N,), (C,) names of the queries, in the order of the counts.
        matcher: ``name``, ``fingerprint`` and ``source`` of the model.
        dataset: ``name``, ``split``, ``layout``, ``images``, ``captions``, ``expected_images``.
        seconds: ``wall`` and ``cpu`` of the whole evaluation, and of its parts.
        versions: of Python, the libraries and the machine.
        precision: what was computed in: ``scored`` here, and ``trained`` where the run says so.
        samples: rankings to look at.
        thumbnails: image id -> small JPEG, for the samples.
        heats: caption id -> small JPEG of its first hit under the heat of the caption
            (:mod:`xretrieve.evaluation.heat`).
        warnings: what a reader must know before comparing.
        members: of an ensemble, the rows of its models.
        published: figures of others that belong beside it (:func:`xretrieve.evaluation.published.published_rows`).
        created: date and time, UTC.
    """

    name: str
    metrics: Metrics
    protocol: Protocol
    counts: RankCounts
    image_ids: list[str]
    caption_ids: list[str]
    matcher: dict[str, str] = field(default_factory=dict)
    dataset: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    precision: dict[str, str] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    thumbnails: dict[str, bytes] = field(default_factory=dict)
    heats: dict[str, bytes] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    members: list[MemberRow] = field(default_factory=list)
    published: list[PublishedRow] = field(default_factory=list)
    created: str = ""

    # what the queries of caption_ids are called in messages, and what a report of this kind is made of
    item, setting_class, sample_class = "caption", Setting, Sample

    def __getitem__(self, name: str) -> Metric:
        return self.metrics[name]

    @property
    def i2t_ranks(self) -> np.ndarray:
        """(N,) 0-based ranks under the protocol's tie rule."""
        return self.counts.i2t(self.protocol.ties)

    @property
    def t2i_ranks(self) -> np.ndarray:
        """(C,) 0-based ranks under the protocol's tie rule."""
        return self.counts.t2i(self.protocol.ties)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the per-query arrays and the pictures, as plain values."""
        return {
            "format": FORMAT,
            "name": self.name,
            "created": self.created,
            "matcher": self.matcher,
            "dataset": self.dataset,
            "protocol": dataclasses.asdict(self.protocol),
            **self.metrics.to_dict(),
            "members": [dataclasses.asdict(row) for row in self.members],
            "published": [dataclasses.asdict(row) for row in self.published],
            "warnings": self.warnings,
            "seconds": self.seconds,
            "versions": self.versions,
            "precision": self.precision,
            "samples": [dataclasses.asdict(sample) for sample in self.samples],
        }

    @property
    def cost(self) -> str:
        """Seconds, and what was computed in, as one line; empty where nothing is known."""
        told = [f"{self.seconds['wall']:.1f} s wall, {self.seconds['cpu']:.1f} s CPU"] if "wall" in self.seconds else []
        return "; ".join([*told, *(f"{what} in {used}" for what, used in self.precision.items())])

    def to_json(self) -> str:
        """:meth:`to_dict` as text."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False)

    def save(
        self,
        folder: str | Path,
        *,
        rows: Sequence[Report] = (),
        published: Sequence[Any] = (),
        log: str | Path | None = None,
        leads: Sequence[Any] = (),
    ) -> Path:
        """Write ``report.json``, ``ranks.npz`` and ``report.html`` into a folder: all three, or none.

        Args:
            folder: made if it is missing; other files in it are left alone.
            rows, published, log, leads: see :func:`xretrieve.evaluation.html.render`; ``log`` defaults to
                ``folder/log.csv``.
        """
        folder = Path(folder)
        if log is None and is_file(folder / "log.csv"):
            log = folder / "log.csv"
        page = self.page(rows=rows, published=published, log=log, leads=leads)
        arrays = self._arrays()
        arrays |= {"image_ids": np.array(self.image_ids), "caption_ids": np.array(self.caption_ids)}
        arrays |= _pack("thumb", self.thumbnails) | _pack("heat", self.heats)
        with atomic_files(folder) as part:
            with open(part / "ranks.npz", "wb") as handle:
                np.savez_compressed(handle, **arrays)
            write_text(part / "report.html", page)
            files = {name: measure(part / name) for name in ("ranks.npz", "report.html")}
            write_json(part / "report.json", {**self.to_dict(), "files": files}, sealed=True)
        return folder

    def page(self, **options: Any) -> str:
        """The HTML page; options as in :func:`xretrieve.evaluation.html.render`."""
        from xretrieve.evaluation.html import render

        return render(self, **options)

    @property
    def headline(self) -> Metric:
        """The metric that stands beside a report's name, with its interval."""
        return self["rsum"]

    def draws(self, resamples: int = 1000, seed: int = 0) -> dict[str, np.ndarray]:
        """Metric name -> (resamples,) float64; reports on the same data draw the same queries, which pairs them."""
        folds = self.folds(self.counts, self.protocol, self.protocol.ties)
        return resampled(folds, resamples=resamples, seed=seed)

    def differences(self, other: Report, resamples: int, seed: int) -> dict[str, Difference]:
        """Metric by metric, ``other`` minus this one, on the same resamples; a number of the data alone has none."""
        self.check_pairs(other)
        drawn = [report.draws(resamples, seed) for report in (self, other)]
        found = differences(*drawn, self.metrics.values, other.metrics.values)
        return {column.name: found[column.name] for column in self.metrics.columns if column.better}

    def check_pairs(self, other: Report) -> None:
        """An error where the queries of two reports with the same names are not the same."""

    def main_metrics(self) -> list[str]:
        """The metrics that a table of models shows, the one that models are compared by first."""
        return ["rsum", *(f"{direction}_r{k}" for direction in DIRECTIONS for k in self.protocol.ks)]

    def _arrays(self) -> dict[str, Any]:
        """The per-query arrays of ranks.npz."""
        counts = {f.name: getattr(self.counts, f.name) for f in dataclasses.fields(self.counts)}
        return counts | {"i2t_ranks": self.i2t_ranks, "t2i_ranks": self.t2i_ranks}

    @classmethod
    def _counts(cls, arrays: Any) -> Any:
        """The counts from the arrays of ranks.npz."""
        names = [f.name for f in dataclasses.fields(RankCounts) if f.name != "folds"]
        return RankCounts(*(arrays[name] for name in names), int(arrays["folds"]))

    @classmethod
    def folds(cls, counts: Any, protocol: Any, ties: str) -> list[Fold]:
        """What is measured of the counts, under a tie rule, in each gallery."""
        return pair_folds(counts.i2t(ties), counts.t2i(ties), counts.owner, protocol.folds, protocol.ks)

    @classmethod
    def _values(cls, values: dict[str, Any]) -> dict[str, Any]:
        """The rest of the fields from report.json."""
        names = ("name", "matcher", "dataset", "seconds", "versions", "warnings", "created")
        return {
            "samples": [cls.sample_class.from_dict(sample) for sample in values["samples"]],
            "members": [MemberRow(**row) for row in values.get("members", [])],
            "precision": values.get("precision", {}),
            "published": [PublishedRow(**row) for row in values.get("published", [])],
            **{name: values[name] for name in names},
        }

    @classmethod
    def load(cls, folder: str | Path) -> Report:
        """Read what :meth:`save` wrote; a folder without a report is an error that says how to make one.

        A report of query sets comes back as a :class:`~xretrieve.evaluation.round_report.RoundsReport`.
        """
        folder = Path(folder)
        with contextlib.suppress(OSError):  # a disk that takes no writing
            finish_files(folder)
        if not is_there(folder):
            raise XRetrieveError(f"no run folder {str(folder)!r}; give the folder of a run that was evaluated")
        if not is_file(folder / "report.json") or not is_file(folder / "ranks.npz"):
            raise XRetrieveError(
                f"{folder} holds no report (report.json and ranks.npz); run `xretrieve evaluate {folder}`"
            )
        values = read_sealed(folder / "report.json")
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            raise XRetrieveError(f"{folder / 'report.json'} is not a report of format {FORMAT}; evaluate the run again")
        if values.get("protocol", {}).get("task") == "multi_query":
            from xretrieve.evaluation.round_report import RoundsReport

            cls = RoundsReport  # the stored kind decides
        if values.get("protocol", {}).get("task") == "composed":
            from xretrieve.evaluation.composed_report import ComposedReport

            cls = ComposedReport
        try:
            with np.load(folder / "ranks.npz", allow_pickle=False) as arrays:
                counts = cls._counts(arrays)
                image_ids, caption_ids = arrays["image_ids"].tolist(), arrays["caption_ids"].tolist()
                pictures = {"thumbnails": _unpack("thumb", arrays), "heats": _unpack("heat", arrays)}
        except Exception as error:  # a damaged archive or header raises anything
            raise XRetrieveError(
                f"{folder / 'ranks.npz'} is broken ({first_line(error)}); evaluate the run again"
            ) from error
        if "files" in values:  # the ranks are those of these numbers, and not of another evaluation
            compare(folder / "ranks.npz", values["files"]["ranks.npz"])
        ids = {"image_ids": image_ids, "caption_ids": caption_ids}
        protocol = protocol_from_dict(values["protocol"])
        metrics = Metrics.from_dict(values, cls.folds(counts, protocol, protocol.ties)[0].columns, cls.setting_class)
        return cls(metrics=metrics, protocol=protocol, counts=counts, **pictures, **ids, **cls._values(values))

    def __str__(self) -> str:
        from xretrieve.evaluation.terminal import to_text

        return to_text(self)

    def __rich__(self) -> Any:
        from xretrieve.evaluation.terminal import to_rich

        return to_rich(self)


def _pack(kind: str, pictures: dict[str, bytes]) -> dict[str, np.ndarray]:
    """Pictures by name as arrays of ranks.npz."""
    arrays = {f"{kind}_ids": np.array(list(pictures), dtype=str)}
    return arrays | {f"{kind}_{i}": np.frombuffer(jpeg, np.uint8) for i, jpeg in enumerate(pictures.values())}


def _unpack(kind: str, arrays: Any) -> dict[str, bytes]:
    """The inverse of :func:`_pack`; empty where a report was written before there were such pictures."""
    names = arrays[f"{kind}_ids"].tolist() if f"{kind}_ids" in arrays else []
    return {name: arrays[f"{kind}_{i}"].tobytes() for i, name in enumerate(names)}
