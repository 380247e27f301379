"""Tools for agents, by the client of the official package, over a real port."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from mm_resources.catalog import Catalog
from mm_resources.serving.service import Service
from tests.assets.conftest import Platform
from tests.assets.serving.conftest import PATIENT, TOKEN, listen

TOOLS = {"search", "sample", "explain", "failures", "status", "plan"}


@pytest.fixture(scope="module")
def agent_address(published: Platform) -> Iterator[str]:
    with listen(
        Service(Catalog.open(published.settings.store), PATIENT), {"agent": TOKEN}, with_agents=True
    ) as address:
        yield f"{address}/mcp"


def call(address: str, *calls: tuple[str, dict[str, Any]]) -> list[Any]:
    """Return the names of the tools, and the answers of calls."""
    from mcp import ClientSession
    from mcp.client.streamable_http import create_mcp_http_client, streamable_http_client

    async def ask() -> list[Any]:
        http = create_mcp_http_client(headers={"Authorization": f"Bearer {TOKEN}"})
        async with (
            http,
            streamable_http_client(address, http_client=http) as streams,
            ClientSession(streams[0], streams[1]) as session,
        ):
            await session.initialize()
            tools = (await session.list_tools()).tools
            assert all(tool.annotations and tool.annotations.read_only_hint for tool in tools)
            return [{tool.name for tool in tools}, *[await session.call_tool(*each) for each in calls]]

    return asyncio.run(ask())


def test_agents_read_what_the_store_has(agent_address: str, published: Platform) -> None:
    sample = published.features.decisions("tiny@v1", "text")["sample_id"][0].as_py()
    cell = {"dataset_version": "tiny@v1", "modality": "text"}
    names, *answers = call(
        agent_address,
        ("status", {}),
        ("search", {**cell, "query": "the cat sleeps", "k": 1}),
        ("sample", {"sample_id": sample}),
        ("explain", {"identifier": sample}),
        ("failures", cell),
        ("plan", {**cell, "samples": 1000}),
    )
    assert names == TOOLS
    found = [json.loads(answer.content[0].text) for answer in answers]
    assert found[0]["datasets"][0]["dataset_version"] == "tiny@v1"
    expected = published.features.search("the cat sleeps", **cell, k=1)["feature_id"].to_pylist()
    assert [hit["feature_id"] for hit in found[1]["hits"]] == expected
    assert (found[2]["state"], found[3]["sample_id"]) == ("kept", sample)
    assert found[4]["causes"][0]["action"]
    assert found[5]["samples"] == 1000


def test_mistakes_are_answers_in_one_line(agent_address: str) -> None:
    _, wrong, unknown = call(
        agent_address,
        ("search", {"query": "x", "modality": "text", "where": "1=1; DROP"}),
        ("sample", {"sample_id": "../../etc/passwd"}),
    )
    assert wrong.is_error
    assert "bad_request: the filter" in wrong.content[0].text
    assert unknown.is_error
    assert "not_found" in unknown.content[0].text


def test_agents_need_the_token(agent_address: str) -> None:
    answer = httpx.post(agent_address, json={"jsonrpc": "2.0", "id": 1, "method": "tools/list"})
    assert (answer.status_code, answer.json()["type"]) == (401, "unauthorized")
