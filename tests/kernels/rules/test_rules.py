from __future__ import annotations

from dataclasses import fields
from typing import Any

import pyarrow as pa
import pytest

from mm_embed_kernels.errors import UserError
from mm_embed_kernels.identity import sample_id
from mm_embed_kernels.rules import Rule, rule_set, rules
from mm_embed_kernels.rules.duplicates import DuplicateRule
from tests.kernels.sample_rows import CONTRACTS, GOOD, sample, table


def judged(rule: Rule, batch: pa.Table) -> tuple[list[bool | None], list[Any], str]:
    rule.prepare(lambda columns: batch.select(columns).to_reader())
    verdict = rule.judge(batch)
    passed, values = verdict.passed.to_pylist(), verdict.value.to_pylist()
    assert len(passed) == len(values) == batch.num_rows
    return passed, values, verdict.reason


# rule -> (modality, settings, what makes a row fail, what barely passes, value of the failing row, words of the reason)
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any], dict[str, Any], Any, str]] = {
    "empty": ("text", {}, {"characters": 0, "words": 0}, {"characters": 1}, 0, "no characters"),
    "too_short": ("text", {"min_words": 5}, {"words": 4}, {"words": 5}, 4, "too few words"),
    "too_small": ("image", {"min_side": 100}, {"width": 99, "height": 4000}, {"width": 100, "height": 100}, 99, "too few pixels"),
    "near_constant": ("image", {"min_contrast": 2.5}, {"contrast": 1.234}, {"contrast": 2.5}, 1.23, "almost one tone"),
    "silent": ("audio", {"max_silence_share": 0.9}, {"silence_share": 0.91234}, {"silence_share": 0.9}, 0.9123, "almost all silence"),
    "not_finite": ("audio", {}, {"not_finite_share": 0.001}, {"not_finite_share": 0.0}, 0.001, "NaN or infinite"),
    "too_brief": ("audio", {"min_seconds": 0.5}, {"duration": 0.4996}, {"duration": 0.5}, 0.5, "too brief"),
    "clipped": ("audio", {"max_clipping_share": 0.01}, {"clipping_share": 0.0111}, {"clipping_share": 0.01}, 0.0111, "clipped"),
    "black": ("video", {"max_black_share": 0.5}, {"black_share": 0.51234}, {"black_share": 0.5}, 0.5123, "almost all black"),
    "frozen": ("video", {"max_frozen_share": 0.5}, {"frozen_share": 0.51234}, {"frozen_share": 0.5}, 0.5123, "hardly changes"),
    "too_few_frames": ("video", {"min_frames": 3}, {"frames": 2}, {"frames": 3}, 2, "too few frames"),
    "missing_frames": (
        "video", {"max_missing_share": 0.1}, {"frames": 89, "stated_frames": 100}, {"frames": 90, "stated_frames": 100}, 0.11, "lacks frames",
    ),
    "too_long": ("text", {"max_words": 9}, {"words": 10}, {"words": 9}, 10, "too many words"),
    "boilerplate": ("text", {}, {"boilerplate_share": 0.31234}, {"boilerplate_share": 0.3}, 0.3123, "boilerplate"),
    "too_many_symbols": ("text", {}, {"symbol_share": 0.31}, {"symbol_share": 0.3}, 0.31, "symbols"),
    "too_many_digits": ("text", {}, {"digit_share": 0.31}, {"digit_share": 0.3}, 0.31, "digits"),
    "repetitive": (
        "text", {"min_words": 10}, {"repeated_5gram_share": 0.16, "words": 10}, {"repeated_5gram_share": 0.9, "words": 9}, 0.16, "repeats",
    ),
    "uncertain_language": (
        "text", {}, {"language_confidence": 0.6, "characters": 50}, {"language_confidence": 0.6, "characters": 49}, 0.6, "no certain language",
    ),
    "damaged_encoding": ("text", {"max_mojibake": 1}, {"mojibake": 2}, {"mojibake": 1}, 2, "wrong encoding"),
    "personal_data": ("text", {}, {"emails": 1, "ip_addresses": 1}, {}, 2, "personal data"),
    "extreme_aspect": ("image", {}, {"width": 100, "height": 301}, {"width": 300, "height": 100}, 3.01, "long and narrow"),
    "low_entropy": ("image", {}, {"entropy": 2.991}, {"entropy": 3.0}, 2.99, "few tones"),
    "blurred": ("image", {}, {"sharpness": 19.991}, {"sharpness": 20.0}, 19.99, "blurred"),
    "badly_exposed": ("image", {}, {"brightness": 240.5}, {"brightness": 20.0}, 240.5, "too dark or too bright"),
    "animated": ("image", {}, {"frames": 2}, {"frames": 1}, 2, "animation"),
    "off_loudness": ("audio", {}, {"loudness": -50.5}, {"loudness": -5.0}, -50.5, "too quiet or too loud"),
    "low_sample_rate": ("audio", {}, {"sample_rate": 15_999}, {"sample_rate": 16_000}, 15_999, "sample rate"),
    "little_speech": ("audio", {}, {"speech_share": 0.19}, {"speech_share": 0.2}, 0.19, "too little speech"),
    "without_sound": ("video", {}, {"audio_codec": None}, {}, None, "no sound track"),
    "unsupported_language": (
        "text", {"languages": "en, de", "min_confidence": 0.8, "min_characters": 50},
        {"language": "fr", "language_confidence": 0.8, "characters": 50}, {"language": "de"}, "fr", "languages en, de",
    ),
}  # fmt: skip
# Rules that compare samples; their findings are tested in test_duplicates.py.
DUPLICATES = {name for name, rule in rules().items() if issubclass(rule, DuplicateRule)}
BUNDLED = {name: rule for name, rule in rules().items() if rule.__module__.startswith("mm_embed_kernels.")}
every = pytest.mark.parametrize("name", rules())


