"""TODO."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    pass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass

Json = Annotated[bool, typer.Option("--json", help="machine-readable output")]


Json = Annotated[bool, typer.Option("--json", help="machine-readable output")]


Json = Annotated[bool, typer.Option("--json", help="machine-readable output")]


Json = Annotated[bool, typer.Option("--json", help="machine-readable output")]


DatasetVersion = Annotated[str, typer.Argument(metavar="DATASET@VERSION")]


Modality = Annotated[str | None, typer.Option(help="only this modality")]


Stage = Annotated[str, typer.Option(help="only failures of this asset")]


ErrorClass = Annotated[str, typer.Option("--class", help="only this error class")]


Json = Annotated[bool, typer.Option("--json", help="machine-readable output")]


Json = Annotated[bool, typer.Option("--json", help="machine-readable output")]
