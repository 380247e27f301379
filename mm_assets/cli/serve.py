"""`mm serve`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from mm_assets.cli.output import say
from mm_embed_kernels.errors import UserError


def serve(  # noqa: PLR0913 - one parameter for each option
    host: Annotated[
        str, typer.Option(help="address to listen at; any but this machine's own needs a token")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="port to listen at")] = 8808,
    token_file: Annotated[
        Path | None,
        typer.Option(help="file with a token, or NAME:TOKEN, in each line; default: MM_TOKEN"),
    ] = None,
    host_name: Annotated[
        list[str] | None,
        typer.Option(help="further name by which a service without token is addressed; repeatable"),
    ] = None,
    allow_marks: Annotated[
        bool, typer.Option("--allow-marks", help="let people mark samples, the one thing that is written")
    ] = False,
    mcp: Annotated[
        bool, typer.Option("--mcp", help="serve read-only tools for agents at /mcp, by the same token")
    ] = False,
    workers: Annotated[int, typer.Option(min=1, max=256, help="answers that are computed at once")] = 16,
    upload_mb: Annotated[
        int, typer.Option(min=1, max=4096, help="MiB of a medium that is sent as a query")
    ] = 64,
    seconds: Annotated[float, typer.Option(min=0.1, help="seconds that an answer may take")] = 30.0,
) -> None:
    """Serve the published features of the store: an HTTP API, for applications and people."""
    try:
        from mm_resources.serving.app import create_app
        from mm_resources.serving.server import run_service
    except ModuleNotFoundError as error:
        raise UserError(
            f"mm serve needs {error.name}; install it: pip install 'mm-features[serve]'"
        ) from None
    from mm_resources.catalog import Catalog
    from mm_resources.serving.access import Access, check_address, hosts_of, read_tokens
    from mm_resources.serving.limits import ServiceLimits
    from mm_resources.serving.service import Service
    from mm_resources.storage.layout import check_layout

    tokens = read_tokens(os.environ.get("MM_TOKEN"), token_file)
    check_address(host, tokens)
    limits = ServiceLimits(workers=workers, upload_bytes=upload_mb << 20, seconds=seconds)
    catalog = Catalog.open()
    check_layout(catalog.store)
    service = Service(catalog, limits, allow_marks)
    say(f"serving {catalog.store.root} at http://{host}:{port}")
    run_service(
        create_app(service, Access(tokens, hosts_of(host_name or [])), warm=True, with_agents=mcp),
        host,
        port,
        limits,
    )
