"""A real UI: `dagster dev` on an instance of its own, driven by headless Chromium. See `make browser`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import write_dataset
from tests.processes import ROOT, answer, free_port, until

if TYPE_CHECKING:
    from playwright.sync_api import Page

# Chromium sends no requests of its own: the machine may have no network.
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
]


@dataclass
class Site:
    """A running UI and the folder of its instance."""

    url: str
    folder: Path
    environment: dict[str, str]

    def mm(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "mm_assets.cli.main", *words]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory, photos: dict[str, Path]) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    port = free_port()
    places = {"MM_STORE": "store", "DAGSTER_HOME": "dagster", "MM_DATASETS": "datasets"}
    environment = {**os.environ, **{name: str(folder / place) for name, place in places.items()}}
    site = Site(f"http://127.0.0.1:{port}", folder, environment)
    assert site.mm("register", str(write_dataset(folder / "data", photos))).returncode == 0
    command = [
        sys.executable,
        "-m",
        "dagster",
        "dev",
        "--workspace",
        "workspace.yaml",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    server = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        until(lambda: b"dagster_version" in answer(f"{site.url}/server_info"))
        yield site
    finally:
        server.terminate()
        server.wait(60)


@pytest.fixture
def page(site: Site) -> Iterator[Page]:
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    assert chromium, "the browser tests need Debian's chromium: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=QUIET)
        opened = browser.new_page(viewport={"width": 1600, "height": 1000})
        opened.set_default_timeout(60_000)
        yield opened
        browser.close()
