"""A cut or damaged file of the registry is named, and costs nothing but itself."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest

from mm_embed_kernels.errors import UserError
from mm_embed_kernels.spec.dataset_spec import load_spec
from mm_resources.maintenance.garbage_collection import collect
from mm_resources.registry.aliases import Alias
from mm_resources.registry.damaged_files import describe_damage
from tests.assets.conftest import Platform, Run

DAMAGE = {
    "empty": b"",
    "half": b'{"layout": 2, "number": 1, "tab',
    "random": bytes(range(128, 256)),
    "another form": b'{"other": [1]}',
    "a list": b"[]",
    "null": b"null",
}
damage = pytest.mark.parametrize("content", DAMAGE.values(), ids=DAMAGE.keys())


@pytest.fixture
def two(published_copy: Platform, tmp_path: Path) -> Platform:
    """A store with ``tiny@v1``, published, and ``other@v1``, registered."""
    (tmp_path / "other").mkdir()
    spec = tmp_path / "other" / "spec.yaml"
    spec.write_text(
        "name: other\nversion: v1\nsources:\n"
        "  - {name: texts, modality: text, uri: texts.jsonl, record: {id: id, text: text}}\n"
    )
    (tmp_path / "other" / "texts.jsonl").write_text('{"id": "a", "text": "A short text about birds."}\n')
    published_copy.registry.register(load_spec(spec))
    return published_copy


def write(platform: Platform, name: str, content: bytes) -> None:
    (Path(platform.settings.store) / name).write_bytes(content)


def datasets(mm: Run, platform: Platform) -> dict[str, object]:
    done = mm("datasets", "--json", MM_STORE=platform.settings.store)
    assert done.returncode == 0, done.stderr
    return {row["dataset_version"]: row["published"] for row in json.loads(done.stdout)}


@damage
def test_a_damaged_spec_costs_its_version(two: Platform, mm: Run, content: bytes) -> None:
    name = "registry/datasets/other/v1.json"
    write(two, name, content)
    found = datasets(mm, two)
    assert found["tiny@v1"] == {"image": 2, "text": 2}
    assert name in str(found["other@v1"])
    assert [name in line for line in describe_damage(two.registry)] == [True]
    assert two.features.search("a cat", modality="text").num_rows == 2
    with pytest.raises(UserError, match=r"nothing is collected.*other/v1\.json"):
        collect(two.catalog, timedelta(0))


@damage
def test_a_damaged_pin_costs_its_cell(two: Platform, mm: Run, content: bytes) -> None:
    name = "registry/pins/tiny/v1/image/00000001.json"
    write(two, name, content)
    assert "other@v1" in datasets(mm, two)
    assert two.features.search("a cat", modality="text").num_rows == 2
    with pytest.raises(UserError, match="mm backfill tiny@v1 --modality image"):
        two.features.search("a cat", dataset_version="tiny@v1", modality="image")
    with pytest.raises(UserError, match="nothing is collected"):
        collect(two.catalog, timedelta(0))


@damage
def test_a_damaged_alias_costs_itself(two: Platform, content: bytes) -> None:
    aliases = two.registry.aliases
    aliases.move(Alias(1, "tiny", "production", "v1", {"text": 1}, "2026-01-01T00:00:00+00:00"))
    write(two, "registry/aliases/tiny/production/00000001.json", content)
    with pytest.raises(UserError, match=r"tiny@production.*00000001.json.*remove it"):
        aliases.resolve("tiny@production")
    assert two.features.search("a cat", dataset_version="tiny@v1", modality="text").num_rows == 2
    assert len(describe_damage(two.registry)) == 1


@damage
def test_a_damaged_layout_costs_nothing(two: Platform, mm: Run, content: bytes) -> None:
    if content == DAMAGE["half"]:
        content = content[:9]
    write(two, "registry/layout.json", content)
    assert set(datasets(mm, two)) == {"tiny@v1", "other@v1"}
    (line,) = describe_damage(two.registry)
    assert '{"layout": 3, "before": 2}' in line
    assert "registry/layout.json" in line


@damage
def test_a_damaged_drift_report_is_made_again(two: Platform, content: bytes) -> None:
    spec = two.registry.spec("tiny", "v1")
    two.registry.drifts.check(spec, spec.sources[0])
    write(two, f"registry/drift/tiny/v1/{spec.sources[0].name}.json", content)
    assert two.registry.drifts.last_check(spec, spec.sources[0]) is None
    two.registry.drifts.check(spec, spec.sources[0])
    assert two.registry.drifts.last_check(spec, spec.sources[0]) is not None
