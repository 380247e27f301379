"""Attributes of the components: what they change in a project's definitions, and mistakes in them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import jsonschema
import pytest
from dagster_ray import Lifecycle, LocalRay

from mm_assets import Dataset, FeaturePlatform
from mm_assets.cells.check_descriptions import DESCRIPTIONS
from mm_embed_kernels.errors import UserError
from mm_embed_kernels.spec.dataset_spec import parse_spec
from tests.assets.conftest import environment

SPEC = """
name: birds
version: v1
card: {description: Birds of ponds., owners: ["team:ml", a@example.org], tags: {licence: cc-by}, made_from: [raw/notes], fresh_within: 7d}
sources: [{name: notes, modality: text, uri: /nowhere/notes.txt}]
"""


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """A component sets variables of its process."""
    with environment():
        yield


def build(component: Any) -> dg.Definitions:
    found = component.build_defs(None)
    assert isinstance(found, dg.Definitions)
    return found


def test_the_platform_takes_the_names_and_settings_of_a_project() -> None:
    platform = FeaturePlatform(
        key_prefix="ml/x",
        group_prefix="mm_",
        group_names={"1_ingest": "ingestion"},
        pools={"network": "downloads", "ray": ""},
        resources={"mm_sandbox": {"memory_mb": 1234}, "mm_ray": {"num_cpus": 3}},
        schedules={"nightly": "0 1 * * *"},
        alerts={"webhook": {"url": "http://127.0.0.1"}, "silence": ["drift"]},
    )
    dataset = Dataset(parse_spec(SPEC, "birds.yaml"), Path("/nowhere/defs.yaml"))
    whole = dg.Definitions.merge(build(dataset), build(platform))
    whole.get_repository_def().load_all_definitions()
    specs = {spec.key.to_user_string(): spec for spec in whole.resolve_all_asset_specs()}
    assert specs["ml/x/raw_assets"].group_name == "ingestion"
    assert specs["ml/x/embeddings"].group_name == "mm_3_embed"
    graph = whole.resolve_asset_graph()
    pools = {
        asset.key.path[-1]: asset.op.pool
        for asset in graph.assets_defs
        if asset.is_executable and asset.keys and asset.key.path[0] == "ml"
    }
    assert pools["raw_assets"] == "downloads"
    assert not pools["segments"]
    assert [(each.name, each.cron_schedule) for each in whole.schedules or []] == [("nightly", "0 1 * * *")]
    resources = dict(whole.resources or {})
    assert resources["mm_sandbox"].memory_mb == 1234
    assert resources["mm_cache"].ray.num_cpus == 3
    assert {"alert_gates", "alert_stale"} <= {each.name for each in whole.sensors or []}
    assert len(whole.resolve_job_def("refresh").nodes) == 12

    text = specs["features/birds/text"]
    assert list(text.owners) == ["team:ml", "a@example.org"]
    assert text.tags["licence"] == "cc-by"
    assert "Birds of ponds." in str(text.description)
    assert {dep.asset_key.to_user_string() for dep in text.deps} == {"ml/x/feature_views", "raw/notes"}
    assert text.freshness_policy == dg.FreshnessPolicy.time_window(fail_window=timedelta(days=7))
    assert specs["features/birds/production"].freshness_policy is None
    names = {key.name for key in graph.asset_check_keys if key.asset_key == text.key}
    assert names == set(DESCRIPTIONS)


@pytest.mark.parametrize(
    ("attributes", "told"),
    [
        ({"pools": {"gpuu": "x"}}, "pools 'gpuu' is not known; .*did you mean 'gpu'"),
        ({"schedules": ["nigtly"]}, "schedules 'nigtly' is not known; .*did you mean 'nightly'"),
        ({"sensors": ["spec"]}, "sensors 'spec' is not known"),
        ({"resources": {"mm_sandbox": {"memory": 1}}}, "resources.mm_sandbox 'memory' is not known"),
        ({"resources": {"mm_sandbox": {"memory_mb": "many"}}}, "resources.mm_sandbox: .*memory_mb"),
        ({"ray_cluster": "no_such_module:ray"}, "ray_cluster 'no_such_module:ray' is not MODULE:NAME"),
        ({"ray_cluster": "math:pi"}, "ray_cluster 'math:pi' is float, no resource"),
        ({"ray_cluster": "math:pi", "ray_address": "auto"}, "ray_cluster and ray_address: name one"),
    ],
)
def test_mistakes_are_one_line(attributes: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told) as failed:
        build(FeaturePlatform(**attributes))
    assert len(str(failed.value).splitlines()) == 1


LOCAL_RAY = LocalRay(lifecycle=Lifecycle(create=False))


def test_a_resource_of_dagster_ray_makes_the_cluster() -> None:
    name = f"{__name__}:LOCAL_RAY"
    resources = dict(build(FeaturePlatform(ray_cluster=name)).resources or {})
    assert resources["mm_cache"].ray.cluster is LOCAL_RAY
    assert not hasattr(resources["mm_ray"], "cluster"), "a second one would be made"
    with pytest.raises(UserError, match=r"resources.mm_ray: .* leave one of them out"):
        build(FeaturePlatform(ray_cluster=name, resources={"mm_ray": {"num_cpus": 3}}))


def test_the_yaml_of_alerts_is_checked_by_their_model() -> None:
    schema = FeaturePlatform.get_model_cls().model_json_schema()
    jsonschema.validate({"alerts": {"slack": {"token": "${env:T}", "channel": "#data"}}}, schema)
    for wrong in ({"silent": ["drift"]}, {"email": {"host": "mail"}}, {"webhook": {"url": 1}}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({"alerts": wrong}, schema)
    described = schema["$defs"]["Email"]["properties"]["password"]["description"]
    assert "${env:NAME}" in described


def test_alerts_of_the_yaml_are_those_of_the_sensors() -> None:
    text = "alerts: {webhook: {url: '${env:HOOK}'}, silence: [stale]}"
    component = FeaturePlatform.resolve_from_yaml(text)
    assert component.alerts is not None
    assert component.alerts.webhook is not None
    assert (component.alerts.webhook.url, component.alerts.silence) == ("${env:HOOK}", ["stale"])
