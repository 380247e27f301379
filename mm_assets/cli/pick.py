"""`mm pick`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from mm_assets.cli.modality_choice import choose_modalities
from mm_assets.cli.options import DatasetVersion, Json, Where
from mm_assets.cli.output import print_json, print_table, say
from mm_embed_kernels.errors import UserError


def pick(  # noqa: PLR0913 - one parameter for each option
    dataset_version: DatasetVersion,
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="samples to pick")],
    by: Annotated[
        str,
        typer.Option(
            help="diversity (k-centre), coverage (facility location), typicality or random; with label "
            "beside it, such as diversity,label, each label has a quota"
        ),
    ] = "diversity",
    modality: Annotated[
        str | None, typer.Option(help="modality; required where several are published")
    ] = None,
    name: Annotated[
        str, typer.Option("--as", metavar="NAME", help="name of the pick; by default BY-COUNT")
    ] = "",
    quota: Annotated[
        list[str] | None,
        typer.Option(metavar="LABEL=N", help="samples of a label; repeatable; others share the rest equally"),
    ] = None,
    where: Where = None,
    seed: Annotated[int, typer.Option(min=0, help="seed of methods that draw")] = 0,
    json: Json = False,
) -> None:
    """Pick samples by their stored vectors, and record each with what speaks for it."""
    from mm_resources.retrieval.feature_store import FeatureStore
    from mm_resources.retrieval.picks import PickRequest, parse_by
    from mm_resources.retrieval.picks import pick as choose

    method, per_label = parse_by(by)
    quotas = _parse_quotas(quota or [])
    if quotas and not per_label:
        raise UserError("--quota is an option of --by with label, such as --by diversity,label")
    if sum(quotas.values()) > count:
        raise UserError(f"--quota: {sum(quotas.values()):,} samples are more than the {count:,} of -n")
    store = FeatureStore.open()
    (chosen,) = choose_modalities(store.catalog, [modality] if modality else None, [dataset_version])
    pin = store.published(dataset_version, chosen)
    named = name or f"{by.replace(',', '-').replace(' ', '')}-{count}"
    done = choose(store.catalog, pin, named, PickRequest(count, method, per_label, quotas, where, seed))
    if json:
        print_json({"dataset_version": pin.dataset_version, "modality": chosen, "by": by, **asdict(done)})
        return
    say(f"{done.picked:,} of {done.samples:,} samples picked by {by}, as {done.name}")
    if done.labels:
        print_table("by label", [{"label": each, "picked": n} for each, n in done.labels.items()])
    print_table(
        "cosine distance of samples to the nearest picked one",
        [
            {"pick": done.name, "mean": done.distance, "largest": done.largest_distance},
            {"pick": "at random", "mean": done.random_distance, "largest": done.random_largest_distance},
        ],
    )
    say(f"use it: mm export {dataset_version} --modality {chosen} --split pick:{done.name} --out FOLDER")


def _parse_quotas(given: list[str]) -> dict[str, int]:
    quotas = {}
    for value in given:
        label, equals, number = value.rpartition("=")
        if not equals or not number.isdecimal():
            raise UserError(f"--quota {value!r} is not LABEL=N, such as heron=100")
        quotas[label] = int(number)
    return quotas
