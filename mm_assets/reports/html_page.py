"""A report as one HTML page that asks for nothing: no script, no address, every text of a sample escaped."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any

from mm_assets.reports.cell_report import Card, CellReport, Histogram, Sheet
from mm_resources.ledger.prices import Prices
from mm_resources.objects.http_client import shown as without_secrets

STEPS = ("discovered", "ingested", "valid", "kept", "published")
_STYLE = """
:root { color-scheme: light dark; --paper: #fff; --panel: #f5f6f8; --ink: #1d2129; --soft: #5b6472; --line: #d9dde3;
  --blue: #3f5bd9; --red: #c0362c; --amber: #9a6700; --green: #1f7a3d; }
@media (prefers-color-scheme: dark) { :root { --paper: #14161a; --panel: #1d2026; --ink: #e6e8ec; --soft: #9aa3b0; --line: #343a44;
  --blue: #8199ff; --red: #ff7b72; --amber: #e3b341; --green: #56d364; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem clamp(.75rem, 3vw, 2rem) 4rem; max-width: 90rem; background: var(--paper); color: var(--ink);
  font: 15px/1.45 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; margin: .5rem 0 0; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .5rem; padding-top: .75rem; border-top: 2px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.75rem 0 .5rem; } h4 { font-size: .95rem; margin: 1.25rem 0 .4rem; font-weight: 600; }
p { margin: .25rem 0 .75rem; } .soft { color: var(--soft); font-size: .87rem; } a { color: var(--blue); }
nav { display: flex; flex-wrap: wrap; gap: .25rem 1rem; margin: .75rem 0; }
.kept { color: var(--green); } .dropped { color: var(--red); } .flagged { color: var(--amber); }
.cards { display: grid; gap: .6rem; grid-template-columns: repeat(auto-fill, minmax(min(9.5rem, 100%), 1fr)); align-items: start; }
.wide { grid-template-columns: repeat(auto-fill, minmax(min(17rem, 100%), 1fr)); }
figure { margin: 0; background: var(--panel); border: 1px solid var(--line); border-radius: 6px; overflow: hidden; }
figure img { display: block; width: 100%; height: auto; max-height: 12rem; object-fit: contain; background: #8883; }
figure blockquote { margin: 0; padding: .5rem .6rem; font-size: .85rem; max-height: 9rem; overflow: auto; white-space: pre-wrap; }
figure svg { display: block; width: 100%; height: 4rem; color: var(--blue); }
figcaption { padding: .4rem .6rem; font-size: .78rem; color: var(--soft); border-top: 1px solid var(--line); }
figcaption b { display: block; color: var(--ink); font-weight: 600; } .fault { padding: .5rem .6rem; color: var(--red); font-size: .82rem; }
.bars { display: grid; grid-template-columns: minmax(6rem, max-content) 1fr minmax(3.5rem, max-content); gap: .3rem .6rem;
  align-items: center; max-width: 44rem; }
.bars i { display: block; height: 1rem; border-radius: 2px; background: var(--blue); min-width: 1px; }
.bars .spared { background: var(--soft); }
.bars span:nth-child(3n) { text-align: right; font-variant-numeric: tabular-nums; }
.charts { display: grid; gap: 1rem; align-items: end; grid-template-columns: repeat(auto-fill, minmax(min(19rem, 100%), 1fr)); }
.charts svg { width: 100%; height: auto; color: var(--blue); } .charts text { fill: var(--soft); font-size: 10px; }
.charts line { stroke: var(--red); stroke-width: 1.5; } .charts path { stroke: var(--line); }
.scroll { overflow-x: auto; margin-top: 1rem; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; overflow-wrap: normal; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, .word { text-align: left; }
th { color: var(--soft); font-weight: 600; }
"""
_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="referrer" content="no-referrer"><title>{title}</title><style>{style}</style></head><body>
"""


def page(
    dataset_version: str, reports: Iterable[CellReport], modalities: Sequence[str], prices: Prices
) -> Iterator[str]:
    """The page in pieces; one cell's report lies in memory at a time."""
    title = said(dataset_version)
    yield _HEAD.format(title=title, style=_STYLE)
    now = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    yield f"<h1>{title}</h1><p class=soft>{now}. What is shown of each decision is a small sample of it.</p>"
    yield "<nav>" + "".join(f"<a href=#{said(name)}>{said(name)}</a>" for name in modalities) + "</nav>"
    for report in reports:
        yield from _cell(report, prices)
    yield "</body></html>\n"


def said(text: Any) -> str:
    """A text of a sample or its source as HTML shows it: escaped, with what would steer a terminal or turn the line made visible."""
    shown = "".join(
        "\ufffd" if unicodedata.category(char) in ("Cc", "Cf", "Cs") and char not in "\n\t\u200d" else char
        for char in str(text)
    )
    return escape(shown, quote=True)


def _cell(report: CellReport, prices: Prices) -> Iterator[str]:
    yield f"<h2 id={said(report.modality)}>{said(report.modality)}</h2>"
    counts = report.counts
    yield "<h3>Funnel</h3>" + _bars([(name, counts[name], f"{counts[name]:,}", "") for name in STEPS])
    if blocked := counts.get("blocked"):
        yield f"<p class=dropped>Blocked: {said(blocked)}</p>"
    if counts["failures"]:
        causes = ", ".join(
            f"{count:,} {said(name)}"
            for name, count in sorted(counts["failures"].items(), key=lambda item: -item[1])
        )
        yield f"<p>Failed: {counts['failed']:,}; failures by cause: {causes}.</p>"
    yield "<h3>Samples by decision</h3>"
    for sheet in report.sheets:
        by = f" by {said(sheet.rule)}" if sheet.rule else ""
        yield _sheet(sheet, f"<span class={sheet.kind}>{sheet.kind}{by}</span>")
    if report.histograms:
        yield "<h3>Signals and thresholds</h3>"
        yield "<p class=soft>The red line is the rule's threshold; what lies beyond the axis counts in its last bar.</p>"
        yield "<div class=charts>" + "".join(map(_histogram, report.histograms)) + "</div>"
    if report.groups:
        yield "<h3>Duplicates, the largest groups first</h3>"
        for number, group in enumerate(report.groups, 1):
            yield _sheet(group, f"group {number}")
    if report.alike:
        yield "<h3>Alike in the vector space, in no group of duplicates</h3>"
        yield f"<p class=soft>Neighbours of {report.looked_at:,} vectors, by cosine similarity, the closest first.</p>"
        for pair in report.alike:
            yield _sheet(pair, f"cosine {said(pair.rule)}")
    if report.scores:
        yield f"<h3>Against {report.scores[0].marked:,} samples that people marked</h3>"
        yield "<p class=soft>Precision: of what it found, what people would drop. Recall: of what people would drop, what it found.</p>"
        yield _table([vars(score) for score in report.scores])
    yield from _cost(report, prices)


def _sheet(sheet: Sheet, title: str) -> str:
    more = "" if len(sheet.cards) == sheet.samples else f", {len(sheet.cards)} of them shown"
    wide = " wide" if any(card.text or card.frames > 1 for card in sheet.cards) else ""
    count = "" if sheet.kind == "alike" else f": {sheet.samples:,}{more}"
    return f"<h4>{title}{count}</h4><div class='cards{wide}'>{''.join(map(_card, sheet.cards))}</div>"


def _card(card: Card) -> str:
    if card.picture:
        seen = f"<img src='{card.picture}' alt=''>"
    elif card.wave:
        seen = _wave(card.wave)
    elif card.fault:
        seen = f"<div class=fault>{said(card.fault)}</div>"
    else:
        seen = f"<blockquote><bdi>{said(card.text)}</bdi></blockquote>"
    notes = "; ".join(said(part) for part in (card.note, card.split, card.label) if part)
    caption = f"<b><bdi>{said(without_secrets(card.key))}</bdi></b>{notes}"
    return f"<figure title='{said(card.sample_id)}'>{seen}<figcaption>{caption}</figcaption></figure>"


def _wave(peaks: Sequence[float]) -> str:
    # Silence is a line, so that it is seen to be there.
    bars = "".join(f"M{place} {0.98 - peak:.3f}V{1.02 + peak:.3f}" for place, peak in enumerate(peaks))
    view = f"0 0 {len(peaks)} 2"
    return (
        f"<svg viewBox='{view}' preserveAspectRatio=none role=img aria-label=waveform>"
        f"<path d='{bars}' stroke=currentColor stroke-width=.8 vector-effect=none /></svg>"
    )


def _bars(rows: Sequence[tuple[str, float, str, str]]) -> str:
    """Bars side by side, as (name, value, value in words, CSS class)."""
    most = max((value for _, value, _, _ in rows), default=0) or 1
    cells = (
        f"<span>{said(name)}</span><i class='{style}' style='width:{100 * value / most:.2f}%'></i><span>{said(words)}</span>"
        for name, value, words, style in rows
    )
    return f"<div class=bars>{''.join(cells)}</div>"


def _histogram(found: Histogram) -> str:
    width, height, most = 320.0, 90.0, max(found.counts) or 1
    bar = width / len(found.counts)
    heights = (height * count / most for count in found.counts)
    bars = "".join(
        f"<rect x='{place * bar:.1f}' y='{height - tall:.1f}' width='{bar - 0.5:.1f}' height='{tall:.1f}'/>"
        for place, tall in enumerate(heights)
        if tall
    )
    at = width * found.at
    ends = f"<text x=0 y=104>{found.low:.4g}</text><text x=320 y=104 text-anchor=end>{found.high:.4g}</text>"
    scale = ", logarithmic" if found.log else ""
    title = f"{said(found.rule)} at {found.threshold:g} ({said(found.action)}), {sum(found.counts):,} measured{scale}"
    return (
        f"<div><b>{said(found.column)}</b><div class=soft>{title}</div>"
        f"<svg viewBox='0 0 320 108' role=img aria-label='histogram of {said(found.column)}'>"
        f"<g fill=currentColor>{bars}</g><path d='M0 90H320'/><line x1='{at:.1f}' x2='{at:.1f}' y1=0 y2=90 />{ends}</svg></div>"
    )


def _cost(report: CellReport, prices: Prices) -> Iterator[str]:
    cost, currency = report.cost, said(prices.currency)
    yield "<h3>Cost, over all runs</h3>"
    if not cost.stages:
        yield "<p>Nothing ran yet.</p>"
        return
    each = (
        ""
        if cost.per_1000_published is None
        else f"{cost.per_1000_published:.4g} {currency} for 1,000 published samples; "
    )
    stored = f"{cost.stored_bytes / 1e9:.4g} GB stored at {cost.stored_month:.3g} {currency} a month"
    yield f"<p>{cost.price:.4g} {currency}; {each}{stored}.</p>"
    bars = [(row["stage"], row["price"], f"{row['price']:.3g}", "") for row in cost.stages]
    spared = [
        (f"spared by {cause}", part.price, f"{part.price:.3g}", "spared")
        for cause, part in cost.spared.items()
    ]
    yield _bars([*bars, *spared])
    yield _table(
        [
            {
                "stage": row["stage"],
                "in": row["samples_in"],
                "out": row["samples_out"],
                "computed": row["computed"],
                "reused": row["reused"],
                "wall s": round(row["seconds"], 1),
                "CPU s": round(row["cpu_seconds"], 1),
                "GPU s": round(row["gpu_seconds"], 1),
                "MB read": round(row["bytes_read"] / 1e6, 2),
                "MB written": round(row["bytes_written"] / 1e6, 2),
                "peak MiB": row["peak_bytes"] >> 20,
            }
            for row in cost.stages
        ]
    )


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    head = "".join(f"<th>{said(name)}</th>" for name in rows[0])
    lines = "".join("<tr>" + "".join(_data(value) for value in row.values()) + "</tr>" for row in rows)
    return f"<div class=scroll><table><tr>{head}</tr>{lines}</table></div>"


def _data(value: Any) -> str:
    return f"<td class=word>{said(value)}</td>" if isinstance(value, str) else f"<td>{_figure(value)}</td>"


def _figure(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.3f}".rstrip("0").rstrip(".")
    return "" if value is None else f"{value:,}" if isinstance(value, int) else said(value)
