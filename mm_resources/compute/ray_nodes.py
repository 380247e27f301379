"""Check, before any work starts, that the nodes of a Ray cluster can do it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from mm_embed_kernels.errors import UserError
from mm_embed_kernels.messages import first_items, message_line
from mm_resources.compute.environment import Model, differences, environment
from mm_resources.storage.store import INCOMING, Store

# A node that does not answer within this time is refused.
ANSWER_SECONDS = 120
_NAMED = 5


def require_nodes(store: Store, models: Sequence[Model] = ()) -> None:
    """Check that each node that takes work has this process's environment and reaches the store.

    Each node reads an object that has just been written, so that a folder which all nodes mount is as good as
    a bucket.

    Raises:
        UserError: in one line, naming the node, what is wrong and what to do.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    token = uuid4().hex
    # Upkeep removes those that a killed process leaves behind.
    name = f"{INCOMING}/reach-{token}"
    store.write(name, token.encode())
    try:
        ask: Any = ray.remote(num_cpus=0, max_retries=0)(answer)
        answers = [
            (
                node,
                ask.options(
                    scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
                ).remote(store, name, models),
            )
            for node in nodes
        ]
        here = environment(models)
        for node, reference in answers:
            _judge(
                f"Ray node {node['NodeName']} on {node['NodeManagerHostname']}", reference, store, token, here
            )
    finally:
        store.remove(name)


def answer(store: Store, name: str, models: Sequence[Model]) -> tuple[str, str, dict[str, str]]:
    """On a node: read the probe object; return its bytes, or the cause of the error, and the environment."""
    try:
        read, cause = store.read(name).decode(), ""
    except Exception as error:  # noqa: BLE001 - any storage client's error; the driver reports it
        read, cause = "", f"{type(error).__name__}: {message_line(error)}"
    return read, cause, environment(models)


def _judge(node: str, reference: Any, store: Store, token: str, here: dict[str, str]) -> None:
    import ray

    try:
        read, cause, there = ray.get(reference, timeout=ANSWER_SECONDS)
    except ray.exceptions.GetTimeoutError:
        raise UserError(
            f"{node} does not answer within {ANSWER_SECONDS} s; "
            "see `ray status`, or run without --ray-address"
        ) from None
    except Exception as error:  # raised where a worker lacks this package
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        raise UserError(
            f"{node} cannot run this code: {lines[-1]}; install the packages of constraints.txt on all nodes"
        ) from error
    if found := differences(here, there):
        raise UserError(
            f"{node} has another environment: {', '.join(first_items(found, _NAMED))}; "
            "install the packages of constraints.txt on all nodes"
        )
    if read == token:
        return
    if store.is_local:
        raise UserError(
            f"{node} does not see the store {store.root}, a folder of this machine; "
            "set MM_STORE to a bucket (s3://...), or to a folder "
            "that all nodes mount at the same path"
        )
    raise UserError(
        f"{node} cannot read the store {store.root} ({cause}); "
        "give it the same endpoint and credentials as this process"
    )
