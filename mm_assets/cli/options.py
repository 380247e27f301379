"""Arguments and options that several commands share, and the checks of their values."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import typer

from mm_embed_kernels.errors import UserError, unknown_choice
from mm_embed_kernels.identity import ALIASES, check_name, split_dataset_version


def check_dataset_version(value: str | None) -> str | None:
    """Check that a value has the form DATASET@VERSION or DATASET@ALIAS, and return it.

    Raises:
        UserError: when it has another form.
    """
    if value:
        dataset, _, version = value.partition("@")
        try:
            check_name(dataset) if version.lower() in ALIASES else split_dataset_version(value)
        except ValueError as error:
            raise UserError(str(error)) from error
    return value


def check_dataset_versions(values: list[str] | None) -> list[str] | None:
    """Check each value as `check_dataset_version` does, and return them."""
    for value in values or []:
        check_dataset_version(value)
    return values


def check_choice(option: str, value: str, choices: Iterable[str]) -> None:
    """Check that the value of an option is one of its choices.

    Raises:
        UserError: when it is none of them.
    """
    if value not in choices:
        raise unknown_choice(option, value, choices)


_FORM = "DATASET@VERSION"

DatasetVersion = Annotated[
    str,
    typer.Argument(metavar=_FORM, callback=check_dataset_version, help="dataset version, or DATASET@ALIAS"),
]
ErrorClass = Annotated[str, typer.Option("--class", help="only this error class")]
Verify = Annotated[
    bool,
    typer.Option("--verify", help="before, compare the files of the tables with their hashes"),
]
Json = Annotated[bool, typer.Option("--json", help="machine-readable output")]
Modalities = Annotated[list[str] | None, typer.Option("--modality", help="only this modality; repeatable")]
OverrideGate = Annotated[
    str, typer.Option(metavar="REASON", help="publish despite a closed gate; the reason is recorded")
]
Stage = Annotated[str, typer.Option(help="only failures of this asset")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="print Dagster's log")]
Where = Annotated[
    str | None, typer.Option(metavar="SQL", help="filter on the feature columns, e.g. \"split = 'train'\"")
]
