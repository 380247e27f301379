"""The HTTP API over a published store: its answers against those of the feature store in this process."""

from __future__ import annotations

import hashlib
import io
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pyarrow as pa
import pytest
from starlette.testclient import TestClient

from tests.assets.conftest import Platform
from tests.assets.serving.conftest import TOKEN, Serve

TEXT = {"dataset_version": "tiny@v1", "modality": "text"}
IMAGE = {"dataset_version": "tiny@v1", "modality": "image"}
ARROW = "application/vnd.apache.arrow.stream"


def read_arrow(body: bytes) -> pa.Table:
    return pa.ipc.open_stream(io.BytesIO(body)).read_all()


def test_versions_are_described(client: TestClient, published: Platform) -> None:
    found = client.get("/v1/datasets").json()
    assert [item["dataset_version"] for item in found["datasets"]] == ["tiny@v1"]
    described = client.get("/v1/datasets/tiny@v1").json()
    cells = {cell["modality"]: cell for cell in described["cells"]}
    pin = published.features.published("tiny@v1", "image")
    assert cells["image"]["accounting"]["published"] == pin.accounting["published"]
    assert cells["image"]["data_version"] == pin.data_version
    (table,) = cells["image"]["tables"]
    assert table["space"] == pin.primary.space
    assert table["columns"]["label"] == "string"


@pytest.mark.parametrize("mode", ["vector", "text", "hybrid"])
def test_a_search_answers_as_the_store_does(client: TestClient, published: Platform, mode: str) -> None:
    expected = published.features.search("the cat sleeps", **TEXT, k=3, mode=mode)
    body = {**TEXT, "query": "the cat sleeps", "k": 3, "mode": mode}
    answer = client.post("/v1/search", json=body)
    assert answer.status_code == 200, answer.text
    hits = answer.json()["hits"]
    assert [hit["feature_id"] for hit in hits] == expected["feature_id"].to_pylist()
    assert np.allclose([hit["score"] for hit in hits], expected["score"].to_pylist(), atol=1e-6)
    arrow = client.post("/v1/search", json=body, headers={"Accept": ARROW})
    assert read_arrow(arrow.content).schema == expected.schema
    assert answer.json()["pins"][0]["pin"] == 1


def test_several_queries_are_answered_in_their_order(client: TestClient, published: Platform) -> None:
    queries = ["the cat sleeps", "the market fell"]
    found = client.post("/v1/search", json={**TEXT, "queries": queries, "k": 1}).json()["results"]
    expected = [published.features.search(query, **TEXT, k=1)["feature_id"][0].as_py() for query in queries]
    assert [hits[0]["feature_id"] for hits in found] == expected


def test_pages_of_hits_follow_each_other(client: TestClient, published: Platform) -> None:
    expected = published.features.search("a bird", **TEXT, k=2)["feature_id"].to_pylist()
    body = {**TEXT, "query": "a bird", "k": 1}
    first = client.post("/v1/search", json=body).json()
    second = client.post("/v1/search", json={**body, "cursor": first["cursor"]}).json()
    assert [first["hits"][0]["feature_id"], second["hits"][0]["feature_id"]] == expected
    assert second["cursor"] is None
    other = client.post("/v1/search", json={**body, "query": "another", "cursor": first["cursor"]})
    assert (other.status_code, other.json()["type"]) == (404, "not_found")


def test_a_medium_is_a_query(client: TestClient, published: Platform, photos: dict[str, Path]) -> None:
    photo = photos["flower"]
    expected = published.features.search(photo, **IMAGE, k=2)
    form = {"request": json.dumps({**IMAGE, "k": 2})}
    answer = client.post("/v1/search", data=form, files={"file": ("x.jpg", photo.read_bytes())})
    assert answer.status_code == 200, answer.text
    assert [hit["feature_id"] for hit in answer.json()["hits"]] == expected["feature_id"].to_pylist()


def test_facets_count_the_rows_of_the_filter(client: TestClient) -> None:
    body = {**IMAGE, "query": "flower", "facets": ["label", "split"], "where": "label = 'flower'"}
    answer = client.post("/v1/search", json=body).json()
    assert answer["facets"]["label"] == {"flower": 1}
    assert sum(answer["facets"]["split"].values()) == 1


def test_samples_are_paged_and_filtered(client: TestClient, published: Platform) -> None:
    decisions = published.features.decisions("tiny@v1", "image")
    first = client.get(
        "/v1/samples", params={**IMAGE, "limit": 1, "order_by": "key", "facets": "kept"}
    ).json()
    assert first["total"] == decisions.num_rows == 2
    assert first["facets"] == {"kept": {"kept": 2}}
    rest = client.get(
        "/v1/samples", params={**IMAGE, "limit": 1, "order_by": "key", "cursor": first["cursor"]}
    )
    keys = [first["rows"][0]["key"], rest.json()["rows"][0]["key"]]
    assert keys == sorted(decisions["key"].to_pylist())
    some = client.get("/v1/samples", params={**IMAGE, "where": f"key = '{keys[0]}'"}).json()
    assert [row["key"] for row in some["rows"]] == keys[:1]


