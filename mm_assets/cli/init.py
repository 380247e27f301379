"""`mm init`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from mm_assets.cli.options import Json
from mm_assets.cli.output import print_json, print_table, say
from mm_embed_kernels.errors import UserError


def init(
    folder: Annotated[Path, typer.Argument(help="folder of media and tables")],
    name: Annotated[str, typer.Option(help="dataset name; by default the folder's")] = "",
    version: Annotated[str, typer.Option(help="dataset version")] = "v1",
    out: Annotated[
        Path | None, typer.Option(help="path of the spec to write; by default FOLDER/dataset.yaml")
    ] = None,
    force: Annotated[bool, typer.Option(help="replace an existing spec")] = False,
    json: Json = False,
) -> None:
    """Inspect a folder and write a dataset spec for it, with its schema."""
    from mm_assets.spec_drafts.folder import draft_spec

    target = out or folder / "dataset.yaml"
    if target.exists() and not force:
        raise UserError(f"{target} exists; pass --force to replace it")
    draft = draft_spec(folder, name, version, target.absolute().parent)
    target.write_text(draft.yaml, "utf-8")
    if json:
        print_json(
            {
                "spec": str(target),
                "dataset_version": draft.dataset_version,
                "found": draft.found,
                "skipped": draft.skipped,
            }
        )
        return
    say(f"wrote {target}\n\n{draft.yaml}")
    print_table("files by kind", [{"kind": kind, "files": count} for kind, count in draft.found.items()])
    for table, cause in draft.skipped.items():
        say(f"skipped: {table}: {cause}")
    register = shlex.join(["mm", "register", str(target)])
    say(f"check the spec, then run: {register} && mm backfill {draft.dataset_version}")
