"""Reports as one self-contained HTML page: no script, no external address, every text of a sample escaped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from mm_assets.reports.cell_report import Card, CellReport, Sheet
from mm_assets.reports.histograms import Histogram
from mm_embed_kernels.escapes import escape_html
from mm_embed_kernels.urls import redact_url
from mm_resources.costs.figures import format_amount, format_bytes
from mm_resources.costs.prices import Prices

STEPS = ("discovered", "ingested", "valid", "kept", "published")
_STYLE = """
:root { color-scheme: light dark; --paper: #fff; --panel: #f5f6f8; --ink: #1d2129; --soft: #5b6472;
  --line: #d9dde3; --blue: #3f5bd9; --red: #c0362c; --amber: #9a6700; --green: #1f7a3d; }
@media (prefers-color-scheme: dark) { :root { --paper: #14161a; --panel: #1d2026; --ink: #e6e8ec;
  --soft: #9aa3b0; --line: #343a44; --blue: #8199ff; --red: #ff7b72; --amber: #e3b341; --green: #56d364; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem clamp(.75rem, 3vw, 2rem) 4rem; max-width: 90rem;
  background: var(--paper); color: var(--ink); font: 15px/1.45 system-ui, sans-serif;
  overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; margin: .5rem 0 0; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .5rem; padding-top: .75rem; border-top: 2px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.75rem 0 .5rem; }
h4 { font-size: .95rem; margin: 1.25rem 0 .4rem; font-weight: 600; }
p { margin: .25rem 0 .75rem; } .soft { color: var(--soft); font-size: .87rem; } a { color: var(--blue); }
nav { display: flex; flex-wrap: wrap; gap: .25rem 1rem; margin: .75rem 0; }
.kept { color: var(--green); } .dropped { color: var(--red); } .flagged { color: var(--amber); }
.cards { display: grid; gap: .6rem; align-items: start;
  grid-template-columns: repeat(auto-fill, minmax(min(9.5rem, 100%), 1fr)); }
.wide { grid-template-columns: repeat(auto-fill, minmax(min(17rem, 100%), 1fr)); }
figure { margin: 0; background: var(--panel); border: 1px solid var(--line); border-radius: 6px;
  overflow: hidden; }
figure img { display: block; width: 100%; height: auto; max-height: 12rem; object-fit: contain;
  background: #8883; }
figure blockquote { margin: 0; padding: .5rem .6rem; font-size: .85rem; max-height: 9rem; overflow: auto;
  white-space: pre-wrap; }
figure svg { display: block; width: 100%; height: 4rem; color: var(--blue); }
figcaption { padding: .4rem .6rem; font-size: .78rem; color: var(--soft);
  border-top: 1px solid var(--line); }
figcaption b { display: block; color: var(--ink); font-weight: 600; }
.fault { padding: .5rem .6rem; color: var(--red); font-size: .82rem; }
.bars { display: grid; gap: .3rem .6rem; align-items: center; max-width: 44rem;
  grid-template-columns: minmax(6rem, max-content) 1fr minmax(3.5rem, max-content); }
.bars i { display: block; height: 1rem; border-radius: 2px; background: var(--blue); min-width: 1px; }
.bars .saved { background: var(--soft); }
.bars span:nth-child(3n) { text-align: right; font-variant-numeric: tabular-nums; }
.charts { display: grid; gap: 1rem; align-items: end;
  grid-template-columns: repeat(auto-fill, minmax(min(19rem, 100%), 1fr)); }
.charts svg { width: 100%; height: auto; color: var(--blue); }
.charts text { fill: var(--soft); font-size: 10px; }
.charts line { stroke: var(--red); stroke-width: 1.5; } .charts path { stroke: var(--line); }
.scroll { overflow-x: auto; margin-top: 1rem; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums;
  overflow-wrap: normal; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
th:first-child, .word { text-align: left; }
th { color: var(--soft); font-weight: 600; }
"""
_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="referrer" content="no-referrer"><title>{title}</title><style>{style}</style></head><body>
"""


def page(
    dataset_version: str, reports: Iterable[CellReport], modalities: Sequence[str], prices: Prices
) -> Iterator[str]:
    """Yield the page in pieces; one cell's report is in memory at a time."""
    title = escape_html(dataset_version)
    yield _HEAD.format(title=title, style=_STYLE)
    now = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    yield f"<h1>{title}</h1><p class=soft>{now}. Of each decision, a small sample is shown.</p>"
    yield (
        "<nav>"
        + "".join(f"<a href=#{escape_html(name)}>{escape_html(name)}</a>" for name in modalities)
        + "</nav>"
    )
    for report in reports:
        yield from _cell(report, prices)
    yield "</body></html>\n"


def _cell(report: CellReport, prices: Prices) -> Iterator[str]:
    yield f"<h2 id={escape_html(report.modality)}>{escape_html(report.modality)}</h2>"
    counts = report.counts
    yield "<h3>Funnel</h3>" + _bars([(name, counts[name], f"{counts[name]:,}", "") for name in STEPS])
    if blocked := counts.get("blocked"):
        yield f"<p class=dropped>Blocked: {escape_html(blocked)}</p>"
    if counts["failures"]:
        causes = ", ".join(
            f"{count:,} {escape_html(name)}"
            for name, count in sorted(counts["failures"].items(), key=lambda item: -item[1])
        )
        yield f"<p>Failed: {counts['failed']:,}; failures by cause: {causes}.</p>"
    yield "<h3>Samples by decision</h3>"
    for sheet in report.sheets:
        by = f" by {escape_html(sheet.rule)}" if sheet.rule else ""
        yield _sheet(sheet, f"<span class={sheet.kind}>{sheet.kind}{by}</span>")
    if report.histograms:
        yield "<h3>Signals and thresholds</h3>"
        yield "<p class=soft>Red: the rule's threshold. Values beyond the axis are in the outermost bar.</p>"
        yield "<div class=charts>" + "".join(map(_histogram, report.histograms)) + "</div>"
    if report.groups:
        yield "<h3>Duplicates, the largest groups first</h3>"
        for number, group in enumerate(report.groups, 1):
            yield _sheet(group, f"group {number}")
    if report.similar:
        yield "<h3>Semantic duplicates, in no group</h3>"
        searched = f"Neighbours of {report.checked_vectors:,} vectors"
        yield f"<p class=soft>{searched}, by cosine similarity, the closest first.</p>"
        for pair in report.similar:
            yield _sheet(pair, f"cosine {escape_html(pair.rule)}")
    if report.scores:
        yield f"<h3>Against {report.scores[0].marked:,} reviewed samples</h3>"
        yield (
            "<p class=soft>Precision: share of the found samples that reviewers would drop. "
            "Recall: share of the samples that reviewers would drop that are found.</p>"
        )
        yield _table([vars(score) for score in report.scores])
    yield from _cost(report, prices)


def _sheet(sheet: Sheet, title: str) -> str:
    more = "" if len(sheet.cards) == sheet.samples else f", {len(sheet.cards)} of them shown"
    previews = [card.preview for card in sheet.cards]
    wide = " wide" if any(preview.text or preview.frames > 1 for preview in previews) else ""
    count = "" if sheet.kind == "similar" else f": {sheet.samples:,}{more}"
    return f"<h4>{title}{count}</h4><div class='cards{wide}'>{''.join(map(_card, sheet.cards))}</div>"


def _card(card: Card) -> str:
    preview = card.preview
    if preview.picture:
        content = f"<img src='{preview.picture}' alt=''>"
    elif preview.wave:
        content = _wave(preview.wave)
    elif preview.fault:
        content = f"<div class=fault>{escape_html(preview.fault)}</div>"
    else:
        content = f"<blockquote><bdi>{escape_html(preview.text)}</bdi></blockquote>"
    notes = "; ".join(escape_html(part) for part in (card.note, card.split, card.label) if part)
    caption = f"<b><bdi>{escape_html(redact_url(card.key))}</bdi></b>{notes}"
    title = escape_html(card.sample_id)
    return f"<figure title='{title}'>{content}<figcaption>{caption}</figcaption></figure>"


def _wave(peaks: Sequence[float]) -> str:
    # A silent part is a short line, so that it is visible.
    bars = "".join(f"M{place} {0.98 - peak:.3f}V{1.02 + peak:.3f}" for place, peak in enumerate(peaks))
    view = f"0 0 {len(peaks)} 2"
    return (
        f"<svg viewBox='{view}' preserveAspectRatio=none role=img aria-label=waveform>"
        f"<path d='{bars}' stroke=currentColor stroke-width=.8 vector-effect=none /></svg>"
    )


def _bars(rows: Sequence[tuple[str, float, str, str]]) -> str:
    """Return horizontal bars with names and values.

    Args:
        rows: (name, value, value in words, CSS class) of each bar.
    """
    most = max((value for _, value, _, _ in rows), default=0) or 1
    cells = (
        f"<span>{escape_html(name)}</span><i class='{style}' style='width:{100 * value / most:.2f}%'></i>"
        f"<span>{escape_html(words)}</span>"
        for name, value, words, style in rows
    )
    return f"<div class=bars>{''.join(cells)}</div>"


def _histogram(chart: Histogram) -> str:
    width, height, most = 320.0, 90.0, max(chart.counts) or 1
    bar = width / len(chart.counts)
    heights = (height * count / most for count in chart.counts)
    bars = "".join(
        f"<rect x='{place * bar:.1f}' y='{height - tall:.1f}' width='{bar - 0.5:.1f}' height='{tall:.1f}'/>"
        for place, tall in enumerate(heights)
        if tall
    )
    at = width * chart.at
    ends = f"<text x=0 y=104>{chart.low:.4g}</text><text x=320 y=104 text-anchor=end>{chart.high:.4g}</text>"
    scale = ", logarithmic" if chart.log else ""
    rule = f"{escape_html(chart.rule)} at {chart.threshold:g} ({escape_html(chart.action)})"
    column = escape_html(chart.column)
    return (
        f"<div><b>{column}</b><div class=soft>{rule}, {sum(chart.counts):,} measured{scale}</div>"
        f"<svg viewBox='0 0 320 108' role=img aria-label='histogram of {column}'>"
        f"<g fill=currentColor>{bars}</g><path d='M0 90H320'/>"
        f"<line x1='{at:.1f}' x2='{at:.1f}' y1=0 y2=90 />{ends}</svg></div>"
    )


def _cost(report: CellReport, prices: Prices) -> Iterator[str]:
    cost, currency = report.cost, escape_html(prices.currency)
    yield "<h3>Cost, over all runs</h3>"
    if not cost.stages:
        yield "<p>Nothing ran yet.</p>"
        return
    each = (
        ""
        if cost.per_1000_published is None
        else f"{format_amount(cost.per_1000_published)} {currency} for 1,000 published samples; "
    )
    month = f"{format_amount(cost.stored_month)} {currency} a month"
    stored = f"{format_bytes(cost.stored_bytes)} stored at {month}"
    yield f"<p>{format_amount(cost.price)} {currency}; {each}{stored}.</p>"
    bars = [(row["stage"], row["price"], format_amount(row["price"]), "") for row in cost.stages]
    saved = [
        (f"saved by {cause}", part.price, format_amount(part.price), "saved")
        for cause, part in cost.savings.items()
    ]
    yield _bars([*bars, *saved])
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
    head = "".join(f"<th>{escape_html(name)}</th>" for name in rows[0])
    lines = "".join("<tr>" + "".join(_data(value) for value in row.values()) + "</tr>" for row in rows)
    return f"<div class=scroll><table><tr>{head}</tr>{lines}</table></div>"


def _data(value: Any) -> str:
    return (
        f"<td class=word>{escape_html(value)}</td>"
        if isinstance(value, str)
        else f"<td>{_figure(value)}</td>"
    )


def _figure(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.3f}".rstrip("0").rstrip(".")
    return "" if value is None else f"{value:,}" if isinstance(value, int) else escape_html(value)
