"""Backfills on S3 through a faulty network, and across a restart of the server."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import pytest

from mm_resources.catalog import Catalog
from tests.faults.conftest import TEXT
from tests.faults.published import Published, published, stored
from tests.faults.victim import Home, Victim
from tests.faulty_proxy import KINDS, faulty_proxy
from tests.s3 import BUCKET, S3, SECRET, point_at

BACKFILL = ("backfill", "tiny@v1")


def until_published(home: Home, first: Victim | None = None) -> int:
    """Run the backfill until it succeeds; return the number of failed runs, each of which reports one line."""
    for tries in range(4):
        run = first if first is not None and tries == 0 else home.start(*BACKFILL)
        if run.join() == 0:
            return tries
        told = [line for line in run.text.splitlines() if line.startswith(("text is failed: ", "error: "))]
        assert len(told) == 1, run.text
        assert "Traceback" not in run.text
    raise AssertionError(run.text)


def assert_whole(root: str, expected: Published, undisturbed: Home) -> None:
    published(root, TEXT).assert_like(expected)
    rows = Catalog.open(root).blobs.index.rows(["content_hash"]).read_all()["content_hash"].to_pylist()
    assert set(rows) == set(stored(undisturbed.store))


@pytest.mark.slow
def test_a_bad_network(
    memory: Path,
    spec: Path,
    expected: Published,
    undisturbed: Home,
    s3_server: S3,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    root = f"s3://{BUCKET}/bad-network"
    with faulty_proxy(s3_server.port) as proxy:
        home = Home(memory / "bad-network", root, more=s3_server.environment(proxy.endpoint))
        assert home.mm("register", str(spec)).code == 0
        proxy.share = 0.05
        until_published(home)
        struck = Counter(kind for kind, _ in proxy.struck)
        proxy.share = 0
    assert set(struck) == set(KINDS), struck
    point_at(monkeypatch, s3_server.environment(), tmp_path)
    assert_whole(root, expected, undisturbed)
    texts = [
        path.read_bytes()
        for folder in (home.root, s3_server.folder)
        for path in folder.rglob("*")
        if path.is_file()
    ]
    assert not any(SECRET.encode() in text for text in texts)


@pytest.mark.slow
def test_a_server_that_restarts(
    memory: Path,
    spec: Path,
    expected: Published,
    undisturbed: Home,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    server = S3(tmp_path / "disk")
    server.start()
    try:
        root = f"s3://{BUCKET}/restarts"
        home = Home(memory / "restarts", root, more=server.environment())
        assert home.mm("register", str(spec)).code == 0
        run = home.start(*BACKFILL)
        for stage in ("blobs/", "cache/probe-text", "cache/embed"):
            while run.code is None and not server.keys(f"restarts/{stage}"):
                run.process.join(0.05)
            server.kill()
            time.sleep(1)
            server.start()
        until_published(home, run)
        point_at(monkeypatch, server.environment(), tmp_path)
        assert_whole(root, expected, undisturbed)
    finally:
        server.kill()


@pytest.mark.slow
def test_a_server_that_is_away_at_a_first_read(
    memory: Path,
    spec: Path,
    expected: Published,
    undisturbed: Home,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """It is waited for, and the run ends well."""
    server = S3(tmp_path / "disk")
    server.start()
    try:
        root = f"s3://{BUCKET}/away"
        home = Home(memory / "away", root, more=server.environment())
        assert home.mm("register", str(spec)).code == 0
        server.kill()
        run = home.start(*BACKFILL)
        time.sleep(15)  # longer than the client's own tries
        assert run.code is None, run.text
        server.start()
        assert run.join() == 0, run.text
        point_at(monkeypatch, server.environment(), tmp_path)
        assert_whole(root, expected, undisturbed)
    finally:
        server.kill()
