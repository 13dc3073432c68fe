"""A small real gallery behind the server: SGR that rides on a dual encoder, over pictures of noise."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

pytest.importorskip("timm")

from fastapi.testclient import TestClient  # noqa: E402

from tests.gallery_fakes import noise_photos, tiny_matcher  # noqa: E402
from xretrieve.app.app import create_app  # noqa: E402
from xretrieve.app.settings import Settings  # noqa: E402
from xretrieve.errors import XRetrieveError  # noqa: E402
from xretrieve.gallery import Gallery  # noqa: E402

COUNT = 12


@pytest.fixture(scope="session")
def served_photos(tmp_path_factory):
    return noise_photos(tmp_path_factory.mktemp("served") / "photos", COUNT)


@pytest.fixture(scope="session")
def served(served_photos) -> Gallery:
    sgr = tiny_matcher("sgr")
    dual = tiny_matcher("dual", seed=1, image=sgr.image)
    return Gallery.build(sgr, served_photos, served_photos.parent / "served.xr", coarse=dual)


@contextmanager
def client_of(gallery: Gallery, **settings) -> Iterator[TestClient]:
    app = create_app(gallery, Settings(**settings))
    with TestClient(app, base_url="http://localhost", raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="module")
def client(served) -> Iterator[TestClient]:
    with client_of(served) as client:
        yield client


class Slow:
    """A gallery whose searches wait until they are let go; counts what it is asked at once. Also what follows it."""

    current = True

    def __init__(self):
        self.go, self.sizes, self.started = threading.Event(), [], threading.Event()

    def gallery(self):
        return self

    def search_many(self, asks):
        self.started.set()
        assert self.go.wait(10)
        self.sizes.append(len(asks))
        if any(ask.query == "bug" for ask in asks):
            raise RuntimeError("a bug")
        return [XRetrieveError("bad") if ask.query == "bad" else ask.query.upper() for ask in asks]


@pytest.fixture
def slow():
    gallery = Slow()
    yield gallery
    gallery.go.set()
