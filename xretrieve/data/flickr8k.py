"""Flickr8k: 8,000 photos with five captions each (Hodosh, Young and Hockenmaier, JAIR 2013)."""

from __future__ import annotations

from xretrieve.data.classic import Classic

CLASSIC = Classic(
    name="flickr8k",
    json_name="dataset_flickr8k.json",
    folders=("flickr8k",),
    pictures=("images", "Flicker8k_Dataset", "Flickr8k_Dataset"),  # the official archive spells it Flicker8k
    precomp=("f8k_precomp", "flickr8k_precomp"),
)

annotations = CLASSIC.annotations
load = CLASSIC.load
