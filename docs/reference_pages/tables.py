"""Page of the tables, from their contracts."""

from __future__ import annotations

from mm_embed_kernels import contracts
from mm_embed_kernels.contracts import Contract
from mm_embed_kernels.contracts.pipeline import STAGES
from mm_embed_kernels.modalities import modalities
from reference_pages.markdown import code, generated_page, sentence, write_table

_OTHERS = {"failures": "one row for each attempt that failed", "ledger": "one row for each stage of a run"}


def page() -> str:
    """Return the page: stages in the graph's order, then the other tables, then the signals."""
    found = {item.name: item for item in vars(contracts).values() if isinstance(item, Contract)}
    ordered = [name for name in STAGES if name in found] + sorted(set(found) - set(STAGES))
    parts = [
        "Each stage hands its rows to the next one in a table whose columns are fixed by a contract: an "
        "Arrow schema with conditions on values. Rows that break it fail alone. The tables of curation and"
        " later stages also have the user's columns (`user__NAME`). Columns of the digest determine the "
        "data version.",
    ]
    for name in ordered:
        contract = found[name]
        parts += [f"## {name}", f"Key: {code(contract.key)}.", _columns(contract)]
    parts += [
        "## Signals",
        "Columns that the probe of a modality adds to `sample_metadata`, for rules, drift and filters.",
    ]
    for name, modality in modalities().items():
        rows = [(code(item.name), code(item.type), _meaning(item)) for item in modality.signals]
        parts += [f"### {name}", write_table(("column", "type", "meaning"), rows)] if rows else []
    return generated_page("Tables", "the contracts in `mm_embed_kernels.contracts`", *parts)


def _columns(contract: Contract) -> str:
    rows = [
        (code(item.name), code(item.type), "yes" if item.name in contract.digest else "", _meaning(item))
        for item in contract.schema
    ]
    return write_table(("column", "type", "digest", "meaning"), rows)


def _meaning(item: object) -> str:
    """Return description and conditions of an Arrow field."""
    metadata = {key.decode(): value.decode() for key, value in (item.metadata or {}).items()}  # type: ignore[attr-defined]
    conditions = [
        *([] if item.nullable else ["never null"]),  # type: ignore[attr-defined]
        *(f"{sign} {metadata[key]}" for key, sign in (("ge", ">="), ("le", "<=")) if key in metadata),
        *([f"one of {metadata['choices'].replace('|', ', ')}"] if "choices" in metadata else []),
    ]
    return sentence(metadata.get("description", "")) + (f" ({'; '.join(conditions)})" if conditions else "")
