"""`mm export`."""

from __future__ import annotations

from typing import Annotated

import typer

from mm_assets.cli.modality_choice import choose_modalities
from mm_assets.cli.options import DatasetVersion, Json, Verify, Where, check_choice
from mm_assets.cli.output import print_json, say
from mm_embed_kernels.errors import SampleError, UserError


def export(  # noqa: PLR0913 - one parameter for each option
    dataset_version: DatasetVersion,
    out: Annotated[str, typer.Option(help="folder to create, or a URL such as s3://bucket/folder")],
    modality: Annotated[
        list[str] | None,
        typer.Option(
            help="modality to export; repeatable; several are joined by entity; required where several are "
            "published"
        ),
    ] = None,
    form: Annotated[
        str,
        typer.Option("--format", help="parquet, webdataset, huggingface, croissant, lance or atlas"),
    ] = "parquet",
    media: Annotated[
        str | None,
        typer.Option(help="add the media: whole, of each sample; segments, the part of it that each row is"),
    ] = None,
    energon: Annotated[bool, typer.Option("--energon", help="of webdataset: add its index")] = False,
    shard_bytes: Annotated[int, typer.Option(min=1, help="bytes from which on a shard is full")] = 512 << 20,
    workers: Annotated[int, typer.Option(min=1, help="shards written at once")] = 4,
    where: Where = None,
    split: Annotated[
        str | None, typer.Option(help="only this split, or pick:NAME, unpicked:NAME of a pick")
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            help="column besides ids and vector; repeatable; by default key, source_uri, label, split, text"
        ),
    ] = None,
    embedder: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|MODALITY=NAME",
            help="vectors of this embedder, by default the primary one; repeatable, one for each modality",
        ),
    ] = None,
    verify: Verify = False,
    json: Json = False,
) -> None:
    """Write published features to a folder in a common format, with the manifest that reproduces the rows.

    An export that was broken off is completed by the same command.
    """
    from mm_resources.exports import export as write
    from mm_resources.exports import formats
    from mm_resources.retrieval.feature_store import FeatureStore

    check_choice("--format", form, formats())
    if media is not None:
        check_choice("--media", media, ("whole", "segments"))
    if energon and form != "webdataset":
        raise UserError("--energon is an option of --format webdataset")
    columns = column or ["key", "source_uri", "label", "split", "text"]
    store = FeatureStore.open()
    names = choose_modalities(store.catalog, modality, [dataset_version])
    training_set = store.training_set(
        dataset_version,
        modality=names,
        where=where,
        split=split,
        columns=columns,
        embedder=_choose_embedders(embedder or [], names),
        verify=verify,
    )
    options = {"energon": True} if energon else {}
    try:
        rows = write(
            training_set, form, out, media=media, shard_bytes=shard_bytes, workers=workers, **options
        )
    except SampleError as error:
        raise UserError(
            f"no export was completed: {error}; leave out that row by --where, or take --media whole"
        ) from None
    manifest = training_set.manifest
    if json:
        print_json({"folder": out, "format": form, "rows": rows, "manifest": manifest})
    else:
        say(f"{rows:,} rows of {manifest['dataset_version']} in {out} ({form})")


def _choose_embedders(given: list[str], modalities: list[str]) -> str | dict[str, str] | None:
    """Return the embedder of all modalities, or one for each that is named.

    Raises:
        UserError: for several that name no modality, or one modality twice.
    """
    if not given:
        return None
    # A model of a hub may have an equals sign in its name, a modality has none.
    named = [value.split("=", 1) for value in given if value.partition("=")[0] in modalities and "=" in value]
    if not named and len(given) == 1:
        return given[0]
    chosen = dict(named)
    if len(named) < len(given) or len(chosen) < len(given):
        example = " ".join(f"--embedder {name}=NAME" for name in modalities)
        raise UserError(f"--embedder: name each modality of --modality once, such as {example}")
    return chosen
