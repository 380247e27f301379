"""Published datasets as assets of their own: ``features/DATASET/MODALITY`` and ``features/DATASET/ALIAS``.

They have no partitions, so that an asset of a user's own depends on a dataset by its key alone; each publish
and each promotion reports a materialization with the data version of what readers get from then on
(`dataset_reports`), and the checks of the cell stand beside it.

Dagster reads the annotations of a check at run time, so this module does without `from __future__
import annotations`.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta

import dagster as dg

from mm_assets.cells.asset_keys import asset_key
from mm_assets.cells.check_descriptions import DESCRIPTIONS
from mm_assets.cells.dataset_verdicts import PROMOTION_GATE, alias_checks, pin_checks
from mm_assets.cells.materialization import check_fields, column_schema
from mm_embed_kernels.contracts import FEATURES
from mm_embed_kernels.identity import ALIASES
from mm_embed_kernels.spec.dataset_spec import DatasetSpec
from mm_embed_kernels.spec.model import seconds
from mm_resources.registry.registry import declared_cells
from mm_resources.resources import CatalogResource

FOLDER = "features"
# Names that promotion moves; `latest` is what the modality's asset stands for.
_ALIASES = sorted(ALIASES - {"latest"})


def dataset_key(dataset: str, name: str) -> dg.AssetKey:
    """Return the key of a dataset's features of a modality, or under an alias."""
    return dg.AssetKey([FOLDER, dataset, name])


def dataset_definitions(spec: DatasetSpec) -> dg.Definitions:
    """Declare the assets of a dataset with their checks; without it Dagster knows them only by their events.

    The checks can be executed: they report the stored verdicts of what readers get.
    """
    modalities = [cell.modality for cell in declared_cells(spec)]
    checks = [
        _mirrored_checks(spec.name, name, sorted(DESCRIPTIONS) if name in modalities else [PROMOTION_GATE])
        for name in [*modalities, *_ALIASES]
    ]
    return dg.Definitions(assets=dataset_specs(spec, modalities), asset_checks=checks)


def dataset_specs(spec: DatasetSpec, modalities: Sequence[str]) -> list[dg.AssetSpec]:
    """Declare the assets of a dataset, of its modalities and aliases, by its card."""
    card, name = spec.card, spec.name
    made_from = [dg.AssetKey(key.split("/")) for key in card.made_from]
    parts = [dataset_key(name, modality) for modality in modalities]
    window = timedelta(seconds=seconds(card.fresh_within)) if card.fresh_within else None

    def declare(part: str, what: str, deps: Iterable[dg.AssetKey], tags: dict[str, str]) -> dg.AssetSpec:
        # An alias moves when a person moves it.
        fresh = dg.FreshnessPolicy.time_window(fail_window=window) if window and part in modalities else None
        return dg.AssetSpec(
            dataset_key(name, part),
            deps=list(deps),
            description="\n\n".join(filter(None, [what, card.description])),
            group_name=FOLDER,
            owners=card.owners,
            tags={**card.tags, "mm/dataset": name, **tags},
            kinds={"lancedb"},
            metadata={"dagster/column_schema": column_schema(FEATURES)},
            freshness_policy=fresh,
        )

    return [
        *(
            declare(
                modality,
                f"What readers get of {name}: the newest version's {modality} features, passed by its gates.",
                [asset_key("feature_views"), *made_from],
                {"mm/modality": modality},
            )
            for modality in modalities
        ),
        *(
            declare(
                alias,
                f"What readers get of {name}@{alias}: the version that was promoted to it.",
                parts,
                {"mm/alias": alias},
            )
            for alias in _ALIASES
        ),
    ]


def _mirrored_checks(dataset: str, name: str, checks: Sequence[str]) -> dg.AssetChecksDefinition:
    """Declare checks of an asset of a dataset, which report stored verdicts."""
    key = dataset_key(dataset, name)
    described = {**DESCRIPTIONS, PROMOTION_GATE: "The version passed the gate of its promotion."}

    @dg.multi_asset_check(
        name=re.sub(r"\W", "_", f"checks_of_{dataset}_{name}"),
        specs=[dg.AssetCheckSpec(check, asset=key, description=described[check]) for check in checks],
        can_subset=True,
        description=f"Reports the stored verdicts of what readers get of {key.to_user_string()}.",
    )
    def report(
        context: dg.AssetCheckExecutionContext, mm_catalog: CatalogResource
    ) -> Iterator[dg.AssetCheckResult]:
        catalog = mm_catalog.open()
        found = alias_checks if checks == [PROMOTION_GATE] else pin_checks
        made = {check.name: check for check in found(catalog, dataset, name)}
        for chosen in sorted(context.selected_asset_check_keys):
            if chosen.name in made:
                yield dg.AssetCheckResult(
                    asset_key=key, check_name=chosen.name, **check_fields(made[chosen.name])
                )
            else:
                yield dg.AssetCheckResult(
                    asset_key=key,
                    check_name=chosen.name,
                    passed=True,
                    description="was not measured: nothing is published, or the stage has no such check",
                )

    return report
