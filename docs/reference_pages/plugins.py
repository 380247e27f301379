"""Pages of what is discovered: rules, embedders and transcribers, modalities, source kinds, error classes."""

from __future__ import annotations

import dataclasses
from typing import Any

from mm_embed_kernels.embedders import embedders
from mm_embed_kernels.error_classes import by_subject
from mm_embed_kernels.modalities import modalities
from mm_embed_kernels.rules import Rule, rules
from mm_embed_kernels.transcribers import transcribers
from mm_resources.sources import sources
from reference_pages.markdown import code, generated_page, read_docstring, sentence, write_table


def rules_page() -> str:
    """Return the page of the curation rules, with their parameters."""
    found = rules()
    names = [*modalities(), "every modality"]
    overview = [
        (
            name,
            ", ".join(f"[`{rule.name}`](#{rule.name})" for rule in found.values() if _judges(rule, name)),
        )
        for name in names
    ]
    parts = [
        "A rule judges one signal of the probe, or compares the samples of a cell. It never reads bytes. "
        "Its `action` is `drop`, `flag` (the decision is recorded, the sample stays) or `off`.",
        write_table(("modality", "rules"), overview),
    ]
    for rule in found.values():
        text, attributes = read_docstring(rule)
        parts += [f"## {rule.name}", text, _facts(rule), _parameters(rule, attributes)]
    return generated_page("Rules", "the modules of `mm_embed_kernels.rules`", *parts)


def embedders_page() -> str:
    """Return the page of the embedders, of the transcribers and of the profiles' choices."""
    profiles = [
        (name, code(modality.embedder), code(modality.hub_embedder or modality.embedder))
        for name, modality in modalities().items()
    ]
    models = [
        (
            code(f"{item.name}:MODEL" if item.takes_model else item.name),
            item.modality,
            item.dimension if isinstance(item.dimension, int) and item.dimension else "of its model",
            ", ".join(item.precisions) or "float32",
            ", ".join(item.languages or ()),
            read_docstring(item)[0].partition("\n\n")[0],
        )
        for item in embedders().values()
    ]
    speech = [
        (code(item.name), ", ".join(item.languages), read_docstring(item)[0].partition("\n\n")[0])
        for item in transcribers().values()
    ]
    return generated_page(
        "Embedders",
        "the modules of `mm_embed_kernels.embedders` and `mm_embed_kernels.transcribers`",
        "## Defaults",
        "`MM_PROFILE` chooses the profile. A spec that names embedders takes those.",
        write_table(("modality", "profile `bundled`", "profile `hub`"), profiles),
        "## Embedders",
        write_table(("embedder", "modality", "dimension", "precisions", "languages", "model"), models),
        "## Transcribers",
        write_table(("transcriber", "languages", "model"), speech),
    )


def sources_page() -> str:
    """Return the page of the source kinds."""
    parts = ["The first kind that accepts a source lists it. `format` in the spec names one explicitly."]
    for name, kind in sources().items():
        parts += [f"## {name}", read_docstring(kind)[0]]
    return generated_page("Source kinds", "the modules of `mm_resources.sources`", *parts)


def error_classes_page() -> str:
    """Return the page of the error classes, by subject."""
    parts = [
        "Each failure has one of these classes. `mm failures --classes` prints the same list. A "
        "*transient* class is tried again by the run itself, after a pause.",
    ]
    for subject, classes in by_subject().items():
        rows = [
            (code(item.name), "yes" if item.transient else "", sentence(item.meaning), sentence(item.action))
            for item in classes
        ]
        parts += [
            f"## {subject[:1].upper()}{subject[1:]}",
            write_table(("class", "transient", "meaning", "what to do"), rows),
        ]
    return generated_page("Error classes", "the registry `mm_embed_kernels.error_classes`", *parts)


def _judges(rule: type[Rule], modality: str) -> bool:
    return modality in rule.modalities if rule.modalities else modality == "every modality"


def _facts(rule: type[Rule]) -> str:
    judged = ", ".join(rule.modalities) or "every modality"
    return (
        f"Judges {judged}. Reads {', '.join(map(code, rule.columns)) or 'no column'}. Version {rule.version}."
    )


def _parameters(rule: type[Rule], attributes: Any) -> str:
    rows = [
        (code(item.name), code(item.default), attributes.get(item.name, ""))
        for item in dataclasses.fields(rule)
        if item.init and not item.name.startswith("_")
    ]
    if any(meaning for _, _, meaning in rows):
        return write_table(("parameter", "default", "meaning"), rows)
    return write_table(("parameter", "default"), [row[:2] for row in rows])
