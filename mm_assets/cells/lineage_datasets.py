"""Datasets of OpenLineage events: sources, stage tables and feature tables."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlsplit

import dagster as dg

from mm_assets.cells.cell_run import CellRun
from mm_embed_kernels.urls import strip_secrets
from mm_resources.registry.pins import PinnedTable

# Facets of this project, and of its events, name their producer.
PRODUCER = "https://pypi.org/project/mm-features"
# What may stand in a URI (RFC 3986), with the percent sign of what is escaped already.
_URI_CHARACTERS = ":/?#[]@!$&'()*+,;=%"
_WILDCARD = re.compile(r"[*?\[{]")
# Stages that read the sources themselves.
_READERS = ("dataset_registry", "raw_assets", "content_blobs")


def split_uri(uri: str) -> tuple[str, str]:
    """Return namespace and name of a URI, as OpenLineage names datasets.

    Those of ``s3://bucket/key`` are ``s3://bucket`` and ``key``; those of a path are ``file`` and the path.
    """
    if "://" not in uri:
        return "file", uri
    parts = urlsplit(uri)
    if parts.scheme == "file":
        return "file", parts.path
    keeps_slash = parts.scheme in ("http", "https", "sftp")
    return f"{parts.scheme}://{parts.netloc}", (parts.path if keeps_slash else parts.path.lstrip("/")) or "/"


def source_root(uri: str) -> str:
    """Return a source's URI up to its first wildcard, without secrets: ``a/b`` of ``a/b/*.jpg``."""
    plain = strip_secrets(uri)
    found = _WILDCARD.search(plain)
    return plain[: found.start()].rpartition("/")[0] if found else plain


def source_datasets(run: CellRun) -> Iterator[Any]:
    """Yield the sources of the cell as inputs, for the stages that read them."""
    from openlineage.client.event_v2 import InputDataset
    from openlineage.client.facet_v2 import datasource_dataset

    if run.asset not in _READERS:
        return
    for source in run.spec.sources_of(run.cell.modality):
        root = source_root(source.uri)
        namespace, name = split_uri(root)
        uri = root if "://" in root else f"file://{root}"
        facet = datasource_dataset.DatasourceDatasetFacet(
            name=source.name, uri=quote(uri, safe=_URI_CHARACTERS), producer=PRODUCER
        )
        yield InputDataset(namespace, name, facets={"dataSource": facet})


def stage_inputs(run: CellRun) -> Iterator[Any]:
    """Yield the tables of the stages that this one reads, at the versions that it reads."""
    from openlineage.client.event_v2 import InputDataset
    from openlineage.client.facet_v2 import data_quality_metrics_input_dataset as metrics

    for name in run.deps:
        meta = run.snapshot.meta(name)
        namespace, path = split_uri(run.catalog.tables.uri(name, run.cell))
        counted = metrics.DataQualityMetricsInputDatasetFacet(
            columnMetrics={}, rowCount=meta.rows if meta else None, producer=PRODUCER
        )
        version = {"version": _version(meta.data_version)} if meta else {}
        yield InputDataset(namespace, path, facets=version, inputFacets={"dataQualityMetrics": counted})


def stage_output(run: CellRun, result: dg.MaterializeResult[Any] | None) -> Any:
    """Return the table of a stage as an output; with its facets where a result is given."""
    from openlineage.client.event_v2 import OutputDataset

    namespace, name = split_uri(run.catalog.tables.uri(run.asset, run.cell))
    if result is None:
        return OutputDataset(namespace, name)
    meta = run.catalog.tables.meta(run.asset, run.cell)
    facets = {**_content_facets(run, result), **({"version": _version(meta.data_version)} if meta else {})}
    return OutputDataset(namespace, name, facets=facets, outputFacets=_statistics(result))


