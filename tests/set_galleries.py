"""Galleries of heads over query sets, and of others, over the same noise photos."""

from __future__ import annotations

from tests.gallery_fakes import noise_photos, tiny_matcher
from xretrieve.gallery import Gallery

COUNT = 60
SENTENCES = ("a red dog", "yellow water", "a blue sledge", "two green birds", "the snow")
HEADS = {
    "hmrn-t2i": ("hmrn", {"weight_horizon": 4}),
    "hmrn-i2t": ("hmrn", {"direction": "i2t"}),
    "hmrn-no-global": ("hmrn", {"alpha": 0.6, "beta": 0.4}),
    "drilldown": ("drilldown", {"slots": 2}),
    "drilldown-policy": ("drilldown", {"slots": 2, "mode": "policy"}),
    "dual": ("dual", {}),
}


class Galleries:
    """Built when they are first asked for; one image backbone under all."""

    def __init__(self, folder) -> None:
        self.folder, self.photos = folder, noise_photos(folder / "photos", COUNT)
        self._made: dict[str, Gallery] = {}
        self._image = None

    def __getitem__(self, case: str) -> Gallery:
        if case not in self._made:
            name, options = HEADS.get(case, (case, {}))
            matcher = tiny_matcher(name, image=self._image, **options)
            self._image = matcher.image
            matcher.save(self.folder / "runs" / case / "matcher")
            matcher.source = str(self.folder / "runs" / case)
            self._made[case] = Gallery.build(matcher, self.photos, self.folder / f"{case}.xr")
        return self._made[case]
