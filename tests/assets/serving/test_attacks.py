"""What a client sends to reach more than it may: other files and tables, other people's marks, the end of the service."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import threading
from pathlib import Path

import httpx
import pytest
from starlette.testclient import TestClient

from mm_embed_kernels.errors import UserError
from mm_resources.catalog import Catalog
from mm_resources.serving.access import check_address, read_tokens
from mm_resources.serving.limits import ServiceLimits
from mm_resources.serving.server import PatientProtocol
from mm_resources.serving.service import Service
from tests.assets.conftest import Platform
from tests.assets.serving.conftest import BASE, TOKEN, Serve, listen

TEXT = {"dataset_version": "tiny@v1", "modality": "text"}
BEARER = {"Authorization": f"Bearer {TOKEN}"}


def problem(answer: httpx.Response, status: int, kind: str) -> str:
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), (
        answer.text
    )
    body = answer.json()
    assert (body["type"], body["status"], "\n" in body["detail"]) == (kind, status, False)
    return str(body["detail"])


def test_an_address_of_other_machines_wants_a_token(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no token"):
        check_address("0.0.0.0", {})
    check_address("0.0.0.0", {"a": TOKEN})
    check_address("::1", {})
    file = tmp_path / "tokens"
    file.write_text(f"# people\nann:{TOKEN}\nbob:{TOKEN}x\n", "utf-8")
    assert read_tokens(None, file) == {"ann": TOKEN, "bob": f"{TOKEN}x"}
    file.write_text("short\n", "utf-8")
    with pytest.raises(UserError) as error:
        read_tokens(None, file)
    assert "short" not in str(error.value)


def test_without_the_token_nothing_is_shown(serve: Serve) -> None:
    client = serve(tokens={"tests": TOKEN})
    for path in ("/v1/datasets", "/metrics", "/openapi.json", "/v1", "/nothing"):
        problem(client.get(path), 401, "unauthorized")
        assert client.get(path, headers={"Authorization": f"Bearer {TOKEN}x"}).status_code == 401
    assert client.get("/healthz").status_code == 200
    assert client.get("/v1/datasets", headers=BEARER).status_code == 200
    for name in ("token", "access_token", "MM_TOKEN"):
        detail = problem(
            client.get("/v1/datasets", params={name: TOKEN}, headers=BEARER), 401, "unauthorized"
        )
        assert TOKEN not in detail


def test_other_sites_and_other_hosts_are_refused(client: TestClient) -> None:
    body = {**TEXT, "query": "a bird"}
    for headers in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}):
        problem(client.post("/v1/search", json=body, headers=headers), 403, "forbidden")
    assert client.post("/v1/search", json=body, headers={"Origin": BASE}).status_code == 200
    problem(client.get("/v1/datasets", headers={"Host": "evil.example"}), 403, "forbidden")


@pytest.mark.parametrize(
    "path",
    [
        "/v1/media/..%2f..%2fregistry%2flayout.json",
        "/v1/media/../../registry/layout.json",
        "/v1/media/" + "0" * 63 + "/",
        "/v1/samples/..%2f..%2f",
        "/v1/samples/%00",
        "/v1/features/' OR 1=1 --/explain",
        "/v1/datasets/..%2f..%2fetc@v1",
        "/v1/datasets/tiny@..",
        "/v1/training_sets/..%2f..%2fregistry/rows",
        "/v1/diff/tiny@v1/..%2f@x",
        "/static/..%2f..%2fapi.py",
        "/static/../api.py",
    ],
)
def test_paths_lead_nowhere_else(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code in (404, 422), answer.text
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "where",
    [
        "1=1; DROP TABLE features",
        "sample_id IN (SELECT sample_id FROM other)",
        "sample_id = (SELECT content FROM read_text('/etc/passwd'))",
        "read_text('/etc/passwd') IS NOT NULL",
        "1=1) OR (1=1",
        "label = 'x' -- ",
        "no_such_column = 1",
        "$1 = 1",
        "",
        "label = '" + "x" * 5_000 + "'",
        "(" * 2_000 + "1=1" + ")" * 1_900,
    ],
)
def test_filters_read_the_columns_alone(client: TestClient, where: str) -> None:
    problem(client.post("/v1/search", json={**TEXT, "query": "a bird", "where": where}), 422, "bad_request")
    problem(client.get("/v1/samples", params={**TEXT, "where": where}), 422, "bad_request") if where else None
    problem(client.post("/v1/training_sets", json={**TEXT, "where": where}), 422, "bad_request")


def test_a_text_is_never_the_path_of_a_file(client: TestClient, photos: dict[str, Path]) -> None:
    """The feature store itself reads such a path; a service reads words."""
    for path in (str(photos["flower"]), "/etc/passwd", "/no/such.jpg"):
        answer = client.post("/v1/search", json={**TEXT, "query": path})
        assert (answer.status_code, len(answer.json()["hits"])) == (200, 2)
    assert client.post("/v1/search", json={**TEXT, "query": {"path": "/etc/passwd"}}).status_code == 422


def test_manifests_name_published_tables_alone(client: TestClient) -> None:
    manifest = client.post("/v1/training_sets", json=TEXT).json()["manifest"]
    (table,) = manifest["tables"]
    for change in (
        {"table": "../registry/listings/tiny/v1/photos"},
        {"table": "../stages/raw_assets/tiny/v1/text"},
        {"lance_version": 1_000},
        {"pin": 7},
        {"pin": True},
        {"modality": "image"},
        {"modality": ["text"]},
    ):
        forged = {**manifest, "tables": [{**table, **change}]}
        problem(client.post("/v1/training_sets", json={"manifest": forged}), 422, "bad_request")
    for change in (
        {"where": "1=1; x"},
        {"tables": []},
        {"dataset_version": "../x@v1"},
        {"columns": ["no_such"]},
    ):
        problem(
            client.post("/v1/training_sets", json={"manifest": {**manifest, **change}}), 422, "bad_request"
        )


def test_bounds_of_a_request(client: TestClient, serve: Serve) -> None:
    search = {**TEXT, "query": "a bird"}
    for change in (
        {"k": 1_000_000},
        {"k": 0},
        {"query": "x" * 30_000},
        {"queries": ["x"] * 65, "query": None},
        {"queries": []},
        {"query": [0.1] * 20_000},
        {"query": [float("1e39")] * 4},
        {"unknown": 1},
        {"mode": "x"},
    ):
        problem(client.post("/v1/search", json={**search, **change}), 422, "bad_request")
    for cursor in ("e30", "x" * 9_000, "\0", "W1tdLFtdLDFd"):
        problem(client.post("/v1/search", json={**search, "cursor": cursor}), 404, "not_found")
    small = serve(body_bytes=2_000, upload_bytes=5_000)
    problem(small.post("/v1/search", json={**search, "where": "x" * 3_000}), 413, "request_too_large")
    form = {"data": {"request": json.dumps(TEXT)}, "files": {"file": ("x", b"0" * 9_000)}}
    problem(small.post("/v1/search", **form), 413, "request_too_large")
    problem(
        client.post("/v1/search", content=b"{", headers={"Content-Type": "application/json"}),
        400,
        "bad_request",
    )
    problem(
        client.post("/v1/search", content=b"[" * 100_000, headers={"Content-Type": "application/json"}),
        400,
        "bad_request",
    )
    problem(
        client.post("/v1/search", content=b"x", headers={"Content-Type": "text/plain"}), 415, "bad_request"
    )
    problem(client.get("/v1/samples", params={**TEXT, "limit": 100_000}), 422, "bad_request")
    problem(
        client.get("/v1/samples", params={"dataset_version": "tiny@v9", "modality": "text"}), 404, "not_found"
    )
    problem(client.get("/nothing"), 404, "not_found")
    problem(client.delete("/v1/search"), 405, "bad_request")


def test_markup_leaves_as_an_attachment(serve: Serve, published_copy: Platform) -> None:
    blobs = published_copy.catalog.blobs
    svg = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
    page = b"<!DOCTYPE html><html><script>alert(1)</script></html>"
    client = serve(published_copy.catalog)
    for digest in blobs.put([svg, page]):
        answer = client.get(f"/v1/media/{digest}")
        assert answer.status_code == 200
        assert answer.headers["content-type"] in ("application/octet-stream", "text/plain; charset=utf-8")
        assert "sandbox" in answer.headers["content-security-policy"]
        if answer.headers["content-type"] == "application/octet-stream":
            assert answer.headers["content-disposition"].startswith("attachment")


def test_forgotten_content_leaves_no_preview(
    serve: Serve, published_copy: Platform, photos: dict[str, Path]
) -> None:
    from mm_resources.maintenance.forgetting import forget

    digest = hashlib.sha256(photos["flower"].read_bytes()).hexdigest()
    client = serve(published_copy.catalog)
    assert client.get(f"/v1/media/{digest}?preview=96").status_code == 200
    forget(Catalog.open(published_copy.settings.store), digest)
    for path in (f"/v1/media/{digest}?preview=96", f"/v1/media/{digest}"):
        problem(client.get(path), 410, "forgotten")


def test_marks_are_refused_unless_allowed(serve: Serve, published_copy: Platform) -> None:
    sample = published_copy.features.decisions("tiny@v1", "image")["sample_id"][0].as_py()
    body = {
        "dataset_version": "tiny@v1",
        "modality": "image",
        "marks": [{"sample_id": sample, "mark": "drop"}],
    }
    problem(serve(published_copy.catalog).post("/v1/marks", json=body), 403, "forbidden")
    client = serve(published_copy.catalog, {"ann": TOKEN}, allow_marks=True)
    assert client.post("/v1/marks", json=body).status_code == 401
    done = client.post("/v1/marks", json=body, headers=BEARER)
    assert done.json() == {"recorded": 1, "by": "ann"}
    assert client.post("/v1/marks", json={**body, "by": "bob"}, headers=BEARER).status_code == 422
    other = {**body, "marks": [{"sample_id": "0" * 32, "mark": "drop"}]}
    problem(client.post("/v1/marks", json=other, headers=BEARER), 422, "bad_request")
    cell = published_copy.cell("tiny@v1", "image")
    assert published_copy.catalog.reviews.latest(cell).select(["sample_id", "mark"]).to_pylist() == [
        {"sample_id": sample, "mark": "drop"}
    ]
    for given, status in (
        ({"label": "a heron"}, 200),
        ({"label": "a\nb"}, 422),
        ({}, 422),
        ({"label": "x" * 201}, 422),
    ):
        body["marks"] = [{"sample_id": sample, **given}]
        assert client.post("/v1/marks", json=body, headers=BEARER).status_code == status
    log = published_copy.catalog.reviews
    assert log.labels(cell).to_pylist() == [{"sample_id": sample, "label": "a heron"}]
    assert log.latest(cell)["mark"].to_pylist() == ["drop"], "a label is no decision"
    shown = client.get(f"/v1/samples/{sample}", headers=BEARER).json()
    assert (shown["mark"], shown["given_label"]) == ("drop", "a heron")
    body["marks"] = [{"sample_id": sample, "label": ""}]
    client.post("/v1/marks", json=body, headers=BEARER)
    assert log.labels(cell).num_rows == 0


class ImpatientProtocol(PatientProtocol):
    head_seconds = 0.2


def test_slow_clients_are_cut_off(published: Platform) -> None:
    limits = ServiceLimits(receive_seconds=0.2)
    service = Service(Catalog.open(published.settings.store), limits)
    with listen(service, {}, ImpatientProtocol) as address:
        host, port = address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), 10) as slow:
            slow.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n")
            assert slow.recv(100) == b""
        with socket.create_connection((host, int(port)), 10) as slow:
            head = "POST /v1/search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 99"
            slow.sendall(f"{head}\r\n\r\n{{".encode())
            assert slow.recv(1_000).startswith(b"HTTP/1.1 408")
        assert httpx.get(f"{address}/healthz").status_code == 200


def test_more_requests_than_may_wait_are_refused(serve: Serve) -> None:
    client = serve(workers=1, waiting=0)
    began, free = threading.Event(), threading.Event()
    from mm_resources.serving.problems import Problem
    from mm_resources.serving.work_queue import WorkQueue

    queue = WorkQueue(ServiceLimits(workers=1, waiting=0))

    def hold() -> None:
        began.set()
        free.wait(10)

    import asyncio

    async def ask() -> str:
        first = asyncio.create_task(queue.run(hold))
        await asyncio.to_thread(began.wait, 10)
        try:
            await queue.run(lambda: None)
        except Problem as refused:
            return refused.error_class
        finally:
            free.set()
            await first
        return ""

    assert asyncio.run(ask()) == "busy"
    assert client.get("/readyz").status_code == 200


def test_an_answer_that_takes_too_long_is_given_up() -> None:
    import asyncio

    from mm_resources.serving.problems import Problem
    from mm_resources.serving.work_queue import WorkQueue

    queue, free = WorkQueue(ServiceLimits(seconds=0.05)), threading.Event()
    with pytest.raises(Problem) as late:
        asyncio.run(queue.run(free.wait, 10))
    free.set()
    queue.close()
    assert (late.value.error_class, late.value.status, queue.pending) == ("request_timeout", 503, 0)


def test_a_model_that_dies_is_a_503_for_a_moment(serve: Serve) -> None:
    client = serve()
    body = {**TEXT, "query": "a first bird"}
    assert client.post("/v1/search", json=body).status_code == 200
    children = _model_children()
    assert children
    for child in children:
        os.kill(child, signal.SIGKILL)
    answers = [client.post("/v1/search", json={**body, "query": f"bird {i}"}).status_code for i in range(3)]
    assert set(answers) <= {200, 503}
    assert answers[-1] == 200


def _model_children() -> list[int]:
    import psutil

    return [child.pid for child in psutil.Process().children(recursive=True)]


def test_a_new_pin_is_seen_without_a_restart(serve: Serve, published_copy: Platform) -> None:
    from dataclasses import replace

    client, registry = serve(published_copy.catalog), published_copy.registry
    cell = published_copy.cell("tiny@v1", "text")
    first = client.get("/v1/samples", params={**TEXT, "limit": 1}).json()
    pin = registry.pins.get(cell)
    assert pin is not None
    registry.pins.publish(cell, replace(pin, number=2))
    assert client.get("/v1/samples", params=TEXT).json()["pin"]["pin"] == 2
    after = client.get("/v1/samples", params={**TEXT, "limit": 1, "cursor": first["cursor"]}).json()
    assert after["pin"]["pin"] == 1