def feature_tables(run: CellRun, result: dg.MaterializeResult[Any]) -> Iterator[Any]:
    """Yield the feature tables of a publish as outputs, at their Lance versions."""
    from openlineage.client.event_v2 import OutputDataset
    from openlineage.client.facet_v2 import documentation_dataset, ownership_dataset, symlinks_dataset

    pin = run.catalog.registry.pins.get(run.cell) if run.asset == "feature_views" else None
    if pin is None:
        return
    card = run.spec.card
    for table in pin.tables:
        namespace, name = split_uri(run.catalog.features.uri(table.table))
        facets = {**_content_facets(run, result), "version": _version(str(table.lance_version))}
        names = [f"{pin.dataset_version}/{pin.modality}", f"{pin.dataset}/{pin.modality}"]
        facets["symlinks"] = symlinks_dataset.SymlinksDatasetFacet(
            identifiers=[symlinks_dataset.Identifier("mm", each, "TABLE") for each in names],
            producer=PRODUCER,
        )
        if card.owners:
            facets["ownership"] = ownership_dataset.OwnershipDatasetFacet(
                owners=[ownership_dataset.Owner(owner, "OWNER") for owner in card.owners], producer=PRODUCER
            )
        if card.description:
            facets["documentation"] = documentation_dataset.DocumentationDatasetFacet(
                description=card.description, producer=PRODUCER
            )
        yield OutputDataset(namespace, name, facets=facets, outputFacets=_table_statistics(table))


def checked_table(run: CellRun, result: dg.MaterializeResult[Any]) -> Any:
    """Return the table of a stage as the input of its checks, with their outcomes.

    The facet belongs to inputs alone: checks are a job of their own, as the tests of dbt are.
    """
    from openlineage.client.event_v2 import InputDataset
    from openlineage.client.facet_v2 import data_quality_assertions_dataset as quality

    namespace, name = split_uri(run.catalog.tables.uri(run.asset, run.cell))
    facet = quality.DataQualityAssertionsDatasetFacet(
        assertions=[
            quality.Assertion(
                assertion=str(check.check_name),
                success=bool(check.passed),
                severity="error" if check.severity == dg.AssetCheckSeverity.ERROR else "warn",
                description=check.description,
            )
            for check in result.check_results or []
        ],
        producer=PRODUCER,
    )
    return InputDataset(namespace, name, inputFacets={"dataQualityAssertions": facet})


def _content_facets(run: CellRun, result: dg.MaterializeResult[Any]) -> dict[str, Any]:
    """Return schema and column lineage of an output, from what Dagster is told of it."""
    from openlineage.client.facet_v2 import column_lineage_dataset as lineage
    from openlineage.client.facet_v2 import schema_dataset

    metadata: Mapping[str, Any] = result.metadata or {}
    columns = metadata["dagster/column_schema"].columns
    facets: dict[str, Any] = {
        "schema": schema_dataset.SchemaDatasetFacet(
            fields=[
                schema_dataset.SchemaDatasetFacetFields(
                    name=each.name, type=each.type, description=each.description
                )
                for each in columns
            ],
            producer=PRODUCER,
        )
    }
    fields = {}
    for column, deps in metadata["dagster/column_lineage"].deps_by_column.items():
        inputs = []
        for dep in deps:
            namespace, name = split_uri(run.catalog.tables.uri(dep.asset_key.path[-1], run.cell))
            same = lineage.Transformation(type="DIRECT", subtype="IDENTITY")
            inputs.append(lineage.InputField(namespace, name, dep.column_name, [same]))
        fields[column] = lineage.Fields(inputFields=inputs)
    if fields:
        facets["columnLineage"] = lineage.ColumnLineageDatasetFacet(fields=fields, producer=PRODUCER)
    return facets


def _version(version: str) -> Any:
    from openlineage.client.facet_v2 import dataset_version_dataset

    return dataset_version_dataset.DatasetVersionDatasetFacet(datasetVersion=version, producer=PRODUCER)


def _statistics(result: dg.MaterializeResult[Any]) -> dict[str, Any]:
    from openlineage.client.facet_v2 import output_statistics_output_dataset as statistics

    rows = int((result.metadata or {})["dagster/row_count"])  # type: ignore[arg-type]
    facet = statistics.OutputStatisticsOutputDatasetFacet(rowCount=rows, producer=PRODUCER)
    return {"outputStatistics": facet}


def _table_statistics(table: PinnedTable) -> dict[str, Any]:
    from openlineage.client.facet_v2 import output_statistics_output_dataset as statistics

    facet = statistics.OutputStatisticsOutputDatasetFacet(rowCount=table.rows, producer=PRODUCER)
    return {"outputStatistics": facet}
