"""The explorer in headless Chromium: a person's walk through its views, narrow and wide, dark and light, offline."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mm_resources.catalog import Catalog
from mm_resources.serving.service import Service
from tests.assets.conftest import Platform
from tests.assets.serving.conftest import PATIENT, listen
from tests.browser.conftest import QUIET

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

pytestmark = pytest.mark.browser
CELL = "version=tiny@v1&modality=image"
VIEWS = (
    *("/", f"/?{CELL}&q=a+flower", f"/samples?{CELL}", f"/curate?{CELL}&rule=blurred", f"/duplicates?{CELL}"),
    *(
        f"/failures?{CELL}",
        f"/map?{CELL}",
        "/versions?before=tiny@v1&after=tiny@v1",
        "/cost",
        "/docs",
        "/login",
    ),
)


@pytest.fixture
def explorer(published_copy: Platform) -> Iterator[str]:
    service = Service(Catalog.open(published_copy.settings.store), PATIENT, allow_marks=True)
    with listen(service, {}) as address:
        yield address


@pytest.fixture(params=[(1600, "light"), (420, "dark")], ids=["wide", "narrow"])
def context(request: pytest.FixtureRequest, explorer: str) -> Iterator[BrowserContext]:
    """A browser that reaches the service, and nothing else."""
    from playwright.sync_api import sync_playwright

    width, scheme = request.param
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    assert chromium, "the browser tests need Debian's chromium: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=QUIET)
        opened = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, base_url=explorer
        )
        opened.set_default_timeout(60_000)
        outside: list[str] = []

        def check(route: Any) -> None:
            if route.request.url.startswith((explorer, "blob:")):
                route.continue_()
            else:
                outside.append(route.request.url)
                route.abort()

        opened.route("**/*", check)
        yield opened
        browser.close()
        assert outside == []


@pytest.fixture
def page(context: BrowserContext) -> Page:
    return context.new_page()


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_has_no_serious_fault(page: Page, view: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.goto(view)
    page.wait_for_load_state("networkidle")
    found = Axe().run(page).response["violations"]
    assert [item["id"] for item in found if item["impact"] in ("serious", "critical")] == []
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    # A medium that cannot be decoded has no preview, which the browser reports.
    assert [text for text in errors if "Failed to load resource" not in text] == []


def test_a_search_by_words_facets_and_a_dropped_picture(page: Page, photos: dict[str, Path]) -> None:
    page.goto(f"/?{CELL}")
    page.keyboard.press("/")
    page.keyboard.type("a flower")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="2 hits for a flower").wait_for()
    page.get_by_role("complementary").get_by_role("link", name="temple").click()
    page.get_by_role("heading", name="1 hit for a flower").wait_for()
    page.get_by_label("or by a picture, sound or clip").set_input_files(photos["flower"])
    page.get_by_role("heading", name="2 hits for the medium flower.jpg").wait_for()
    page.get_by_role("link", name="Hard negatives").first.click()
    page.get_by_role("heading", name=re.compile("hits? for id:")).wait_for()


def test_a_sample_and_its_chain(page: Page) -> None:
    page.goto(f"/samples?{CELL}")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Chain").wait_for()
    assert page.locator(".chain li").count() == 6
    assert page.locator("img.whole").evaluate("image => image.decode().then(() => image.naturalWidth > 0)")


def test_a_threshold_moves_and_marks_are_set_by_keys(page: Page, published_copy: Platform) -> None:
    page.goto(f"/curate?{CELL}&rule=too_small")
    page.get_by_role("slider").press("End")
    page.get_by_text("samples fail it instead of 0").wait_for()
    page.get_by_text("The changed profile").click()
    assert "too_small:\n      min_side: " in page.locator("pre").inner_text()
    cell, log = published_copy.cell("tiny@v1", "image"), published_copy.catalog.reviews
    page.goto(f"/curate?{CELL}")
    page.get_by_text("0 samples are dropped").wait_for()
    page.evaluate(
        """async () => {
          const found = await (await fetch("/v1/samples?dataset_version=tiny@v1&modality=image")).json();
          for (const row of found.rows) {
            const card = document.createElement("article");
            card.className = "card"; card.tabIndex = 0; card.dataset.sample = row.sample_id; card.dataset.mark = "";
            card.setAttribute("aria-label", row.key);
            document.getElementById("marks").append(card);
          }
          document.querySelector("#marks .card").focus();
        }"""
    )
    with page.expect_response("**/v1/marks") as recorded:
        page.keyboard.press("d")
        page.keyboard.press("k")
        page.keyboard.press("u")
    assert recorded.value.status == 200
    page.wait_for_timeout(1_000)
    assert log.latest(cell)["mark"].to_pylist() == ["drop"]


def test_a_lasso_becomes_a_filter(page: Page) -> None:
    page.goto(f"/map?{CELL}")
    page.get_by_text("2 of 2 vectors.").wait_for()
    box = page.locator("#map").bounding_box()
    assert box is not None
    edge = [
        (1, 1),
        (box["width"] - 2, 1),
        (box["width"] - 2, box["height"] - 2),
        (1, box["height"] - 2),
        (1, 2),
    ]
    # The corners are round: they are not the canvas.
    page.mouse.move(box["x"] + 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    for x, y in edge:
        page.mouse.move(box["x"] + x, box["y"] + y)
    page.mouse.up()
    page.get_by_role("heading", name="2 samples are chosen").wait_for()
    page.get_by_role("link", name="Filter by them").click()
    page.get_by_role("heading", name="2 samples", exact=True).wait_for()
