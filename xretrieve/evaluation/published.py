"""Published figures, to print beside measured rows under their own heading; never mixed with results on a subset.

One line: model | Flickr30K 1K | COCO 1K (five folds) | COCO 5K. A cell: i2t R@1 5 10 / t2i R@1 5 10 / rsum as printed;
a side with two numbers has no R@10, an empty cell was not printed. A star marks an ensemble of two models.
"""

from __future__ import annotations

from collections.abc import Sequence

from xretrieve.errors import XRetrieveError, unknown
from xretrieve.evaluation.composed_protocols import find
from xretrieve.evaluation.published_composed import composed_rows
from xretrieve.evaluation.rows import PublishedRow

_COLUMNS = {("flickr30k", "flickr-1k"): 1, ("mscoco", "coco-1k"): 2, ("mscoco", "coco-5k"): 3,
            ("mscoco", "coco-1k-25000"): 2, ("mscoco", "coco-5k-25000"): 3}  # fmt: skip

# ruff: noqa: E501 - one model, one line
# On 36 Faster R-CNN regions unless the name says otherwise; (paper) is the paper's figure, (repo) the repository's.
_TRAINED = """\
VSE++ (ResNet-152, tuned) | 52.9 80.5 87.2 / 39.6 70.1 79.5 / 409.8 | 64.6 90.0 95.7 / 52.0 84.3 92.0 / 478.6 | 41.3 71.1 81.2 / 30.3 59.4 72.4 / 355.7
SCAN t2i AVG | 61.8 87.5 93.7 / 45.8 74.4 83.0 / 446.2
SCAN i2t AVG | 67.9 89.0 94.4 / 43.9 74.2 82.8 / 452.2
SCAN* | 67.4 90.3 95.8 / 48.6 77.7 85.2 / 465.0 | 72.7 94.8 98.4 / 58.8 88.4 94.8 / 507.9 | 50.4 82.2 90.0 / 38.6 69.3 80.4 / 410.9
CAMP | 68.1 89.7 95.2 / 51.5 77.1 85.3 / 466.9
VSRN* | 71.3 90.6 96.0 / 54.7 81.8 88.2 / 482.6 | 76.2 94.8 98.2 / 62.8 89.7 95.1 / 516.8 | 53.0 81.1 89.4 / 40.5 70.6 81.1 / 415.7
IMRAM full | 74.1 93.0 96.6 / 53.9 79.4 87.2 / 484.2 | 76.7 95.6 98.5 / 61.7 89.1 95.0 / 516.6 | 53.7 83.2 91.0 / 39.7 69.1 79.8 / 416.5
SAF (paper) | 73.7 93.3 96.3 / 56.1 81.5 88.0 / 488.9 | 76.1 95.4 98.3 / 61.8 89.4 95.3 / 516.3 | 53.3 82.3 90.1 / 39.8 69.0 80.2 / 414.7
SGR (paper) | 75.2 93.3 96.6 / 56.2 81.0 86.5 / 488.8 | 78.0 95.8 98.2 / 61.4 89.3 95.4 / 518.1 | 56.9 83.2 90.5 / 40.2 69.0 79.8 / 419.6
SGRAF* (paper) | 77.8 94.1 97.4 / 58.5 83.0 88.8 / 499.6 | 79.6 96.2 98.5 / 63.2 90.7 96.1 / 524.3 | 57.8 84.9 91.6 / 41.9 70.7 81.3 / 428.2
SAF (repo) | 75.6 92.7 96.9 / 56.5 82.0 88.4 / 492.1
SGR (repo) | 76.6 93.7 96.6 / 56.1 80.9 87.0 / 490.9
SGRAF* (repo) | 78.4 94.6 97.5 / 58.2 83.0 89.1 / 500.8 | 79.2 96.5 98.6 / 63.5 90.2 95.8 / 523.8 | 58.8 84.8 92.1 / 41.6 70.9 81.5 / 429.7
RCAR t2i | 79.7 95.0 97.4 / 60.9 84.4 90.1 / 507.5 | 79.1 96.5 98.8 / 63.9 90.7 95.9 / 524.9 | 59.1 84.8 91.8 / 42.8 71.5 81.9 / 431.9
RCAR i2t | 76.9 95.5 98.0 / 58.8 83.9 89.3 / 502.4 | 79.3 96.5 98.8 / 63.8 90.4 95.8 / 524.6 | 58.4 84.6 91.9 / 41.7 71.4 81.7 / 429.7
RCAR* | 82.3 96.0 98.4 / 62.6 85.8 91.1 / 516.2 | 80.9 96.9 98.9 / 65.7 91.4 96.4 / 530.2 | 61.3 86.1 92.6 / 44.3 73.2 83.2 / 440.7
NAAF (released, GloVe) | 80.6 95.4 98.0 / 60.0 83.9 89.9 / 507.8
CHAN BiGRU | 79.7 94.5 / 60.2 85.3
CHAN BERT | 80.6 96.1 / 63.9 87.5
GPO regions + BERT | 81.7 95.4 / 61.4 85.9
HREM fusion, BERT | 84.4 96.7 / 62.4 86.6 |  | 62.5 87.4 / 44.0 73.9
LAPS Swin-B 224 | 84.5 97.7 / 72.3 92.7
"""