def modalities_of(rule: type[Rule]) -> list[str]:
    return [name for name in GOOD if not rule.modalities or name in rule.modalities]


def test_every_bundled_rule_is_tested_here() -> None:
    elsewhere = {"contaminated": "test_contaminated.py", "label_suspect": "test_vector_rules.py"}
    assert {*CASES, *DUPLICATES, *elsewhere} == set(BUNDLED)


@every
def test_declaration(name: str) -> None:
    rule = rules()[name]
    assert rule.name == name
    assert rule.version
    assert rule.__doc__
    assert not rule.__doc__.startswith(
        f"{rule.__name__}("
    )  # a dataclass writes its signature where nobody wrote a docstring
    assert rule.columns
    assert all(item.default is not None or item.default_factory is not None for item in fields(rule))


@every
def test_columns_exist_where_it_judges(name: str) -> None:
    rule = rules()[name]
    chosen = modalities_of(rule)
    assert chosen
    for modality in chosen:
        assert set(rule.columns) <= set(CONTRACTS[modality].schema.names)


@every
def test_defaults_let_a_good_sample_pass(name: str) -> None:
    for modality in modalities_of(rules()[name]):
        passed, _, _ = judged(rules()[name](), table(modality, sample(modality)))
        # Without the vectors of a parent version nothing is measured.
        assert passed == [None if name == "label_suspect" else True]


@every
def test_reads_no_other_columns(name: str) -> None:
    """A rule that read more than it declares would break once only its columns are streamed to it."""
    rule = rules()[name]()
    for modality in modalities_of(type(rule)):
        batch = table(modality, sample(modality), sample(modality, "b"))
        assert judged(rule, batch.select(list(rule.columns))) == judged(rule, batch)


@every
def test_what_was_not_measured_does_not_fail(name: str) -> None:
    rule = rules()[name]()
    # Where there is no sound, nothing names its coding.
    for modality in modalities_of(type(rule)) if name != "without_sound" else []:
        nullable = [item for item in rule.columns if CONTRACTS[modality].schema.field(item).nullable]
        passed, _, _ = judged(rule, table(modality, sample(modality, **dict.fromkeys(nullable))))
        assert passed[0] is not False


@every
def test_threshold_names_every_parameter(name: str) -> None:
    rule = rules()[name]()
    for item in fields(rule):
        if item.init and item.name != "action":
            assert f"{item.name}={getattr(rule, item.name)}" in rule.threshold


@pytest.mark.parametrize("name", CASES)
def test_verdict(name: str) -> None:
    modality, settings, failing, passing, value, words = CASES[name]
    rule = BUNDLED[name](**settings)
    batch = table(modality, sample(modality, "m", **failing), sample(modality, **passing))
    passed, values, reason = judged(rule, batch)
    assert passed == [False, True]
    assert values[0] == value
    assert words in reason


def test_value_of_a_duplicate_is_the_sample_that_is_kept() -> None:
    batch = table(
        "image",
        sample("image", "b", content_hash="9" * 64),
        sample("image", "a", content_hash="9" * 64),
        sample("image", "c"),
    )
    keeper = sample_id("birds", "s", "a")
    assert judged(BUNDLED["exact_duplicate"](), batch)[:2] == ([False, True, True], [keeper, keeper, None])


@pytest.mark.parametrize(
    ("changed", "passes"),
    [
        ({"language": "fr", "language_confidence": 0.79}, True),
        ({"language": "fr", "characters": 49}, True),
        ({"language": "fr", "language_confidence": 0.95}, False),
        ({"language": None, "language_confidence": None}, True),
        ({"language": "en", "language_confidence": 0.1, "characters": 1}, True),
    ],
)
def test_unsupported_language_needs_confidence_and_length(changed: dict[str, Any], passes: bool) -> None:
    rule = BUNDLED["unsupported_language"](**CASES["unsupported_language"][1])
    passed, _, _ = judged(rule, table("text", sample("text", **changed)))
    assert passed == [passes]


