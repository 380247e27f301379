"""`mm init`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from mm_assets.cli.options import Json
from mm_assets.cli.output import print_json, print_table, say
from mm_embed_kernels.errors import UserError

# Files that a line names.
_NAMED = 4


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
    """Inspect a folder and write a dataset spec for it, with the JSON Schema that editors read."""
    from mm_assets.spec_drafts.contents import WILL_FAIL
    from mm_assets.spec_drafts.folder import SCHEMA_FILE, draft_spec
    from mm_assets.spec_drafts.json_schema import text

    target = out or folder / "dataset.yaml"
    if target.exists() and not force:
        raise UserError(f"{target} exists; pass --force to replace it")
    draft = draft_spec(folder, name, version, target.absolute().parent)
    target.write_text(draft.yaml, "utf-8")
    target.with_name(SCHEMA_FILE).write_text(text(), "utf-8")
    if json:
        print_json(
            {
                "spec": str(target),
                "dataset_version": draft.dataset_version,
                "found": draft.found,
                "skipped": draft.skipped,
                "left_out": draft.left_out,
            }
        )
        return
    say(f"wrote {target}\n\n{draft.yaml}")
    print_table("files by kind", [{"kind": kind, "files": count} for kind, count in draft.found.items()])
    for table, cause in draft.skipped.items():
        say(f"left out: {table}: {cause}")
    for cause, keys in draft.left_out.items():
        said = cause if cause == WILL_FAIL else f"left out, {cause}"
        say(f"{said} ({len(keys):,}): {_first(keys)}")
    register = shlex.join(["mm", "register", str(target)])
    say(f"check the spec, then run: {register} && mm backfill {draft.dataset_version}")


def _first(keys: list[str]) -> str:
    """Return the first of some keys, for a line."""
    more = f", and {len(keys) - _NAMED:,} more" if len(keys) > _NAMED else ""
    return ", ".join(keys[:_NAMED]) + more
