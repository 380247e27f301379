"""The explorer's pages over a published store, without a browser."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from markupsafe import Markup
from starlette.testclient import TestClient

from mm_resources.serving.page_templates import address, fragment_of, mark_words, prose, render
from mm_resources.serving.service import Service
from mm_resources.serving.thresholds import Measured, Threshold, find_threshold, histogram_of, what_if
from tests.assets.conftest import Platform
from tests.assets.serving.conftest import TOKEN, Serve

IMAGE = "version=tiny@v1&modality=image"
TEXT = "version=tiny@v1&modality=text"


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/", "tiny@v1"),
        (f"/?{TEXT}&q=a+bird+sings", "hits"),
        (f"/?{TEXT}&q=espresso+coffee&mode=text", "<mark>"),
        (f"/?{TEXT}&q=bird&label=none+such", "Nothing passes the filter"),
        (f"/?{TEXT}&q=bird&where=no_such+%3D+1", 'role="alert"'),
        (f"/samples?{IMAGE}", "2 samples"),
        (f"/samples?{IMAGE}&kept=dropped", "0 samples"),
        (f"/samples?{IMAGE}&where=1%3D1%3B", 'role="alert"'),
        (f"/failures?{IMAGE}", "truncated"),
        (f"/duplicates?{IMAGE}", "groups"),
        (f"/curate?{IMAGE}", "Funnel"),
        (f"/curate?{IMAGE}&rule=blurred", 'type="range"'),
        ("/versions?before=tiny@v1&after=tiny@v1", "same"),
        ("/cost?version=tiny@v1", "USD"),
        ("/docs", "/v1/search"),
    ],
)
def test_each_page_is_shown(client: TestClient, path: str, shown: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert shown in answer.text
    assert "script-src 'self'" in answer.headers["content-security-policy"]
    assert (
        re.findall(r"<script(?! src=\"/static/explorer.js\" defer></script>)|style=|\son\w+=", answer.text)
        == []
    )
    assert re.findall(r"(?:src|href)=\"(?:https?:)?//", answer.text) == []


def test_an_unknown_rule_is_no_rule_that_all_fail(client: TestClient) -> None:
    for view in ("curate", "samples"):
        answer = client.get(f"/{view}?{IMAGE}&rule=no_such")
        assert (answer.status_code, "there are: " in answer.text) == (404, True)


def test_the_page_of_a_sample_shows_its_rules_and_chain(client: TestClient, published: Platform) -> None:
    sample = published.features.decisions("tiny@v1", "image").to_pylist()[0]
    text = client.get(f"/sample/{sample['sample_id']}?{IMAGE}").text
    for rule in sample["rules"]:
        assert f"{rule['rule']} v{rule['version']}" in text
    assert (sample["key"] in text, "Neighbours" in text, 'class="chain"' in text) == (True, True, True)
    missing = client.get(f"/sample/{'0' * 32}")
    assert (missing.status_code, 'role="alert"' in missing.text) == (404, True)


def test_a_medium_is_searched_by(client: TestClient, photos: dict[str, Path]) -> None:
    form = {"version": "tiny@v1", "modality": "image", "where": ""}
    answer = client.post(
        "/explore/media", data=form, files={"file": ("<b>.jpg", photos["flower"].read_bytes())}
    )
    assert answer.status_code == 200, answer.text
    assert (answer.text.count('class="card"'), "&lt;b&gt;.jpg" in answer.text) == (2, True)
    assert client.post("/explore/media", data=form, files={"file": ("x", b"\0" * 99)}).status_code == 422


def test_markup_and_turned_lines_are_shown_as_they_are() -> None:
    bad = "<img src=x onerror=alert(1)>\u202e"
    page = render(
        "error.html",
        views=[],
        here=bad,
        scope={},
        cells=[],
        kind=bad,
        title=bad,
        detail=bad,
        action=f"`{bad}`",
    ).body.decode()
    assert ("<img" in page, "\u202e" in page) == (False, False)
    marked = mark_words(f"a {bad} bird and a BIRD", "bird <img")
    assert isinstance(marked, Markup)
    assert ("<img" in marked, marked.count("<mark>")) == (False, 3)
    assert prose("run `mm <x>` now") == "run <code>mm &lt;x&gt;</code> now"
    assert [fragment_of(span) for span in ("seconds=1.5-4", "full", "chars=0-9", None)] == [
        "#t=1.5,4",
        "",
        "",
        "",
    ]
    assert address("/x", {"a": "1 &", "b": ""}, c=None) == "/x?a=1+%26"


def test_a_browser_shows_the_token_once(serve: Serve) -> None:
    client = serve(tokens={"ann": TOKEN})
    html = {"Accept": "text/html"}
    sent = client.get("/samples?version=a", headers=html, follow_redirects=False)
    assert (sent.status_code, sent.headers["location"]) == (303, "/login?next=%2Fsamples%3Fversion%3Da")
    assert client.post("/login", data={"secret": "wrong-token-0123456789"}).status_code == 401
    for target, leads in (("/samples", "/samples"), ("//evil.example", "/"), ("https://evil.example", "/")):
        done = client.post("/login", data={"secret": TOKEN, "next": target}, follow_redirects=False)
        assert (done.status_code, done.headers["location"]) == (303, leads)
    cookie = done.headers["set-cookie"].lower()
    assert ("httponly" in cookie, "samesite=strict" in cookie, TOKEN in cookie) == (True, True, False)
    assert client.get("/", headers=html).status_code == 200
    client.cookies.clear()
    client.cookies.set("mm_session", "ann:" + "0" * 64)
    assert client.get("/v1/datasets").status_code == 401


def test_a_threshold_counts_what_another_value_fails() -> None:
    """By hand: of 1, 2, 2, 5, 9 a least of 2 fails one and of 5 three; a most of 5 fails one, of 2 two."""
    values = np.array([1.0, 2.0, 2.0, 5.0, 9.0])
    least = Threshold("r", "drop", "min_x", 2.0, False)
    most = replace(least, parameter="max_x", value=5.0)
    assert [
        least.failing(values),
        least.failing(values, 5),
        most.failing(values),
        most.failing(values, 2),
    ] == [
        1,
        3,
        1,
        2,
    ]
    for threshold in (least, most):
        made = histogram_of(threshold, Measured(5, values, values, 0))
        assert made is not None
        assert sum(bar["count"] for bar in made["bars"]) == 5
        assert sum(bar["count"] for bar in made["bars"] if bar["fails"]) == 1


def test_what_another_threshold_keeps_is_what_curating_keeps(published: Platform) -> None:
    """Against `mm curate --what-if`, which judges all samples again."""
    from mm_assets.curation.what_if import what_if as judge_again
    from mm_embed_kernels.modalities import get
    from mm_resources.costs.prices import Prices
    from mm_resources.resources import default_embedder

    service, cell = Service(published.catalog), published.cell("tiny@v1", "text")
    (pin,) = service.published("tiny@v1", "text")
    threshold = find_threshold(service, pin, "too_short", "min_words")
    for value in (0, 1, 4, 9, 100):
        changes = {"too_short": {"min_words": value}}
        expected = judge_again(published.catalog, cell, changes, default_embedder(get("text")), Prices())
        found = what_if(service, pin, "too_short", "min_words", value)
        assert (found["kept_now"], found["kept_then"], found["samples"]) == (
            expected.kept_now,
            expected.kept_then,
            expected.samples,
        )
        assert f"min_words: {value}" in found["profile"]
    assert threshold.is_whole
    service.close()


def test_marks_are_shown_and_scored(serve: Serve, published_copy: Platform) -> None:
    sample = published_copy.features.decisions("tiny@v1", "image")["sample_id"][0].as_py()
    client = serve(published_copy.catalog, allow_marks=True)
    body = {
        "dataset_version": "tiny@v1",
        "modality": "image",
        "marks": [{"sample_id": sample, "mark": "drop"}],
    }
    assert client.post("/v1/marks", json=body).status_code == 200
    text = client.get(f"/curate?{IMAGE}").text
    assert "Rules against 1 marked sample<" in text
    assert "marked drop" in client.get(f"/sample/{sample}?{IMAGE}").text
