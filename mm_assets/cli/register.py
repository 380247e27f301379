"""`mm register`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mm_assets.cli.options import Json
from mm_assets.cli.output import print_exactly, print_json, say
from mm_embed_kernels.errors import UserError
from mm_embed_kernels.identity import split_dataset_version

# A source whose files are of any modality, by their content.
_AUTO = "auto"

if TYPE_CHECKING:
    from mm_embed_kernels.spec.dataset_spec import DatasetSpec
    from mm_resources.registry.registry import Registry


def register(
    spec: Annotated[Path | None, typer.Argument(help="spec file")] = None,
    from_: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="DATASET@VERSION",
            help="register the version after this one: the same spec, with a new listing of its sources",
        ),
    ] = "",
    as_: Annotated[
        str,
        typer.Option(
            "--as", metavar="VERSION", help="with --from: name of the new version; by default the next one"
        ),
    ] = "",
    print_: Annotated[
        bool, typer.Option("--print", help="with --from: print the new version's spec without registering it")
    ] = False,
    json: Json = False,
) -> None:
    """Register a spec, and freeze this version of the dataset."""
    if (spec is None) == (not from_):
        raise UserError("pass a spec file, or --from with the version that the new one follows")
    if spec is not None and (as_ or print_):
        raise UserError("--as and --print are options of --from")
    if spec is not None:
        _register_file(spec, json)
    elif print_:
        _print_successor(from_, as_)
    else:
        _register_successor(from_, as_, json)


def _register_file(path: Path, json: bool) -> None:
    from mm_embed_kernels.spec.dataset_spec import load_spec
    from mm_resources.catalog import Catalog

    spec = load_spec(path)
    registry = Catalog.open().registry
    _look_at_sources(registry, spec)
    new = _freeze(registry, spec)
    proposed = registry.proposed_parent(spec)
    if json:
        print_json({**_as_json(spec, new), **({"proposed_parent": proposed} if proposed else {})})
        return
    _print_registration(spec, new)
    if proposed:
        say(
            "it names no parent, so that samples that come or go may move others to another split; "
            f"to keep the splits of {spec.name}@{proposed}, add `parent: {proposed}` to {path} "
            "and register it again, before its first backfill"
        )


def _look_at_sources(registry: Registry, spec: DatasetSpec) -> None:
    """Check that each source of a new version lists something, before the version is frozen.

    Raises:
        UserError: for a source that lists nothing, with the nearest path that exists.
    """
    from mm_resources.registry.source_look import look_at_sources

    if not registry.is_registered(spec):
        for note in look_at_sources(registry, spec):
            say(note, file=sys.stderr)


def _print_successor(parent: str, name: str) -> None:
    from mm_embed_kernels.spec.next_version import to_yaml
    from mm_resources.catalog import Catalog

    print_exactly(to_yaml(_successor(Catalog.open().registry, parent, name)), end="")


def _register_successor(parent: str, name: str, json: bool) -> None:
    from mm_resources.catalog import Catalog
    from mm_resources.settings import Settings

    registry = Catalog.open().registry
    spec = _successor(registry, parent, name)
    new = _freeze(registry, spec)
    written = _write_spec(Settings.from_environment().datasets, spec)
    if json:
        file = {"parent": spec.parent, "spec": written and str(written)}
        print_json({**_as_json(spec, new), **file})
    else:
        _print_registration(spec, new, written)


def _successor(registry: Registry, parent: str, name: str) -> DatasetSpec:
    """Return the spec of the version that follows `parent`, named `name` or by the spec's own scheme."""
    from mm_embed_kernels.spec.next_version import resolve_version, successor

    try:
        spec = registry.spec(*split_dataset_version(parent))
    except ValueError as error:
        raise UserError(f"--from: {error}") from error
    return successor(spec, resolve_version(spec, name) if name else registry.next_name(spec))


def _freeze(registry: Registry, spec: DatasetSpec) -> bool:
    """Register a spec and its Dagster partition; False when it is registered already."""
    from mm_assets.operations.backfill import register_partition
    from mm_assets.operations.dagster_home import open_instance
    from mm_resources.settings import Settings

    new = registry.register(spec)
    register_partition(open_instance(Settings.from_environment()), spec.dataset_version)
    return new


def _write_spec(folder: Path, spec: DatasetSpec) -> Path | None:
    """Write a new version's spec unless its file exists; return its path, None without a folder of specs."""
    from mm_embed_kernels.spec.next_version import to_yaml

    if not folder.is_dir():
        return None
    path = folder / f"{spec.dataset_version}.yaml"
    if not path.exists():
        path.write_text(to_yaml(spec), "utf-8")
    return path


def _as_json(spec: DatasetSpec, new: bool) -> dict[str, Any]:
    found = {"dataset_version": spec.dataset_version, "new": new, "modalities": _modalities_of(spec)}
    return {**found, "by_content": True} if _AUTO in spec.modalities else found


def _modalities_of(spec: DatasetSpec) -> list[str]:
    """Return the modalities that the sources of a spec name."""
    return [modality for modality in spec.modalities if modality != _AUTO]


def _print_registration(spec: DatasetSpec, new: bool, written: Path | None = None) -> None:
    state = "registered" if new else "is already registered, with the same spec"
    by_content = ["what files contain (modality: auto)"] if _AUTO in spec.modalities else []
    say(f"{spec.dataset_version} {state}: {', '.join([*_modalities_of(spec), *by_content])}")
    if written:
        say(f"wrote {written}")
    if new:
        say(f"next: mm backfill {spec.dataset_version}")
