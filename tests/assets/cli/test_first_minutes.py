"""What a newcomer meets in the first minutes: choices are named, and nothing is removed unseen."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mm_assets.cli.cell_runs import exit_code, print_results
from mm_assets.cli.explain import _summary
from mm_assets.cli.modality_choice import choose_modalities
from mm_assets.cli.output import print_json, print_tree
from mm_assets.operations.cell_result import CellResult
from mm_embed_kernels.errors import UserError, sentence_of, without_classes
from mm_resources.catalog import Catalog
from mm_resources.maintenance.forgetting_preview import describe_scope
from mm_resources.retrieval.feature_store import FeatureStore
from mm_resources.retrieval.filters import filter_errors
from tests.assets.conftest import Platform


def result(status: str) -> CellResult:
    return CellResult("text", status, "r" * 36, {}, {}, 0.0, "run 1234 (process 5) is processing it")


def test_a_busy_cell_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_results("birds@v1", [result("busy")])
    assert capsys.readouterr().out == "birds@v1 text is busy: run 1234 (process 5) is processing it\n"
    assert [exit_code([result(status)]) for status in ("published", "busy", "failed", "blocked")] == [
        0,
        3,
        1,
        1,
    ]
    assert exit_code([result("busy"), result("failed")]) == 1
    assert exit_code([]) == 0


def test_choices_are_named(published: Platform) -> None:
    catalog = published.catalog
    store = FeatureStore(catalog)
    every = sorted({pin.modality for pin in catalog.registry.latest_pins()})
    assert len(every) > 1
    with pytest.raises(
        UserError, match=f"--modality is missing; published of tiny@v1 are: {', '.join(every)}"
    ):
        choose_modalities(catalog, None, ["tiny@v1"])
    assert choose_modalities(catalog, ["text"], None) == ["text"]
    with pytest.raises(UserError, match=r"modality 'imag' is not known; there are: .*did you mean 'image'\?"):
        store.search("a cat", modality="imag")
    with pytest.raises(UserError, match=r"no split 'trian'; it has: "):
        store.training_set("tiny@v1", modality="image", split="trian")
    with pytest.raises(UserError, match=r"has no column 'colour'; it has: feature_id, "):
        store.training_set("tiny@v1", modality="image", columns=["colour"])
    with pytest.raises(UserError, match=r"has no embedder 'clp'; it has: "):
        store.training_set("tiny@v1", modality="image", embedder="clp")


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("labl = 'x'", "there is no column 'labl'; did you mean label?; the columns are: feature_id, "),
        (
            "label=cat",
            "there is no column 'cat'; a text stands in single quotes: label='cat'; the columns are: ",
        ),
        ('label="cat"', "write texts in '...' and columns plain or in `...`: label='cat'"),
        ("label >", "it is no complete expression of SQL: "),
    ],
)
def test_a_wrong_filter_names_all_columns_and_the_quoting(
    published: Platform, where: str, words: str
) -> None:
    store = FeatureStore(published.catalog)
    for read in (
        lambda: store.search("a cat", modality="text", where=where),
        lambda: store.training_set("tiny@v1", modality="text", where=where),
    ):
        with pytest.raises(UserError) as caught:
            read()
        assert f"the filter {where!r} is invalid: " in str(caught.value)
        assert words in str(caught.value)
        if "columns are" in words:
            assert str(caught.value).endswith(", vector, user__stars")


def test_an_error_of_another_library_stays_one() -> None:
    with pytest.raises(ValueError, match="x"), filter_errors(None):
        raise ValueError("x")


def test_forgetting_shows_what_it_would_remove(published: Platform) -> None:
    rows = published.catalog.tables.read("curated_samples", cell_of(published.catalog)).read_all().to_pylist()
    sample = rows[0]
    lines = list(describe_scope(published.catalog, sample["sample_id"]))
    assert lines[0].startswith("would remove ")
    assert any(f"{sample['key']} (sample {sample['sample_id']})" in line for line in lines)
    assert "published: tiny@v1 text" in lines[-1]
    assert list(describe_scope(published.catalog, "0" * 32)) == []


def cell_of(catalog: Catalog) -> Any:
    return catalog.registry.cells("tiny@v1", "text")[0]


def test_an_explanation_begins_with_a_summary(
    published: Platform, capsys: pytest.CaptureFixture[str]
) -> None:
    store = FeatureStore(published.catalog)
    hit = store.search("a cat", modality="text", k=1).to_pylist()[0]
    chain = store.explain(hit["feature_id"])
    lines = list(_summary(chain))
    assert lines[0].startswith(f"text sample {hit['key']} of tiny@v1: split {hit['split']}")
    assert hit["source_uri"] in lines[1]
    assert "kept by" in "\n".join(lines)
    print_tree("feature", {**chain, "signature": b"\x00\x01\x02", "nothing": "", "count": 12_345})
    shown = capsys.readouterr().out
    assert "signature: 3 bytes" in shown
    assert "nothing" not in shown
    assert "count: 12,345" in shown
    assert r"b'\x" not in shown
    print_json({"signature": b"\x00\xff"})
    assert json.loads(capsys.readouterr().out) == {"signature": "00ff"}


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (KeyError("size"), "there is no entry 'size'"),
        (MemoryError(), "out of memory"),
        (ValueError("a number is needed"), "a number is needed"),
        (type("BrokenProcessPool", (RuntimeError,), {})(), "broken process pool"),
        (RuntimeError("lance.error.IOError: the disk is full"), "the disk is full"),
    ],
    ids=repr,
)
def test_a_cause_is_a_sentence(error: Exception, sentence: str) -> None:
    assert sentence_of(type(error).__name__, str(error)) == sentence


def test_class_names_within_a_message() -> None:
    told = "the batch failed: OSError: image file is truncated (85 bytes not processed)"
    assert without_classes(told) == "the batch failed: image file is truncated (85 bytes not processed)"
    assert without_classes("see Error: x") == "see Error: x"
