"""`mm curate --what-if` on the validated samples of a cell that was never embedded."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from mm_assets.cli.curate import parse_changes
from mm_assets.cli.main import app
from mm_assets.curation.what_if import Move
from mm_embed_kernels.contracts import VALIDATED_SAMPLES
from mm_embed_kernels.errors import UserError
from mm_embed_kernels.modalities import get
from mm_embed_kernels.spec.dataset_spec import parse_spec
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.tables.stage_refs import StageMeta
from tests.kernels.sample_rows import GOOD, sample

SPEC = """
name: birds
version: v1
curation: {rules: {too_short: {min_words: 4, action: drop}}}
sources:
  - {name: notes, modality: text, uri: "/nowhere/*.txt", allow_empty: true}
  - {name: photos, modality: image, uri: "/nowhere/*.jpg", allow_empty: true}
"""


@pytest.fixture
def birds(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Catalog:
    monkeypatch.setenv("MM_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("MM_PROFILE", "bundled")
    catalog = Catalog.open(tmp_path / "store")
    catalog.registry.register(parse_spec(SPEC, "birds.yaml"))
    return catalog


def validated(catalog: Catalog, *words: int) -> None:
    """Publish validated texts of so many words each."""
    contract, cell, tables = (
        VALIDATED_SAMPLES.extend(get("text").signals),
        Cell("birds", "v1", "text"),
        catalog.tables,
    )
    rows = contract.rows(
        [sample("text", f"k{i}", **{**GOOD["text"], "words": count}) for i, count in enumerate(words)]
    )
    read_version = tables.fence("validated_samples", cell)
    written = tables.write("validated_samples", cell, contract, [pa.table(rows)])
    meta = StageMeta("d", "i", written.rows, written.rows, 0, 0, 0, "e", "", {}, "r", "now")
    tables.commit("validated_samples", cell, written, meta, read_version)


def asked(*words: str) -> Any:
    done = CliRunner().invoke(app, ["curate", "birds@v1", *words, "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.output)


def test_a_stricter_rule_drops_more(birds: Catalog) -> None:
    validated(birds, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
    (cell,) = asked("--what-if", "too_short.min_words=9")["cells"]
    assert (cell["modality"], cell["samples"], cell["kept_now"], cell["kept_then"]) == ("text", 10, 7, 2)
    assert cell["moves"] == [vars(Move("too_short", 3, 8, 5, 0))]
    assert cell["seconds"] < 0
    # A kernel that never ran is estimated at one core for each second, at 0.05 an hour.
    assert cell["price"] == pytest.approx(cell["seconds"] * 0.05 / 3600, rel=0.05)


def test_a_laxer_rule_keeps_more_unless_another_drops(birds: Catalog) -> None:
    validated(birds, 0, 1, 2, 5)
    (cell,) = asked(
        "--what-if",
        "too_short.min_words=1",
        "--what-if",
        "too_long.max_words=1",
        "--what-if",
        "too_long.action=drop",
    )["cells"]
    assert (cell["kept_now"], cell["kept_then"]) == (1, 1)
    assert cell["moves"] == [vars(Move("too_long", 0, 2, 1, 0)), vars(Move("too_short", 3, 1, 0, 1))]
    assert cell["seconds"] == 0


def test_a_flag_moves_nothing_but_is_counted(birds: Catalog) -> None:
    validated(birds, 4, 5)
    (cell,) = asked("--what-if", "too_long.max_words=4")["cells"]
    assert (cell["kept_now"], cell["kept_then"], cell["moves"]) == (
        2,
        2,
        [vars(Move("too_long", 0, 1, 0, 0))],
    )


def test_what_a_person_sees(birds: Catalog) -> None:
    validated(birds, 4, 5, 6)
    said = (
        CliRunner()
        .invoke(app, ["curate", "birds@v1", "--what-if", "too_short.min_words=6"], catch_exceptions=False)
        .output
    )
    assert "text: what if too_short.min_words=6" in said
    assert "text: 1 of 3 samples kept instead of 3; " in said
    assert " USD) less to segment and embed" in said


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["too_short"], r"--what-if 'too_short' is not RULE\.PARAMETER=VALUE"),
        (["too_short=3"], r"is not RULE\.PARAMETER=VALUE"),
        (["shortness.min_words=3"], r"no rule is named 'shortness'; there are: .*too_short"),
    ],
)
def test_mistakes(words: list[str], line: str) -> None:
    with pytest.raises(UserError, match=line):
        parse_changes(words)


def test_a_mistaken_value_and_a_cell_without_samples(birds: Catalog) -> None:
    runner = CliRunner()
    with pytest.raises(UserError, match=r"curation\.rules\.too_short\.min_words: 'many' is not a number"):
        runner.invoke(
            app, ["curate", "birds@v1", "--what-if", "too_short.min_words=many"], catch_exceptions=False
        )
    with pytest.raises(
        UserError,
        match=r"no sample of birds@v1\|image is validated yet; run `mm backfill birds@v1 --modality image`",
    ):
        runner.invoke(
            app, ["curate", "birds@v1", "--what-if", "blurred.min_sharpness=5"], catch_exceptions=False
        )
