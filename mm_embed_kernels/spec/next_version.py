"""The version that follows another: its name, its spec, and its spec as a file."""

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
    """The same spec as the next version; its sources are listed anew when it is first backfilled.

    Raises:
        UserError: for a name that cannot be one, or the version's own.
    """
    written = {**spec.model_dump(by_alias=True, mode="json"), "version": version, "parent": spec.version}
    return parse_spec(
        yaml.safe_dump(written, sort_keys=False), f"the version that follows {spec.dataset_version}"
    )


def named(spec: DatasetSpec, name: str) -> str:
    """The version that ``v2`` or ``birds@v2`` names.

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
            f"{name} is of another dataset than {spec.dataset_version}; a version follows one of its own: {spec.name}@{version}"
        )
    return version


def next_names(version: str, scheme: str, day: date) -> Iterator[str]:
    """Names for the version that follows, the first choice first, without end.

    Args:
        scheme: ``number`` counts the last number of the name up (v1, v2, v3); ``date`` takes the day.
    """
    if scheme == "date":
        yield from (f"{day:%Y-%m-%d}" + (f".{n}" if n > 1 else "") for n in itertools.count(1))
    found = _LAST_NUMBER.search(version)
    if found is None:
        yield from (f"{version}-{n}" for n in itertools.count(2))
    else:
        head, number, tail = version[: found.start()], found[0], version[found.end() :]
        yield from (f"{head}{n:0{len(number)}}{tail}" for n in itertools.count(int(number) + 1))


def as_yaml(spec: DatasetSpec) -> str:
    """A spec as a person would write it: what is as by default is left out. Reading it gives the same spec."""
    whole = spec.model_dump(by_alias=True, mode="json")
    short = spec.model_dump(by_alias=True, mode="json", exclude_defaults=True)
    # The order of the splits counts, and equal shares in another order look like the default.
    text = yaml.safe_dump({**short, "splits": whole["splits"]}, sort_keys=False, allow_unicode=True)
    # Tracks take from their videos what they leave out, so one that has less than they must say so.
    return (
        text
        if parse_spec(text, "spec") == spec
        else yaml.safe_dump(whole, sort_keys=False, allow_unicode=True)
    )
