"""Texts in languages that an embedder does not know are told, and another embedder is offered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from mm_assets.cells.language_check import ADVICE
from mm_assets.spec_drafts.folder import draft_spec
from mm_embed_kernels.spec.dataset_spec import parse_spec

# Four of English, two of German, four of Thai: MiniLM's vocabulary has no Thai letters, and reads a word of them
# as one unknown token.
TEXTS = [
    "The cat sat on the mat near the door.", "We went home early on Monday morning.",
    "A letter arrived from the city council.", "Nobody knows why the river is so low this year.",
    "Die Straßenbahn fährt heute erst um fünf Uhr.", "Wir hätten gern zwei Stühle und einen Tisch.",
    "สวัสดี", "ขอบคุณ", "ประเทศไทย", "กรุงเทพมหานคร",
]  # fmt: skip
SPEC = """
name: languages
version: v1
sources:
  - {name: texts, modality: text, uri: texts.jsonl, record: {text: text}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "data"
    found.mkdir()
    (found / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    (found / "dataset.yaml").write_text(SPEC)
    return found


def check(platform: Any) -> dict[str, Any]:
    meta = platform.catalog.tables.meta("normalized_features", platform.cell("languages@v1", "text"))
    (found,) = [item for item in meta.checks if item["name"] == "languages_known"]
    return dict(found)


def test_unknown_languages_are_told(platform: Any, folder: Path) -> None:
    platform.register(folder / "dataset.yaml")
    assert platform.backfill("languages@v1", "text")["text"].status == "published"
    found = check(platform)
    assert (found["passed"], found["blocking"]) == (False, False)
    assert found["description"].startswith(
        "6 of 10 texts are in languages that minilm does not know; the vectors of 4 coincide"
    )
    assert ADVICE in found["description"]
    assert parse_spec(f"{SPEC}{ADVICE}\n", "spec", str(folder)).embedders["text"] == ["muse"]


def test_a_multilingual_embedder_knows_them(platform: Any, folder: Path) -> None:
    (folder / "dataset.yaml").write_text(SPEC + "embedders: {text: [muse]}\n")
    platform.register(folder / "dataset.yaml")
    platform.backfill("languages@v1", "text")
    found = check(platform)
    assert found["passed"]
    assert found["description"] == "0 of 10 texts are in languages that muse does not know"


def test_a_draft_proposes_it_where_the_sample_asks_for_it(folder: Path) -> None:
    assert yaml.safe_load(draft_spec(folder, "mine", "v1", folder).yaml)["embedders"] == {"text": ["muse"]}
    (folder / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS[:5]))
    assert "embedders" not in yaml.safe_load(draft_spec(folder, "mine", "v1", folder).yaml)
    (folder / "texts.jsonl").unlink()
    for number, text in enumerate(TEXTS):
        (folder / f"{number}.txt").write_text(text)
    assert yaml.safe_load(draft_spec(folder, "mine", "v1", folder).yaml)["embedders"] == {"text": ["muse"]}