def test_a_sample_shows_its_decision_and_its_failure(client: TestClient, published: Platform) -> None:
    kept = published.features.decisions("tiny@v1", "image").to_pylist()[0]
    found = client.get(f"/v1/samples/{kept['sample_id']}").json()
    assert (found["state"], found["decision"]["split"]) == ("kept", kept["split"])
    assert {item["rule"] for item in found["decision"]["rules"]} == {item["rule"] for item in kept["rules"]}
    failures = client.get("/v1/failures", params=IMAGE).json()
    assert [row["error_class"] for row in failures["rows"]] == ["truncated"]
    (cause,) = failures["causes"]
    assert (cause["events"], bool(cause["meaning"]), bool(cause["action"])) == (1, True, True)
    broken = client.get(f"/v1/samples/{failures['rows'][0]['sample_id']}", params=IMAGE).json()
    assert (broken["state"], len(broken["failures"])) == ("failed", 1)


def test_the_bytes_of_a_sample_leave_whole_and_in_parts(client: TestClient, photos: dict[str, Path]) -> None:
    data = photos["flower"].read_bytes()
    path = f"/v1/media/{hashlib.sha256(data).hexdigest()}"
    whole = client.get(path)
    assert (whole.content == data, whole.headers["content-type"]) == (True, "image/jpeg")
    assert whole.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in whole.headers["content-security-policy"]
    part = client.get(path, headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content, part.headers["content-range"]) == (
        206,
        data[10:20],
        f"bytes 10-19/{len(data)}",
    )
    assert client.get(path, headers={"Range": "bytes=-5"}).content == data[-5:]
    assert client.get(path, headers={"Range": f"bytes={len(data)}-"}).status_code == 416
    assert client.get(path, headers={"If-None-Match": whole.headers["etag"]}).status_code == 304


def test_a_preview_is_small_and_made_once(client: TestClient, photos: dict[str, Path]) -> None:
    digest = hashlib.sha256(photos["flower"].read_bytes()).hexdigest()
    path = f"/v1/media/{digest}?preview=96"
    first = client.get(path)
    from PIL import Image

    picture = Image.open(io.BytesIO(first.content))
    assert (picture.format, max(picture.size)) == ("JPEG", 96)
    assert client.get(path).content == first.content
    hits = [
        line
        for line in client.get("/metrics").text.splitlines()
        if 'cache="previews"' in line and "_total" in line
    ]
    assert any('outcome="hit"' in line for line in hits)


def test_a_part_is_refused_where_there_is_none(client: TestClient, photos: dict[str, Path]) -> None:
    digest = hashlib.sha256(photos["flower"].read_bytes()).hexdigest()
    for span, status in (
        ("seconds=0-1", 415),
        ("seconds=2-1", 422),
        ("chars=0-1", 422),
        ("seconds=-1-2", 422),
    ):
        answer = client.get(f"/v1/media/{digest}", params={"span": span})
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")


def test_the_client_of_openai_searches(address: str, published: Platform) -> None:
    from openai import OpenAI

    client = OpenAI(api_key=TOKEN, base_url=f"{address}/v1", max_retries=0)
    page = client.vector_stores.search(
        "tiny@v1",
        query="a bird",
        max_num_results=2,
        filters={"type": "and", "filters": [{"type": "ne", "key": "label", "value": "none such"}]},
    )
    hits = published.features.search("a bird", **TEXT, k=2, where="label <> 'none such'")
    assert [hit.file_id for hit in page.data] == hits["sample_id"].to_pylist()
    assert page.data[0].content[0].text == hits["text"][0].as_py()


def test_many_clients_are_answered_alike(address: str, published: Platform) -> None:
    """Sixty-four clients at once: each gets the answer of the store, or is told to come again."""
    expected = published.features.search("a bird sings", **TEXT, k=2)["feature_id"].to_pylist()

    def ask(_: int) -> tuple[int, list[str]]:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        answer = httpx.post(
            f"{address}/v1/search",
            json={**TEXT, "query": "a bird sings", "k": 2},
            headers=headers,
            timeout=300,
        )
        return answer.status_code, [hit["feature_id"] for hit in answer.json().get("hits") or []]

    with ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(ask, range(128)))
    assert {status for status, _ in answers} <= {200, 429}
    assert all(found == expected for status, found in answers if status == 200)
    assert sum(status == 200 for status, _ in answers) >= 80


