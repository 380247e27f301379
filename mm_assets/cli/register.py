"""TODO."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mm_assets.cli.output import print_json

if TYPE_CHECKING:
    from mm_embed_kernels.spec.dataset_spec import DatasetSpec
    from mm_resources.registry.registry import Registry
from mm_assets.cli.options import Json


def register(
    spec: Annotated[Path | None, typer.Argument(help="spec file")] = None,
    from_: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="DATASET@VERSION",
            help="follow this version: its spec, with its sources listed anew",
        ),
    ] = "",
    as_: Annotated[
        str,
        typer.Option(
            "--as", metavar="VERSION", help="with --from: the new version's name; by default the next one"
        ),
    ] = "",
    print_: Annotated[
        bool, typer.Option("--print", help="with --from: print the new version's spec, and register nothing")
    ] = False,
    json: Json = False,
) -> None:
    """Record a spec: from then on this version of the dataset is frozen."""
    from mm_assets.operations.backfill import register_partition
    from mm_assets.operations.dagster_home import open_instance
    from mm_embed_kernels.errors import UserError
    from mm_embed_kernels.spec.dataset_spec import load_spec
    from mm_embed_kernels.spec.next_version import as_yaml
    from mm_resources.registry.registry import Registry
    from mm_resources.settings import Settings
    from mm_resources.storage.store import Store

    if (spec is None) == (not from_):
        raise UserError("name a spec file, or with --from the version that the new one follows")
    if (as_ or print_) and not from_:
        raise UserError("--as and --print go with --from")
    settings = Settings.from_environment()
    registry = Registry(Store(settings.store))
    loaded = load_spec(spec) if spec else _following(registry, from_, as_)
    if print_:
        print(as_yaml(loaded), end="")
        return
    new = registry.register(loaded)
    written = _written(settings.datasets, loaded) if from_ else None
    register_partition(open_instance(settings), loaded.dataset_version)
    if json:
        told = {"dataset_version": loaded.dataset_version, "new": new, "modalities": loaded.modalities}
        print_json({**told, **({"parent": loaded.parent, "spec": written and str(written)} if from_ else {})})
        return
    print(
        f"{loaded.dataset_version} {'registered' if new else 'was registered before, with the same spec'}: {', '.join(loaded.modalities)}"
    )
    if written:
        print(f"wrote {written}")
    if new:
        print(f"next: mm backfill {loaded.dataset_version}")


def _following(registry: Registry, parent: str, name: str) -> DatasetSpec:
    """The spec of the version that follows `parent`."""
    from mm_embed_kernels.errors import UserError
    from mm_embed_kernels.identity import split_dataset_version
    from mm_embed_kernels.spec.next_version import named, successor

    try:
        spec = registry.spec(*split_dataset_version(parent))
    except ValueError as error:
        raise UserError(f"--from: {error}") from None
    return successor(spec, named(spec, name) if name else registry.next_name(spec))


def _written(folder: Path, spec: DatasetSpec) -> Path | None:
    """The file of a new version's spec, beside the others; None where specs are not kept in that folder.

    One that is there already stays as it is.
    """
    from mm_embed_kernels.spec.next_version import as_yaml

    if not folder.is_dir():
        return None
    path = folder / f"{spec.dataset_version}.yaml"
    if not path.exists():
        path.write_text(as_yaml(spec), "utf-8")
    return path
