"""What is known about each dataset before anything is downloaded: splits, where to get it, its terms, its paper."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class DatasetInfo:
    """The card of one dataset.

    Args:
        title: its usual name, spelled out.
        tasks: ``image_text``, ``multi_query``, ``composed``.
        splits: official (images, captions) of each standard split, as annotated; 0 where it is not fixed.
        url: where it is obtained.
        terms: licence or terms of use in one sentence.
        paper: how to cite it.
        extra_splits: further splits, looked at only when they are there.
        put: what to put where under the data root.
        scored: the split that scores are taken on.
    """

    title: str
    tasks: tuple[str, ...]
    splits: dict[str, tuple[int, int]]
    url: str
    terms: str
    paper: str
    extra_splits: dict[str, tuple[int, int]] = field(default_factory=dict)
    put: str = ""
    scored: str = "test"


INFO: dict[str, DatasetInfo] = {
    "flickr8k": DatasetInfo(
        title="Flickr8k",
        tasks=("image_text", "multi_query"),
        splits={"train": (6000, 30000), "val": (1000, 5000), "test": (1000, 5000)},
        url="https://github.com/jbrownlee/Datasets/releases (photos), "
        "https://cs.stanford.edu/people/karpathy/deepimagesent/ (dataset_flickr8k.json)",
        terms="For non-commercial research and education only; the photos stay under their Flickr owners' terms.",
        paper="Hodosh, Young and Hockenmaier, JAIR 2013",
        put="flickr8k/dataset_flickr8k.json (or caption_datasets.zip in the root) and flickr8k/images/*.jpg",
    ),
    "flickr30k": DatasetInfo(
        title="Flickr30K",
        tasks=("image_text", "multi_query"),
        splits={"train": (29000, 145000), "val": (1014, 5070), "test": (1000, 5000)},
        url="https://shannon.cs.illinois.edu/DenotationGraph/ (photos, by form), "
        "https://cs.stanford.edu/people/karpathy/deepimagesent/ (dataset_flickr30k.json), "
        "https://github.com/kuanghuei/SCAN (f30k_precomp)",
        terms="For non-commercial research and education only; the photos stay under their Flickr owners' terms.",
        paper="Young, Lai, Hodosh and Hockenmaier, TACL 2014",
        put="flickr30k/dataset_flickr30k.json (or caption_datasets.zip in the root) and flickr30k/images/*.jpg, "
        "or f30k_precomp/{train,dev,test}_{caps.txt,ims.npy,ids.txt}",
    ),
    "mscoco": DatasetInfo(
        title="MS-COCO captions",
        tasks=("image_text", "multi_query"),
        splits={"train": (113287, 566747), "val": (5000, 25010), "test": (5000, 25010)},
        extra_splits={
            "val2017": (5000, 25014),
            "train2017": (118287, 591753),
            "val2014": (40504, 202654),
            "train2014": (82783, 414113),
            "regions": (0, 0),
        },
        url="https://cocodataset.org/#download (photos, captions_*.json), "
        "https://cs.stanford.edu/people/karpathy/deepimagesent/ (dataset_coco.json), "
        "https://github.com/kuanghuei/SCAN (coco_precomp)",
        terms="Annotations are CC BY 4.0; the photos have their Flickr owners' licences, some non-commercial.",
        paper="Lin et al., ECCV 2014; Chen et al., arXiv 1504.00325",
        put="coco/dataset_coco.json with coco/train2014 and coco/val2014 (or the 2017 folders), "
        "or coco_precomp/{train,dev,testall}_{caps.txt,ims.npy,ids.txt}, "
        "or coco/captions_val2017.json with coco/images",
    ),
    "visual_genome": DatasetInfo(
        title="Visual Genome, region phrases as query turns (the splits of Drill-down)",
        tasks=("multi_query",),
        splits={"train": (92105, 0), "val": (5000, 0), "test": (9896, 0)},
        url="https://github.com/uvavision/DrillDown (split lists, vocabulary, and its scripts for rg_jsons and "
        "region_36_final), https://homes.cs.washington.edu/~ranjay/visualgenome/api.html (photos, "
        "region_descriptions.json)",
        terms="Annotations are CC BY 4.0; the photos have their Flickr owners' licences.",
        paper="Krishna et al., IJCV 2017; Tan et al., NeurIPS 2019",
        put="visual_genome/caches/vg_{train,val,test}.txt, visual_genome/vg/rg_jsons/<id>.json (or "
        "region_descriptions.json), and visual_genome/vg/region_36_final/<12 digits>.npy or "
        "visual_genome/vg/VG_100K*/*.jpg",
    ),
    "phrases": DatasetInfo(
        title="Region phrases of your own, a JSON line each",
        tasks=("multi_query",),
        splits={"test": (0, 0)},
        extra_splits={"train": (0, 0), "val": (0, 0)},
        url='any file of lines {"image": "x.jpg", "phrase": "...", "bbox": [x, y, w, h]}',
        terms="Those of the file and its photos.",
        paper="yours",
        put="phrases/phrases.jsonl with phrases/images/*.jpg, or -o file=FILE -o photos=FOLDER",
    ),
    "scenes": DatasetInfo(
        title="Scenes (generated pictures of simple objects)",
        tasks=("image_text", "multi_query", "composed"),
        splits={"train": (0, 0), "val": (0, 0), "test": (0, 0)},  # as many as asked for
        url="generated on this machine: xretrieve data prepare scenes",
        terms="No restriction: made by this program from a seed.",
        paper="this project",
    ),
    "fashion_iq": DatasetInfo(
        title="Fashion-IQ (dress, shirt, toptee; two relative captions a pair)",
        tasks=("composed",),
        splits={"train": (0, 0), "val": (15415, 0), "test": (15417, 0)},  # distinct; train depends on exclude_leaks
        url="https://github.com/XiaoxiaoGuo/fashion-iq (captions, image_splits, and the links of the photos)",
        terms="Annotations under CDLA-Permissive; the photos stay under their shop's terms.",
        paper="Wu et al., CVPR 2021",
        put="fashion_iq/captions/cap.*.json, fashion_iq/image_splits/split.*.json and fashion_iq/images/<id>.jpg",
        scored="val",
    ),
    "shoes": DatasetInfo(
        title="Shoes, relative captions",
        tasks=("composed",),
        splits={"train": (10000, 3000), "test": (4658, 600)},
        url="https://github.com/XiaoxiaoGuo/fashion-retrieval (captions, lists), "
        "http://tamaraberg.com/attributesDataset (photos)",
        terms="For research only; the photos stay under their shop's terms.",
        paper="Berg, Berg and Shih, ECCV 2010; Guo et al., NeurIPS 2018",
        put="shoes/{relative_captions_shoes.json,captions_shoes.json,train_im_names.txt,eval_im_names.txt} and the "
        "photos in folders of any depth below shoes/; VAL's shorter list, if wanted, as shoes/val/eval_im_names.txt",
    ),
    "cirr": DatasetInfo(
        title="CIRR (version rc2; photos of NLVR2)",
        tasks=("composed",),
        splits={"train": (16939, 0), "val": (2297, 0), "test": (2315, 0)},
        url="https://github.com/Cuberick-Orion/CIRR (captions, image_splits), https://github.com/lil-lab/nlvr (photos)",
        terms="Annotations are CC BY 4.0; the photos by NLVR2's form, for research.",
        paper="Liu et al., ICCV 2021",
        put="cirr/captions/cap.rc2.*.json, cirr/image_splits/split.rc2.*.json and cirr/{train,dev,test1}/...",
        scored="val",
    ),
    "products": DatasetInfo(
        title="Products: triplets made from a catalogue by an exact rule",
        tasks=("composed", "image_text"),
        splits={"train": (0, 0), "val": (0, 0), "test": (0, 0)},  # as many as the catalogue has
        url='any file of lines {"id": "1", "title": ..., "gender_from_title", "master", "sub", '
        '"article", "colour", "usage", "image": "images/1.jpg"}',
        terms="Those of the catalogue and its photos.",
        paper="this project (the rule); the catalogue's own",
        put="products/products.jsonl with products/images/*.jpg, or -o file=FILE",
    ),
}