# Without training on either dataset, but the pretraining may have seen test images.
# Source: the retrieval table of mlfoundations/open_clip, rows marked (I): OpenGVLab/InternVL.
_ZERO_SHOT = """\
CLIP ViT-B/32 (OpenAI) | 78.9 94.9 98.2 / 58.8 83.6 90.0 |  | 50.1 75.0 83.5 / 30.4 55.9 66.9
CLIP ViT-B/16 (OpenAI) | 82.2 96.6 99.0 / 62.2 85.7 91.9 |  | 52.4 76.7 84.6 / 33.1 58.4 69.0
CLIP ViT-L/14 (OpenAI) | 85.2 97.4 99.2 / 65.0 87.2 92.0 |  | 56.3 79.4 86.6 / 36.5 61.1 71.1
CLIP ViT-L/14@336 (OpenAI) | 87.7 98.5 99.4 / 66.9 89.0 93.3 |  | 57.9 81.2 87.9 / 37.1 61.6 71.5
OpenCLIP B/32 laion2b | 84.1 96.2 98.3 / 66.8 88.4 93.1 |  | 56.3 79.8 87.1 / 39.3 65.4 75.6
OpenCLIP B/16 laion2b | 86.3 97.9 99.4 / 69.8 90.4 94.6 |  | 59.4 81.8 88.6 / 42.3 67.7 77.1
OpenCLIP L/14 laion2b | 89.5 98.7 99.4 / 75.5 92.9 95.9 |  | 63.4 84.0 90.7 / 46.5 71.1 79.8
OpenCLIP H/14 laion2b | 90.7 99.2 99.7 / 77.6 94.2 96.6 |  | 65.9 86.1 91.9 / 49.5 73.4 81.5
OpenCLIP bigG/14 laion2b | 92.9 99.3 99.8 / 79.6 95.0 97.1 |  | 67.4 86.9 92.7 / 51.4 74.9 83.0
DFN5B H/14-378 | 94.0 99.2 99.6 / 82.0 96.0 98.0 |  | 71.9 90.5 95.0 / 55.6 79.2 86.3
SigLIP B/16 224 | 89.1 98.0 99.3 / 74.7 92.3 95.6 |  | 65.7 85.4 91.3 / 47.8 72.4 81.0
SigLIP L/16 384 | 93.7 99.2 99.9 / 81.4 95.4 97.5 |  | 71.9 90.1 94.1 / 53.9 76.6 84.0
SigLIP SO400M/14 384 | 94.3 99.7 99.8 / 83.0 96.1 98.0 |  | 72.4 90.0 94.5 / 54.2 76.8 84.2
EVA-CLIP-8B (I) | 95.6 99.6 99.9 / 80.8 95.5 97.6 |  | 70.3 89.3 93.9 / 53.0 76.0 83.4
InternVL-C 14B (I) | 94.7 99.6 99.9 / 81.7 96.0 98.2 |  | 70.6 89.0 93.5 / 54.1 77.3 84.6
InternVL-G 14B, re-ranked (I) | 95.7 99.7 99.9 / 85.0 97.0 98.6 |  | 74.9 91.3 95.2 / 58.6 81.3 88.0
"""


def published_rows(dataset: str, protocol: str, names: Sequence[str] | None = None) -> list[PublishedRow]:
    """The figures printed for a dataset under a protocol; empty where there are none.

    Args:
        dataset, protocol: what they were printed for: the whole test split, never a part of it. For composed queries
            the full name of a protocol; see :func:`~xretrieve.evaluation.published_composed.composed_rows`.
        names: only these, in this order; a name that is not there is an error. None: all.

    >>> [row.values["rsum"] for row in published_rows("flickr30k", "flickr-1k") if row.name == "SGRAF* (paper)"]
    [499.6]
    >>> published_rows("flickr8k", "flickr-1k")
    []
    """
    rows = _all_rows(_COLUMNS.get((dataset, protocol)))
    if (task := find(protocol)) is not None:
        rows = composed_rows(task.name)
    if names is None:
        return list(rows.values())
    wrong = next((name for name in names if name not in rows), None)
    if wrong is not None and not rows:
        raise XRetrieveError(
            f"published: no figures are known for {dataset} under protocol {protocol!r}, not {wrong!r}"
        )
    if wrong is not None:
        raise unknown("published row", wrong, rows)
    return [rows[name] for name in names]


def _all_rows(column: int | None) -> dict[str, PublishedRow]:
    if column is None:
        return {}
    rows = {}
    for table, note in ((_TRAINED, "trained on the dataset"), (_ZERO_SHOT, "zero-shot; may have seen test images")):
        for line in table.splitlines():
            cells = [cell.strip() for cell in line.split("|")] + ["", ""]
            if cells[column]:
                rows[cells[0]] = PublishedRow(cells[0], _values(cells[column]), note)
    return rows


def _values(cell: str) -> dict[str, float]:
    """One cell as metric values; rsum is added up where all six recalls are there and it was not printed."""
    parts = [[float(number) for number in part.split()] for part in cell.split("/")]
    values = {
        f"{d}_r{k}": v
        for d, part in zip(("i2t", "t2i"), parts, strict=False)
        for k, v in zip((1, 5, 10), part, strict=False)
    }
    if len(parts) == 3:
        values["rsum"] = parts[2][0]
    elif len(values) == 6:
        values["rsum"] = round(sum(values.values()), 1)
    return values
