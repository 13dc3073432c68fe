"""Pictures are decoded by other processes, in bounded time and memory, and those end when they are not needed."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import threading
import time

import pytest
from PIL import Image as PILImage

from xretrieve.app import decoder, pictures
from xretrieve.app.errors import ApiError
from xretrieve.app.pictures import Copies, Decoders
from xretrieve.app.settings import Settings


def png(width, height):
    out = io.BytesIO()
    PILImage.new("RGB", (width, height), "red").save(out, "PNG")
    return out.getvalue()


def play(work, **settings):
    async def run():
        return await work(Decoders(Settings(**settings)))

    return asyncio.run(run())


def process(*_):
    return os.getpid()


def hang(*_):
    time.sleep(60)


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def test_another_process_decodes_and_is_used_again(monkeypatch):
    monkeypatch.setattr(pictures, "query_picture", process)

    async def work(decoders):
        return [await decoders.query(b"") for _ in range(2)]

    first, second = play(work)
    assert first == second != os.getpid()


@pytest.mark.parametrize(
    ("fault", "seconds", "message"), [(hang, 3.0, "took more than 3 s"), (die, 20.0, "is the file damaged")]
)
def test_a_decoder_that_hangs_or_dies_is_given_up_and_the_next_picture_is_decoded(monkeypatch, fault, seconds, message):
    async def work(decoders):
        monkeypatch.setattr(pictures, "query_picture", fault)
        with pytest.raises(ApiError, match=message) as error:
            await decoders.query(b"")
        monkeypatch.undo()
        return error.value.status, (await decoders.query(png(30, 20)))[0].size

    assert play(work, picture_seconds=seconds) == (400, (30, 20))


def idle(*_):
    decoder.IDLE = 0.05
    return os.getpid()


def test_a_process_ends_when_it_has_nothing_to_do_and_the_next_picture_gets_another_one(monkeypatch):
    async def work(decoders):
        monkeypatch.setattr(pictures, "query_picture", idle)
        pid = await decoders.query(b"")
        until = time.monotonic() + 10
        while alive(pid) and time.monotonic() < until:
            await asyncio.sleep(0.02)
        assert not alive(pid)
        monkeypatch.undo()
        return (await decoders.query(png(30, 20)))[0].size

    assert play(work) == (30, 20)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_large_pictures_take_turns(monkeypatch, tmp_path):
    monkeypatch.setattr(decoder, "HEAVY", 1000)
    inside, most, lock = [0], [0], threading.Lock()
    read = decoder.read_picture

    def slowly(*arguments):
        with lock:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        time.sleep(0.1)
        with lock:
            inside[0] -= 1
        return read(*arguments)

    monkeypatch.setattr(decoder, "read_picture", slowly)
    for size, wanted in ((100, 1), (10, 3)):
        most[0] = 0
        data = png(size, size)
        threads = [threading.Thread(target=decoder.query_picture, args=(data, 10**6, tmp_path)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert most[0] == wanted


def test_a_copy_that_several_ask_for_is_made_once_and_kept(monkeypatch, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png(300, 200))

    async def work(decoders):
        made = []

        class Counted(Decoders):
            async def copy(self, path, side):
                made.append(side)
                return await super().copy(path, side)

        copies = Copies(Counted(Settings()))
        some = await asyncio.gather(*(copies.get(path, 100, copies.tag(path, 100)) for _ in range(5)))
        some.append(await copies.get(path, 100, copies.tag(path, 100)))
        assert len(set(some)) == 1 and made == [100] and copies.kept(copies.tag(path, 100)) == some[0]
        monkeypatch.setattr(pictures, "KEPT", 10)
        await copies.get(path, 50, copies.tag(path, 50))
        assert copies.kept(copies.tag(path, 100)) is None
        return PILImage.open(io.BytesIO(some[0])).size

    assert play(work) == (100, 67)


def test_what_cannot_be_read_is_told_without_its_place(tmp_path):
    folder = tmp_path / "private"
    folder.mkdir()

    async def work(decoders):
        with pytest.raises(ApiError, match="the picture cannot be shown") as error:
            await decoders.copy(folder / "none.png", 100)
        with pytest.raises(ApiError) as shown:
            await decoders.query(folder)
        return error.value, shown.value

    for error, status in zip(play(work), (404, 400), strict=True):
        assert error.status == status and str(tmp_path) not in error.sentence
