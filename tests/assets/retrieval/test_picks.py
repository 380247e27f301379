"""Picks of a published version, and rules that read the vectors of the parent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mm_embed_kernels.errors import UserError
from mm_resources import register_embedding_function
from mm_resources.ledger.pick_records import PickRecords
from mm_resources.retrieval.picks import PickRequest, pick
from mm_resources.retrieval.sql_views import query_features
from tests.assets.conftest import Platform

ANIMALS = ["cat", "dog", "heron", "horse", "mouse", "whale", "goat", "otter", "eagle", "trout"]
ACTS = ["sleeps in the warm grass", "drinks water at the river", "feeds its young in spring"]
MONEY = ["bank", "broker", "market", "fund", "ministry", "insurer", "exchange", "trader", "lender", "auditor"]
DEEDS = ["raises the rate of interest", "sells bonds to investors", "reports a quarterly profit"]
TEXTS = [(f"The {who} {what}.", "animals") for who in ANIMALS for what in ACTS] + [
    (f"The {who} {what}.", "money") for who in MONEY for what in DEEDS[: 2 if who > "f" else 3]
]


def write_spec(folder: Path, version: str, spoiled: tuple[int, ...] = ()) -> Path:
    folder.mkdir(exist_ok=True)
    rows = [
        {"id": f"{i:03d}", "text": text, "label": "money" if i in spoiled else label}
        for i, (text, label) in enumerate(TEXTS)
    ]
    (folder / f"{version}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    spec = folder / f"{version}.yaml"
    more = "parent: v1\ncuration: {rules: {label_suspect: {action: flag}, near_duplicate_vector: {action: flag}}}\n"
    spec.write_text(
        f"name: few\nversion: {version}\nembedders: {{text: [wordllama]}}\n"
        f"sources:\n  - {{name: texts, modality: text, uri: {version}.jsonl, record: {{id: id, text: text, label: label}}}}\n"
        + (more if spoiled else "")
    )
    return spec


def test_picks_are_recorded_and_chosen_and_rules_read_the_vectors_of_the_parent(
    platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import lancedb

    platform.register(write_spec(tmp_path / "few", "v1"))
    assert platform.backfill("few@v1")["text"].status == "published"
    features, catalog = platform.features, platform.features.catalog
    pin = features.published("few@v1", "text")
    done = pick(catalog, pin, "half", PickRequest(20, "diversity", per_label=True))
    assert (done.samples, done.picked, done.labels) == (len(TEXTS), 20, {"animals": 10, "money": 10})
    assert done.largest_distance < done.random_largest_distance + 0.2
    rows = features.pick("few@v1", "text", "half")
    assert sorted(rows["rank"].to_pylist()) == sorted([*range(1, 11)] * 2)
    assert set(rows["method"].to_pylist()) == {"diversity"}
    assert all("farthest" in reason for reason in rows["reason"].to_pylist())

    chosen = features.training_set("few@v1", modality="text", split="pick:half", columns=["label"])
    found = chosen.to_arrow()
    assert set(found["sample_id"].to_pylist()) == set(rows["sample_id"].to_pylist())
    assert sorted(found["label"].to_pylist()) == ["animals"] * 10 + ["money"] * 10
    rest = features.training_set("few@v1", modality="text", split="unpicked:half").to_arrow()
    assert rest.num_rows == len(TEXTS) - 20
    assert not set(rest["sample_id"].to_pylist()) & set(found["sample_id"].to_pylist())
    again = features.training_set(manifest=chosen.manifest).to_arrow()
    assert again["feature_id"].to_pylist() == found["feature_id"].to_pylist()
    fewer = pick(catalog, pin, "animals", PickRequest(5, "coverage", where="label = 'animals'"))
    assert (fewer.samples, fewer.picked) == (30, 5)
    with pytest.raises(UserError, match="a pick does not change"):
        pick(catalog, pin, "half", PickRequest(3))
    with pytest.raises(UserError, match="is no name of a pick"):
        pick(catalog, pin, "../half", PickRequest(3))
    # Another command was first, after this one had looked.
    monkeypatch.setattr(PickRecords, "require_new", lambda *_: None)
    with pytest.raises(UserError, match="a pick does not change"):
        pick(catalog, pin, "half", PickRequest(3))
    monkeypatch.undo()
    assert features.pick("few@v1", "text", "half").equals(rows)
    with pytest.raises(UserError, match="there are: animals, half"):
        features.training_set("few@v1", modality="text", split="pick:other")
    with pytest.raises(UserError, match="label"):
        pick(catalog, pin, "odd", PickRequest(3, per_label=True, quotas={"plants": 1}))

    # The same cell from outside: its stages by SQL, and its table by LanceDB alone.
    decided = features.decisions("few@v1", "text")["kept"].to_pylist()
    statement = "SELECT count(*) AS n, count(*) FILTER (kept) AS kept FROM curated_samples('few@v1', 'text')"
    with query_features(catalog, statement) as found_rows:
        assert found_rows.read_all().to_pylist() == [{"n": len(decided), "kept": sum(decided)}]
    register_embedding_function()
    table = lancedb.connect(features.catalog.store.uri("features")).open_table("few.v1.text.wordllama")
    table.checkout("published")
    for words in ("a sleeping animal", "interest and bonds"):
        ours = features.search(words, dataset_version="few@v1", modality="text", k=5)[
            "feature_id"
        ].to_pylist()
        assert [hit["feature_id"] for hit in table.search(words).limit(5).to_list()] == ours

    spoiled = (4, 15)
    platform.register(write_spec(tmp_path / "few", "v2", spoiled))
    assert platform.backfill("few@v2")["text"].status == "published"
    decisions = features.decisions("few@v2", "text").to_pylist()
    suspect = {
        row["key"]
        for row in decisions
        for rule in row["rules"]
        if rule["rule"] == "label_suspect" and not rule["passed"]
    }
    assert suspect == {f"{i:03d}" for i in spoiled}
    assert all(row["kept"] for row in decisions)
    # The same parent, the same decisions: nothing is computed again.
    assert platform.backfill("few@v2")["text"].status == "unchanged"
