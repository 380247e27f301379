"""A service over the published store, in this process and behind a real port."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import uvicorn
from starlette.testclient import TestClient

from mm_resources.catalog import Catalog
from mm_resources.serving.access import Access
from mm_resources.serving.app import create_app
from mm_resources.serving.limits import ServiceLimits
from mm_resources.serving.server import PatientProtocol
from mm_resources.serving.service import Service
from tests.assets.conftest import Platform

Serve = Callable[..., TestClient]
BASE = "http://127.0.0.1:8808"
# On a busy machine the first query waits for its model.
PATIENT = ServiceLimits(seconds=600)
TOKEN = "a-token-of-tests-0123456789"


@contextmanager
def client_of(service: Service, access: Access | None = None) -> Iterator[TestClient]:
    """Yield a client of an application in this process; the service is closed at the end."""
    app = create_app(service, access or Access({}))
    with TestClient(app, base_url=BASE, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="module")
def client(published: Platform) -> Iterator[TestClient]:
    with client_of(Service(Catalog.open(published.settings.store), PATIENT)) as client:
        yield client


@pytest.fixture
def serve(published: Platform) -> Iterator[Serve]:
    """Serve the published store in another way than `client` does."""
    opened: list[object] = []

    def make(
        catalog: Catalog | None = None, tokens: dict[str, str] | None = None, **limits: object
    ) -> TestClient:
        marks = bool(limits.pop("allow_marks", False))
        catalog = catalog or Catalog.open(published.settings.store)
        service = Service(catalog, replace(PATIENT, **limits), marks)  # type: ignore[arg-type]
        manager = client_of(service, Access(tokens or {}))
        opened.append(manager)
        return manager.__enter__()

    yield make
    for manager in opened:
        manager.__exit__(None, None, None)  # type: ignore[attr-defined]


@contextmanager
def listen(
    service: Service, tokens: dict[str, str], protocol: type = PatientProtocol, with_agents: bool = False
) -> Iterator[str]:
    """Yield the address of a service behind a real port of this machine."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(
            create_app(service, Access(tokens), with_agents=with_agents),
            http=protocol,
            lifespan="on",
            access_log=False,
            log_level="warning",
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def address(published: Platform) -> Iterator[str]:
    """The address of a service that asks for `TOKEN`."""
    with listen(Service(Catalog.open(published.settings.store), PATIENT), {"tests": TOKEN}) as address:
        yield address
