"""`mm init`, `mm register`, `mm datasets`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mm_assets.cli.output import print_json, print_table

Json = Annotated[bool, typer.Option("--json", help="machine-readable output")]


def add_to(app: typer.Typer) -> None:
    app.command()(init)
    app.command()(register)
    app.command()(datasets)


def init(
    folder: Annotated[Path, typer.Argument(help="folder of media and tables")],
    name: Annotated[str, typer.Option(help="dataset name; by default the folder's")] = "",
    version: Annotated[str, typer.Option(help="dataset version")] = "v1",
    out: Annotated[Path | None, typer.Option(help="where to write the spec; by default FOLDER/dataset.yaml")] = None,
    force: Annotated[bool, typer.Option(help="replace an existing spec")] = False,
    json: Json = False,
) -> None:
    """Sniff a folder and write a dataset spec for it, with its schema."""
    from mm_assets.sniffing import draft_spec
    from mm_embed_kernels.errors import UserError

    target = out or folder / "dataset.yaml"
    if target.exists() and not force:
        raise UserError(f"{target} exists; pass --force to replace it")
    draft = draft_spec(folder, name, version, target.absolute().parent)
    target.write_text(draft.yaml, "utf-8")
    if json:
        print_json({"spec": str(target), "dataset_version": draft.dataset_version, "found": draft.found, "skipped": draft.skipped})
        return
    print(f"wrote {target}\n\n{draft.yaml}")
    print_table("found", [{"what": what, "files": count} for what, count in draft.found.items()])
    for table, cause in draft.skipped.items():
        print(f"left out: {table}: {cause}")
    print(f"look it over, then: mm register {target} && mm backfill {draft.dataset_version}")


def register(
    spec: Annotated[Path, typer.Argument(help="spec file")],
    json: Json = False,
) -> None:
    """Record a spec: from then on this version of the dataset is frozen."""
    from mm_assets.backfill import register_partition
    from mm_assets.home import open_instance
    from mm_embed_kernels.spec import load_spec
    from mm_resources.registry import Registry
    from mm_resources.settings import Settings
    from mm_resources.store import Store

    settings = Settings.from_environment()
    loaded = load_spec(spec)
    new = Registry(Store(settings.store)).register(loaded)
    register_partition(open_instance(settings), loaded.dataset_version)
    if json:
        print_json({"dataset_version": loaded.dataset_version, "new": new, "modalities": loaded.modalities})
        return
    print(
        f"{loaded.dataset_version} {'registered' if new else 'was registered before, with the same spec'}: {', '.join(loaded.modalities)}"
    )
    if new:
        print(f"next: mm backfill {loaded.dataset_version}")


def datasets(json: Json = False) -> None:
    """List the registered dataset versions and what is published of them."""
    from mm_resources.registry import Registry
    from mm_resources.settings import Settings
    from mm_resources.store import Store

    registry = Registry(Store(Settings.from_environment().store))
    rows = []
    for name in registry.datasets():
        pins = {cell.modality: registry.pin(cell) for cell in registry.cells(name)}
        rows.append({"dataset_version": name, "published": {modality: pin.accounting["features"] for modality, pin in pins.items() if pin}})
    if json:
        print_json(rows)
    elif rows:
        print_table("datasets (features published by modality)", rows)
    else:
        print("no dataset is registered; start with: mm init FOLDER")
