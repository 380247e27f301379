"""Successor of a dataset version: its name, its spec, and the spec as YAML."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from datetime import date

import yaml

from mm_embed_kernels.errors import UserError
from mm_embed_kernels.identity import split_dataset_version
from mm_embed_kernels.spec.dataset_spec import DatasetSpec, parse_spec

_LAST_NUMBER = re.compile(r"\d+(?=\D*$)")


def successor(spec: DatasetSpec, version: str) -> DatasetSpec:
    """Return the same spec as the next version; its sources are listed again at the first backfill.

    Raises:
        UserError: for a name that is no version name, or that of `spec` itself.
    """
    written = {**spec.model_dump(by_alias=True, mode="json"), "version": version, "parent": spec.version}
    return parse_spec(
        yaml.safe_dump(written, sort_keys=False), f"the version that follows {spec.dataset_version}"
    )


def resolve_version(spec: DatasetSpec, name: str) -> str:
    """Return the version name of ``v2`` or ``birds@v2``.

    Raises:
        UserError: for a version of another dataset.
    """
    if "@" not in name:
        return name
    try:
        dataset, version = split_dataset_version(name)
    except ValueError as error:
        raise UserError(str(error)) from None
    if dataset != spec.name:
        raise UserError(
            f"{name} is of another dataset than {spec.dataset_version}; "
            f"a version follows one of its own dataset: {spec.name}@{version}"
        )
    return version


def next_names(version: str, scheme: str, day: date) -> Iterator[str]:
    """Generate names for the version that follows, in order of preference, without end.

    Args:
        version: the present version.
        scheme: ``number`` increments the last number of the name (v1, v2, v3); ``date`` uses the day.
        day: the date for ``date``.
    """
    if scheme == "date":
        yield from (f"{day:%Y-%m-%d}" + (f".{n}" if n > 1 else "") for n in itertools.count(1))
    match = _LAST_NUMBER.search(version)
    if match is None:
        yield from (f"{version}-{n}" for n in itertools.count(2))
    else:
        head, number, tail = version[: match.start()], match[0], version[match.end() :]
        yield from (f"{head}{n:0{len(number)}}{tail}" for n in itertools.count(int(number) + 1))


def to_yaml(spec: DatasetSpec) -> str:
    """Write a spec as short YAML, without values that equal the default; parsing it gives the same spec."""
    whole = spec.model_dump(by_alias=True, mode="json")
    short = spec.model_dump(by_alias=True, mode="json", exclude_defaults=True)
    # The order of the splits matters, and equal shares in another order compare equal to the default.
    text = yaml.safe_dump({**short, "splits": whole["splits"]}, sort_keys=False, allow_unicode=True)
    # A source of tracks inherits what it leaves out from its videos; where it has less than they, only the
    # full form is equal.
    return (
        text
        if parse_spec(text, "spec") == spec
        else yaml.safe_dump(whole, sort_keys=False, allow_unicode=True)
    )
