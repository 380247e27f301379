"""A store records its layout, and one of another version is refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from mm_embed_kernels.errors import UserError
from mm_embed_kernels.spec.dataset_spec import parse_spec
from mm_resources.registry.registry import Registry
from mm_resources.storage.layout import LAYOUT
from mm_resources.storage.store import Store

SPEC = parse_spec("{name: birds, version: v1, sources: [{name: s, modality: text, uri: /data}]}", "f")


def test_a_new_store_is_marked_by_its_first_registration(tmp_path: Path) -> None:
    registry = Registry(Store(str(tmp_path)))
    assert registry.datasets() == []
    assert list(tmp_path.iterdir()) == [], "looking leaves nothing behind"
    registry.register(SPEC)
    assert registry.datasets() == ["birds@v1"]
    assert f'"layout": {LAYOUT}' in (tmp_path / "registry" / "layout.json").read_text()


@pytest.mark.parametrize("layout", [None, LAYOUT + 1], ids=["before layouts", "of a later version"])
def test_a_store_of_another_version_is_refused(tmp_path: Path, layout: int | None) -> None:
    Registry(Store(str(tmp_path))).register(SPEC)
    mark = tmp_path / "registry" / "layout.json"
    if layout is None:
        mark.unlink()
    else:
        mark.write_text(f'{{"layout": {layout}}}')
    registry = Registry(Store(str(tmp_path)))
    for use in (registry.datasets, lambda: registry.spec("birds", "v1"), lambda: registry.register(SPEC)):
        with pytest.raises(UserError, match="has store layout") as caught:
            use()
        assert str(tmp_path) in str(caught.value)