def test_a_training_set_is_pinned_and_streamed(client: TestClient, published: Platform) -> None:
    expected = published.features.training_set("tiny@v1", modality="image", columns=["label", "split"])
    body = {**IMAGE, "columns": ["label", "split"]}
    pinned = client.post("/v1/training_sets", json=body).json()
    assert pinned["manifest"] == expected.manifest
    rows = read_arrow(client.get(f"/v1/training_sets/{pinned['digest']}/rows").content)
    assert rows.equals(expected.to_arrow())
    again = client.post("/v1/training_sets", json={"manifest": pinned["manifest"]}).json()
    assert again["digest"] == pinned["digest"]
    assert client.get("/v1/training_sets/0000000000/rows").status_code == 404


def test_openai_shapes(client: TestClient, published: Platform) -> None:
    body = {
        "query": "a bird",
        "max_num_results": 2,
        "filters": {"type": "ne", "key": "label", "value": "it's"},
    }
    answer = client.post("/v1/vector_stores/tiny@v1/search", json=body)
    assert answer.status_code == 200, answer.text
    hits = published.features.search("a bird", **TEXT, k=2)
    assert [item["file_id"] for item in answer.json()["data"]] == hits["sample_id"].to_pylist()
    assert answer.json()["data"][0]["content"][0]["text"] == hits["text"][0].as_py()
    wrong = {**body, "filters": {"type": "eq", "key": "label) OR (1=1", "value": "x"}}
    assert client.post("/v1/vector_stores/tiny@v1/search", json=wrong).json()["type"] == "bad_request"


def test_costs_and_differences(client: TestClient) -> None:
    cells = client.get("/v1/costs/tiny@v1").json()["cells"]
    assert {cell["modality"] for cell in cells} == {"image", "text"}
    assert cells[0]["stages"]
    same = client.get("/v1/diff/tiny@v1/tiny@v1").json()["cells"]
    assert [(cell["added"], cell["removed"], cell["same"] > 0) for cell in same] == [(0, 0, True)] * 2
    drifts = [drift for cell in same for drift in cell["drift"]]
    assert {drift["kind"] for drift in drifts} >= {"decisions", "signals", "vectors"}
    assert {(drift["value"], drift["is_within_limit"]) for drift in drifts} == {(0, True)}


def test_the_chain_of_a_feature(client: TestClient, published: Platform) -> None:
    feature = published.features.search("a bird", **TEXT, k=1)["feature_id"][0].as_py()
    chain = client.get(f"/v1/features/{feature}/explain").json()
    assert chain["sample_id"] == published.features.explain(feature)["sample_id"]
    assert client.get(f"/v1/features/{'0' * 32}/explain").status_code == 404


def test_health_and_figures(client: TestClient) -> None:
    assert client.get("/healthz").json() == {"status": "alive"}
    assert client.get("/readyz").json() == {"status": "ready"}
    text = client.get("/metrics").text
    for name in (
        "mm_requests_total",
        "mm_request_seconds_bucket",
        "mm_pin_age_seconds",
        "mm_samples",
        "mm_queue",
    ):
        assert name in text
    assert 'mm_samples{dataset_version="tiny@v1",modality="image",state="failed"} 1.0' in text
    spent = [
        float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith("mm_cost_total{")
    ]
    cells = client.get("/v1/costs/tiny@v1").json()["cells"]
    assert sum(spent) == pytest.approx(sum(cell["price"] for cell in cells))


def test_a_store_that_goes_away_and_comes_back(serve: Serve, published_copy: Platform) -> None:
    client, root = serve(published_copy.catalog), Path(published_copy.settings.store)
    assert client.get("/readyz").status_code == 200
    root.rename(root.with_name("away"))
    gone = client.get("/readyz")
    assert (gone.status_code, gone.json()["type"]) == (503, "store_error")
    assert client.post("/v1/search", json={**TEXT, "query": "a bird"}).status_code in (404, 503)
    assert client.get("/", headers={"Accept": "text/html"}).status_code in (200, 503)
    assert client.get("/healthz").status_code == 200
    root.with_name("away").rename(root)
    assert client.get("/readyz").status_code == 200
    assert client.post("/v1/search", json={**TEXT, "query": "a bird"}).status_code == 200


def test_the_process_loads_neither_dagster_nor_ray(tmp_path: Path) -> None:
    import subprocess

    code = (
        "import sys\nimport mm_assets.cli.main, mm_assets.cli.serve, mm_resources.serving.app\n"
        "import mm_resources.serving.server\nprint([n for n in ('dagster', 'ray', 'torch') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
