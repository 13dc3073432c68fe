"""Flickr30K: 31,014 photos with five captions each (Young et al., TACL 2014).

``photos="flickr8k"`` takes the Flickr8k photos where the annotation file names them (``flickr8k_filename``, 243 of the
1,000 test images): a smaller and easier gallery, as the coverage says, and some of its photos are in the training
split of Flickr8k, so it is no test for a model trained there.
"""

from __future__ import annotations

from xretrieve.data.classic import Classic

CLASSIC = Classic(
    name="flickr30k",
    json_name="dataset_flickr30k.json",
    folders=("flickr30k",),
    pictures=("images", "flickr30k-images", "flickr30k_images"),
    precomp=("f30k_precomp", "flickr30k_precomp"),
    borrow={"flickr8k": ("flickr8k", "flickr8k_filename")},
)

annotations = CLASSIC.annotations
load = CLASSIC.load
