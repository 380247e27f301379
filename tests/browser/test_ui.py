"""Tasks of a person in the UI, done by clicks; the docs show the pictures taken on the way."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mm_embed_kernels.contracts.pipeline import STAGES
from tests.browser.conftest import Site
from tests.processes import answer, until

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser


def picture(page: Page, name: str) -> None:
    """Save a screenshot in the folder MM_PICTURES, if it is set."""
    if folder := os.environ.get("MM_PICTURES"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.wait_for_timeout(1_500)  # until the page has drawn what it loaded
        page.screenshot(path=str(Path(folder) / f"{name}.png"))


def open_dialog(page: Page, site: Site) -> Any:
    """Open the job's dialog and select the one version."""
    page.goto(f"{site.url}/locations/mm/jobs/refresh")
    page.get_by_role("button", name="Materialize all").click()
    dialog = page.get_by_role("dialog")

    def chosen() -> bool:
        # The button selects among the versions that the page has loaded so far.
        dialog.get_by_role("button", name="All", exact=True).first.click()
        page.wait_for_timeout(500)
        return dialog.get_by_text("tiny@v1").count() > 0

    until(chosen, 30)
    return dialog


def finished(page: Page) -> bool:
    """Return whether the first of the listed backfills has succeeded."""
    page.reload()
    page.get_by_text("Manually launched").first.wait_for()
    page.wait_for_timeout(1_000)
    return page.get_by_text("Success", exact=True).count() > 0


def counts(site: Site, version: str) -> dict[str, int]:
    done = site.mm("status", version, "--json")
    return (
        {cell["modality"]: cell["published"] for cell in json.loads(done.stdout)["cells"]}
        if done.returncode == 0
        else {}
    )


def test_a_cell_by_clicking(page: Page, site: Site) -> None:
    """Choose a version and a modality, launch, watch the run to its end."""
    dialog = open_dialog(page, site)
    dialog.get_by_text("Select a partition or create one").click()
    page.get_by_text("text", exact=True).locator("visible=true").last.click()
    page.keyboard.press("Escape")
    dialog.get_by_text("1 partition", exact=True).wait_for()
    dialog.get_by_role("button", name="Launch").click()
    until(lambda: counts(site, "tiny@v1").get("text") == 2, 240)
    page.goto(f"{site.url}/runs")
    page.locator("a[href*='/runs/']:has(code), a[href*='/runs/'] span").first.click()
    page.get_by_text("Success", exact=True).first.wait_for()
    picture(page, "run")


def test_a_backfill_of_all_cells_from_the_dialog(page: Page, site: Site) -> None:
    dialog = open_dialog(page, site)
    dialog.get_by_role("button", name="All", exact=True).last.click()
    dialog.get_by_text("4 partitions", exact=True).wait_for()
    picture(page, "dialog")
    dialog.get_by_role("button", name="Launch backfill").click()
    until(lambda: counts(site, "tiny@v1") == {"image": 2, "text": 2}, 240)
    page.goto(f"{site.url}/overview/backfills")
    until(lambda: finished(page), 120)
    picture(page, "backfill")


def test_a_page_of_every_asset_shows_what_is_in_it(page: Page, site: Site) -> None:
    until(lambda: counts(site, "tiny@v1") == {"image": 2, "text": 2}, 240)
    for asset in STAGES:
        page.goto(f"{site.url}/assets/{asset}?view=partitions&partition=tiny%40v1%7Cimage")
        page.get_by_text("row_count").first.wait_for()
        page.get_by_text("written_by_run").first.wait_for()
        picture(page, asset)
    page.goto(f"{site.url}/assets/lineage_report?view=partitions&partition=tiny%40v1%7Cimage")
    page.get_by_text("[Show Markdown]").first.click()
    page.get_by_role("dialog").locator("img[src^='data:image/png']").wait_for()
    picture(page, "funnel")
    page.set_viewport_size({"width": 2400, "height": 1000})
    page.goto(f"{site.url}/asset-groups")
    for group in ("1_ingest", "2_curate", "3_embed", "4_serve"):
        page.locator("foreignObject").get_by_text(group, exact=True).click()
        page.wait_for_timeout(1_000)
    page.mouse.dblclick(1_200, 200)  # on the ground: fits the graph into the page
    picture(page, "graph")


def test_a_failed_gate_is_seen(page: Page, site: Site) -> None:
    spec = site.folder / "data" / "dataset.yaml"
    strict = site.folder / "data" / "strict.yaml"
    strict.write_text(
        spec.read_text()
        .replace("version: v1", "version: strict")
        .replace("max_failed_share: 0.5", "max_failed_share: 0.1")
    )
    assert site.mm("register", str(strict)).returncode == 0
    assert site.mm("backfill", "tiny@strict", "--modality", "image").returncode == 1
    page.goto(f"{site.url}/assets/validated_samples?view=checks&checkDetail=failed_share")
    page.get_by_text("failed_share").first.wait_for()
    picture(page, "gate")
    query = json.dumps(
        {
            "query": "{assetNodes {assetKey {path} assetChecksOrError {... on AssetChecks {checks {name blocking}}}}}"
        }
    ).encode()
    nodes = json.loads(answer(f"{site.url}/graphql", query))["data"]["assetNodes"]
    gates = {node["assetKey"]["path"][0]: node["assetChecksOrError"].get("checks") for node in nodes}
    assert {"name": "failed_share", "blocking": True} in gates["validated_samples"]
