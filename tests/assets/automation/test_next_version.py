"""`mm register --from` and `mm status --drift` from the command line."""

from __future__ import annotations

import json
from pathlib import Path

from mm_embed_kernels.spec.dataset_spec import load_spec
from mm_resources.catalog import Catalog
from tests.assets.conftest import Run


def test_the_version_that_follows(mm: Run, tmp_path: Path) -> None:
    work = tmp_path / "work"
    (work / "notes").mkdir()
    for name in "abc":
        (work / "notes" / f"{name}.txt").write_text(f"This is note {name} about herons.")
    (work / "walks.yaml").write_text(
        "name: walks\nversion: v1\nsources: [{name: notes, modality: text, uri: notes}]\n"
    )
    assert mm("register", "walks.yaml").returncode == 0
    assert "the sources are not listed yet" in mm("status", "walks@v1").stdout
    registry, first = Catalog.open(work / ".mm" / "store").registry, load_spec(work / "walks.yaml")
    assert registry.listings.freeze(first, first.sources[0]) == ""
    (work / "notes" / "d.txt").write_text("A late note.")
    (work / "notes" / "a.txt").unlink()
    checked = json.loads(mm("status", "walks@v1", "--drift", "--json").stdout)
    (drift,) = checked["drift"]
    assert (drift["added"], drift["removed"], drift["altered"]) == (1, 1, 0)
    assert drift["names"] == {"added": [f"{work}/notes/d.txt"], "removed": [f"{work}/notes/a.txt"]}
    line = "source notes: 1 added (d.txt), 1 removed (a.txt) since walks@v1 was frozen; next: mm register --from walks@v1 --as v2"
    assert mm("status", "walks@v1").stdout.strip().endswith(line), "by the last check"

    printed = mm("register", "--from", "walks@v1", "--print")
    assert printed.stdout.startswith("name: walks\nversion: v2\nparent: v1\n")
    assert registry.datasets() == ["walks@v1"]
    (work / ".mm" / "datasets").mkdir()
    made = json.loads(mm("register", "--from", "walks@v1", "--as", "walks@v2", "--json").stdout)
    file = work / ".mm" / "datasets" / "walks@v2.yaml"
    assert made == {
        "dataset_version": "walks@v2",
        "new": True,
        "modalities": ["text"],
        "parent": "v1",
        "spec": str(file),
    }
    assert load_spec(file) == registry.spec("walks", "v2")
    assert file.read_text() == printed.stdout
    assert "is already registered" in mm("register", "--from", "walks@v1").stdout, (
        "the next version is there already"
    )
    for words, told in [
        (("--from", "walks@v1", "--as", "bees@v2"), "bees@v2 is of another dataset"),
        (("--from", "walks@v9"), "walks@v9 is not registered; registered are: walks@v1, walks@v2"),
        (("--from", "walks@v2", "--as", "v1"), "walks@v1 is registered with another spec"),
        (("walks.yaml", "--as", "v3"), "--as and --print are options of --from"),
    ]:
        refused = mm("register", *words)
        assert refused.returncode == 2
        assert told in refused.stderr
        assert len(refused.stderr.splitlines()) == 1
