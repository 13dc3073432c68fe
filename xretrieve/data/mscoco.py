"""MS-COCO captions: 123,287 photos (Lin et al., ECCV 2014; Chen et al., arXiv 1504.00325).

Besides train, val and test (Karpathy; 5,000 images in test, whose 1K figures are five folds), the official files can be
read as splits ``train2017``, ``val2017``, ``train2014``, ``val2014``, with boxes from ``regions.jsonl`` when it is
there, and ``regions``: the photos of that file alone. ``captions_per_image=5`` gives the precomp counts.
"""

from __future__ import annotations

from xretrieve.data.classic import COCO_STEMS, Classic

CLASSIC = Classic(
    name="mscoco",
    json_name="dataset_coco.json",
    folders=("coco", "mscoco"),
    pictures=(
        "train2014",
        "val2014",
        "images/train2014",
        "images/val2014",
        "train2017",
        "val2017",
        "images/train2017",
        "images/val2017",
        "images",
    ),
    precomp=("coco_precomp",),
    stems=COCO_STEMS,
    coco=True,
)

annotations = CLASSIC.annotations
load = CLASSIC.load
