"""The page in a real browser (Debian's chromium, driven by Playwright), against a real server."""

from __future__ import annotations

import contextlib
import shutil
import threading
import time

import numpy as np
import pytest
import uvicorn
from PIL import Image as PILImage

from tests.gallery_fakes import tiny_matcher
from xretrieve.app.app import create_app
from xretrieve.app.run import address, listen
from xretrieve.app.settings import Settings
from xretrieve.gallery import Gallery

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync"]  # fmt: skip
QUERY = "a red dog near yellow water"


@contextlib.contextmanager
def serving(gallery, **given):
    settings = Settings(port=0, **given)
    with listen(settings) as sock:
        server = uvicorn.Server(uvicorn.Config(create_app(gallery, settings), log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
        thread.start()
        yield address(settings, sock)
        server.should_exit = True
        thread.join(20)


@pytest.fixture(scope="module")
def site(served):
    with serving(served) as place:
        yield place


@pytest.fixture(scope="module")
def browser():
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium on this machine (Debian: apt-get install chromium)")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=chromium, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture
def page(browser):
    """A page that loads nothing from elsewhere and breaks none of its own rules."""
    context = browser.new_context(viewport={"width": 1000, "height": 800})
    context.set_default_timeout(20_000)
    page, wrong, asked = context.new_page(), [], []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: asked.append(request.url))
    page.expected = []
    yield page
    context.close()
    assert [told for told in wrong if not any(part in told for part in page.expected)] == []
    own = ("http://127.0.0.1:", "blob:http://127.0.0.1:", "data:image/")
    outside = [url for url in asked if not url.startswith(own)]
    assert outside == [], "the page must load nothing from elsewhere"


def found(page):
    page.wait_for_selector("#results:not([aria-busy]) .card")
    return page.eval_on_selector_all(".card img, .card .name", "all => all.map(one => one.alt || one.textContent)")


def until(page, expression):
    """`wait_for_function` evaluates strings inside the page, which its own rules forbid."""
    end = time.monotonic() + 20
    while not page.evaluate(expression):
        assert time.monotonic() < end, f"never true: {expression}"
        page.wait_for_timeout(30)


def search(page, text):
    page.fill("#text", text)
    page.press("#text", "Enter")
    page.wait_for_url("**/?*")
    return found(page)


def test_a_search_its_address_and_the_way_back(page, site, served):
    page.goto(site)
    assert page.is_visible("#welcome")
    until(page, "document.activeElement.id === 'text'")
    first = search(page, QUERY)
    assert first == served.search(QUERY, k=24).ids and "q=a+red+dog" in page.url
    until(page, "[...document.querySelectorAll('.card img')].every(one => one.naturalWidth > 0)")
    second = search(page, "snow")
    assert second == served.search("snow", k=24).ids
    page.go_back()
    until(page, f"document.getElementById('text').value === '{QUERY}'")
    until(page, f"document.querySelector('.card img').alt === '{first[0]}'")
    page.reload()
    assert found(page) == first
    page.go_back()
    page.wait_for_selector("#welcome:not([hidden])")
    assert not page.query_selector(".card")


def test_details_are_added_taken_back_and_taken_away(page, site, served):
    import xretrieve as xr

    page.goto(site)
    page.fill("#text", "a red dog")
    page.click("#more-detail")
    found(page)
    page.keyboard.type("snow")
    page.keyboard.press("Enter")
    page.wait_for_url("**q=a+red+dog&q=snow*")
    assert found(page) == served.search(xr.MultiText(["a red dog", "snow"]), k=24).ids
    page.press("#text", "Shift+Enter")
    assert page.locator("#chips li span").all_inner_texts() == ["a red dog", "snow"]
    page.click("#undo")
    page.wait_for_url(lambda url: "snow" not in url)
    assert found(page) == served.search("a red dog", k=24).ids and page.input_value("#text") == "a red dog"
    page.go_back()
    page.wait_for_url("**q=snow*")
    page.click("#chips li button")
    page.wait_for_url(lambda url: "red" not in url)
    assert found(page) == served.search("snow", k=24).ids


def test_why_shows_heat_that_changes_with_the_word_and_closes(page, site, served):
    page.goto(f"{site}?q={QUERY}")
    ids = found(page)
    page.click(".card .why >> nth=0")
    page.wait_for_selector("#why .word")
    until(page, "document.getElementById('why-picture').naturalWidth > 0")
    heat = "document.getElementById('why-heat').toDataURL()"
    until(page, f"{heat}.length > 2000")
    page.mouse.move(1, 1)  # off the words, which show their heat when pointed at
    whole = page.evaluate(heat)
    page.click("#why .word >> text=dog")
    assert page.evaluate(heat) != whole
    assert page.get_attribute("#why .word >> text=dog", "aria-pressed") == "true"
    score = served.explain(QUERY, ids[0])["parts"][0]["score"]
    assert f"{score:.3f}" in page.inner_text("#why-parts")
    page.keyboard.press("ArrowRight")
    until(page, f"document.getElementById('why-title').textContent === '2. {ids[1]}'")
    page.keyboard.press("Escape")
    page.wait_for_selector("#why", state="hidden")
    focus = "document.activeElement.getAttribute('aria-label')"
    until(page, f"{focus}.startsWith('2: {ids[1]},')")  # what was looked at last


def test_what_is_weak_and_what_the_first_stage_alone_placed_is_said(page, served_photos, served, tmp_path):
    gallery = Gallery.build(served.matcher, served_photos, tmp_path / "weak.xr", coarse=served.coarse)
    gallery.keep_cascade({"rerank": 5, "blend": 1.0, "coarse": [0, 1], "head": [0, 1], "weak": 1e6})
    with serving(gallery) as place:
        page.goto(f"{place}?q=a+red+dog")
        found(page)
        assert "nothing fits well" in page.inner_text("#status")
        page.goto(f"{place}?q=a+red+dog&q=snow")
        found(page)
        assert "does not take this kind" in page.inner_text("#status")
        assert "nothing fits" not in page.inner_text("#status")
        page.click(".card .why >> nth=0")
        page.wait_for_selector("#why-parts tr")
        assert "The fast first stage sees each picture as a whole" in page.inner_text("#why-note")


def test_the_keyboard_alone_is_enough(page, site):
    page.goto(f"{site}?q={QUERY}")
    ids = found(page)
    until(page, "document.activeElement.id === 'text'")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    until(page, f"document.getElementById('why-title').textContent === '2. {ids[1]}'")
    page.keyboard.press("Escape")
    page.wait_for_selector("#why", state="hidden")
    page.keyboard.press("/")
    until(page, "document.activeElement.id === 'text'")
    assert page.input_value("#text") == QUERY


def test_the_box_keeps_the_focus_that_it_was_given_right_after_a_closed_dialog(page, site):
    page.goto(f"{site}?q={QUERY}")
    found(page)
    page.click(".card .why >> nth=0")
    page.wait_for_selector("#why[open]")
    focus = page.evaluate(  # the dialog tells that it is closed in a later task: `/` may come before
        """() => new Promise((done) => {
          const dialog = document.getElementById("why");
          dialog.addEventListener("close", () => done(document.activeElement.id));
          dialog.close();
          document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "/", bubbles: true }));
        })"""
    )
    assert focus == "text"


def test_more_like_this_and_changing_something(page, site, served, served_photos):
    import xretrieve as xr

    page.goto(f"{site}?q={QUERY}")
    first = found(page)[0]
    page.click(".like >> nth=0")
    page.wait_for_url("**like=1*")
    assert found(page) == served.search(xr.Image(served_photos / first), k=24, drop_reference=True).ids
    page.click(".card .why >> nth=0")
    page.click("#why-change")
    assert page.is_visible("#picture") and "different" in page.get_attribute("#text", "placeholder")
    page.keyboard.type("snow")
    page.keyboard.press("Enter")
    page.wait_for_url(lambda url: "q=snow" in url and "like" not in url)
    found(page)
    page.click("#picture-drop")
    page.wait_for_url(lambda url: "image" not in url)
    assert found(page) == served.search("snow", k=24).ids


def test_a_picture_that_is_gone_is_no_broken_icon(page, site, served):
    page.expected.append("404")
    page.goto(f"{site}?image=nowhere.png&q=at+night")
    page.wait_for_selector("#problem:not([hidden])")
    assert "nowhere.png" in page.inner_text("#problem")
    page.wait_for_selector("#picture-gone:not([hidden])")
    assert not page.is_visible("#picture-shown") and "nowhere.png" in page.get_attribute("#picture", "title")
    page.click("#picture-drop")
    found(page)
    assert not page.is_visible("#picture") and page.is_hidden("#problem")
    page.goto(f"{site}?image={served.ids[0]}")
    page.wait_for_selector("#picture-shown:not([hidden])")
    assert page.is_hidden("#picture-gone")


def test_why_tells_the_weights_of_picture_and_text_for_each_attribute(page, served_photos, tmp_path):
    head = tiny_matcher("progressive", residual=False, attributes={"colour": ["red", "blue"]})
    with serving(Gallery.build(head, served_photos, tmp_path / "composed.xr")) as place:
        page.goto(f"{place}?image=0.png&q=in+red")
        found(page)
        page.click(".card .why >> nth=0")
        page.wait_for_selector("#why-parts td.attributes")
        told = page.inner_text("#why-parts")
    assert told.count("% of the query") == 2 and told.count("colour\u00a0") == 2


def test_a_picture_of_ones_own_with_words_survives_the_way_back(page, site, tmp_path):
    pixels = np.random.default_rng(1).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    PILImage.fromarray(pixels).save(tmp_path / "mine.png")
    page.goto(site)
    page.set_input_files("#file", tmp_path / "mine.png")
    page.wait_for_url("**sent=1*")
    alone = found(page)
    assert page.get_attribute("#picture-shown", "src").startswith("data:image/jpeg")
    page.fill("#text", "snow")
    page.press("#text", "Enter")
    page.wait_for_url("**q=snow&sent=1*")
    found(page)
    page.go_back()
    until(page, "document.getElementById('text').value === ''")
    assert found(page) == alone
    transfer = page.evaluate_handle(
        "() => { const data = new DataTransfer(); data.items.add(new File(['no'], 'x.txt', {type: 'text/plain'}));"
        "return data; }"
    )
    page.dispatch_event("main", "drop", {"dataTransfer": transfer})
    page.wait_for_selector("#problem:not([hidden])")
    assert page.inner_text("#problem") == "X.txt is not a picture"
    page.goto("about:blank")
    page.goto(f"{site}?sent=1")  # from elsewhere: the browser's history has no picture for it
    page.wait_for_selector("#problem:not([hidden])")
    assert "drop it again" in page.inner_text("#problem")


def test_what_the_server_says_is_shown(page, site):
    page.expected = ["status of 404", "status of 400"]
    page.goto(f"{site}?image=none.png")
    page.wait_for_selector("#problem:not([hidden])")
    assert "has no id 'none.png'" in page.inner_text("#problem") and not page.query_selector(".card")


def test_light_dark_and_a_phone(page, site):
    page.emulate_media(color_scheme="dark")
    page.goto(f"{site}?q={QUERY}")
    found(page)
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(ground)
    page.click("#theme")
    assert page.evaluate(ground) != dark and page.inner_text("#theme") == "Theme: light"
    page.reload()
    assert page.evaluate(ground) != dark, "the choice is kept"
    page.click("#theme")
    assert page.evaluate(ground) == dark
    page.set_viewport_size({"width": 360, "height": 740})
    until(page, "innerWidth === 360")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.click(".card .why >> nth=0")
    page.wait_for_selector("#why .word")
    assert page.evaluate("document.getElementById('why').scrollWidth") <= 360


def test_a_token_is_asked_for_once_and_pictures_come_with_it(page, served):
    page.expected = ["status of 401"]
    with serving(served, token="s3cret") as place:
        page.goto(f"{place}?q={QUERY}")
        page.wait_for_selector("#ask-token[open]")
        page.fill("#token", "s3cret")
        page.keyboard.press("Enter")
        found(page)
        until(page, "document.querySelector('.card img').naturalWidth > 0")
        assert page.get_attribute(".card img", "src").startswith("blob:")
        page.goto(f"{place}#token=s3cret")
        until(page, "!location.hash")


def test_the_document_of_the_api_is_a_page_of_its_own(page, site):
    page.goto(f"{site}docs")
    page.wait_for_selector("#operations details")
    assert page.locator('#operations summary code:text-is("/api/explain")').count() == 1
    page.click("summary >> nth=0")
    assert "drop_reference" in page.inner_text("#operations details >> nth=0")