def test_unsupported_language_judges_short_texts() -> None:
    """A word of Thai is in no language but Thai."""
    row = sample("text", language="th", language_confidence=0.99, characters=6)
    passed, _, _ = judged(BUNDLED["unsupported_language"](), table("text", row))
    assert passed == [False]


def test_exact_duplicate_keeps_the_first_by_key_and_gives_evidence() -> None:
    keys = ["d", "b", "c", "a", "lone"]
    rows = [sample("text", key, **({} if key == "lone" else {"content_hash": "1" * 64})) for key in keys]
    for order in (rows, rows[::-1], rows[2:] + rows[:2]):
        batch, rule = table("text", *order), BUNDLED["exact_duplicate"]()
        passed, _, _ = judged(rule, batch)
        assert {row["key"] for row, good in zip(order, passed, strict=True) if good} == {"a", "lone"}
        found = rule.judge(batch).evidence
        assert found is not None
        groups, evidence = found.group.to_pylist(), found.duplicates.to_pylist()
        keeper = sample_id("birds", "s", "a")
        found = {
            row["key"]: (group, proof) for row, group, proof in zip(order, groups, evidence, strict=True)
        }
        assert found["lone"] == (None, [])
        assert found["a"] == (f"exact-{keeper}", [])
        for key in "bcd":
            assert found[key] == (
                f"exact-{keeper}",
                [{"of": keeper, "kind": "exact", "score": 1.0, "span": None}],
            )


def test_exact_duplicate_sees_the_whole_cell() -> None:
    """A batch is judged against samples of other batches."""
    batches = [table("text", sample("text", key, content_hash="1" * 64)) for key in ("b", "a")]
    rule = BUNDLED["exact_duplicate"]()
    rule.prepare(lambda columns: pa.concat_tables(batches).select(columns).to_reader())
    assert [rule.judge(batch).passed.to_pylist() for batch in batches] == [[False], [True]]


@pytest.mark.parametrize("modality", GOOD)
def test_rule_set(modality: str) -> None:
    chosen = rule_set(modality, {})
    assert {rule.name for rule in chosen} == {
        name for name, rule in rules().items() if modality in modalities_of(rule) and rule.action != "off"
    }
    assert [rule.cost for rule in chosen] == sorted(rule.cost for rule in chosen)
    assert "exact_duplicate" not in {
        rule.name for rule in rule_set(modality, {"exact_duplicate": {"action": "off"}})
    }


def test_rule_set_applies_settings() -> None:
    found = {
        rule.name: rule
        for rule in rule_set(
            "text", {"too_short": {"min_words": 7, "action": "drop"}, "too_small": {"min_side": 9}}
        )
    }
    assert (found["too_short"].threshold, found["too_short"].action) == ("min_words=7", "drop")
    assert "too_small" not in found
    assert {rule.name: rule.action for rule in rule_set("text", {})}["too_short"] == "flag"


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"blurry": {}}, r"curation\.rules\.blurry: no such rule; there are: .*too_short"),
        (
            {"too_short": {"words": 3}},
            r"curation\.rules\.too_short\.words: no such parameter; there are: .*min_words",
        ),
        ({"too_short": {"min_words": "3"}}, r"curation\.rules\.too_short\.min_words: '3' is not a number"),
        ({"too_short": {"min_words": None}}, r"curation\.rules\.too_short\.min_words: None is not a number"),
        ({"too_short": {"min_words": True}}, r"curation\.rules\.too_short\.min_words: True is not a number"),
        (
            {"too_short": {"action": "delete"}},
            r"curation\.rules\.too_short\.action: 'delete' is not drop, flag or off",
        ),
        (
            {"unsupported_language": {"languages": ["en", "de"]}},
            r"curation\.rules\.unsupported_language\.languages: ",
        ),
        (
            {"exact_duplicate": {"_folder": {}}},
            r"curation\.rules\.exact_duplicate\._folder: no such parameter",
        ),
        (
            {"near_duplicate_text": {"keep": "best"}},
            r"curation\.rules\.near_duplicate_text\.keep: 'best' is not first or largest",
        ),
    ],
    ids=lambda value: str(value)[:60],
)
def test_mistakes_in_settings(settings: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError, match=line):
        rule_set("text", settings)


def test_private_fields_are_not_offered_as_parameters() -> None:
    with pytest.raises(UserError) as caught:
        rule_set("text", {"exact_duplicate": {"nonsense": 1}})
    assert "_folder" not in str(caught.value)
