"""Output of commands: tables, or JSON with `--json`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, TextIO

from mm_embed_kernels.errors import UserError
from mm_embed_kernels.escapes import escape_json, escape_terminal

if TYPE_CHECKING:
    from rich.console import Console
    from rich.tree import Tree


def say(*parts: Any, sep: str = " ", end: str = "\n", file: TextIO | None = None) -> None:
    """Print a text for a person: the one place where names and messages reach the terminal as lines."""
    print(*map(escape_terminal, parts), sep=sep, end=end, file=file)


def print_exactly(text: str, end: str = "\n") -> None:
    """Print a text that a program reads, as it is.

    Raises:
        UserError: for characters that a terminal obeys instead of showing them.
    """
    if escape_terminal(text) != text:
        raise UserError(f"control characters cannot be printed: {escape_terminal(text)}; remove them")
    print(text, end=end)


def print_json(value: Any) -> None:
    """Print a value as indented JSON; dates in ISO 8601, bytes in hexadecimal, others as their string."""
    print(_dumps(value))


def print_json_array(values: Iterable[Any]) -> None:
    """Print a JSON array item by item, so that a long one is never in memory as a whole."""
    lead = "[\n"
    for value in values:
        print(lead + "  " + _dumps(value).replace("\n", "\n  "), end="")
        lead = ",\n"
    print("[]" if lead == "[\n" else "\n]")


def _dumps(value: Any) -> str:
    return escape_json(json.dumps(value, indent=2, default=_as_json, ensure_ascii=False))


def _as_json(value: Any) -> str:
    if isinstance(value, (bytes, bytearray)):
        return value.hex()
    return value.isoformat() if isinstance(value, (date, datetime)) else str(value)


def print_table(title: str, rows: Sequence[Mapping[str, Any]], columns: Iterable[str] | None = None) -> None:
    """Print rows as a table.

    Args:
        columns: names of the columns, in order; by default those of the first row.
    """
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    names = list(columns or (rows[0] if rows else []))
    table = Table(
        title=escape(escape_terminal(title)),
        title_justify="left",
        title_style="bold",
        header_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for name in names:
        numeric = all(isinstance(row.get(name), (int, float)) for row in rows) and bool(rows)
        table.add_column(
            _cell(name.replace("_", " ")), justify="right" if numeric else "left", overflow="fold"
        )
    for row in rows:
        table.add_row(*(_cell(row.get(name)) for name in names))
    _console().print(table)


def print_tree(title: str, value: Mapping[str, Any]) -> None:
    """Print nested mappings and lists as an indented tree."""
    from rich.tree import Tree

    tree = Tree(f"[bold]{_cell(title)}[/bold]")
    _add_branches(tree, value)
    _console().print(tree)


def one_line(text: str, width: int = 80) -> str:
    """Join the words of a text with single spaces and cut it to `width` characters."""
    flat = " ".join(text.split())
    return flat if len(flat) <= width else flat[: width - 1] + "…"


def _console() -> Console:
    """Return a console as wide as the terminal; for a file or pipe, wide enough that few cells are folded."""
    from rich.console import Console

    # Names are shown as they are: without this, "embed:clap:MODEL" has a picture of hands in it.
    console = Console(emoji=False)
    return console if console.is_terminal else Console(width=180, emoji=False)


def _cell(value: Any) -> str:
    from rich.markup import escape

    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.3f}"
    if isinstance(value, dict):
        return ", ".join(f"{escape(escape_terminal(name))} {_cell(item)}" for name, item in value.items())
    return escape(escape_terminal(value))


def _add_branches(tree: Tree, value: Mapping[str, Any] | list[Any]) -> None:
    items = value.items() if isinstance(value, Mapping) else enumerate(value)
    for name, item in items:
        if isinstance(item, Mapping) and {"rule", "passed"} <= set(item):
            tree.add(_decision_line(item))
        elif isinstance(item, (Mapping, list)) and item:
            _add_branches(tree.add(f"[bold]{_cell(name)}[/bold]"), item)
        elif isinstance(item, (bytes, bytearray)):
            tree.add(f"[bold]{_cell(name)}[/bold]: {len(item):,} bytes")
        elif item not in (None, [], {}, "") and item == item:
            text = item.isoformat() if isinstance(item, (date, datetime)) else item
            tree.add(f"[bold]{_cell(name)}[/bold]: {_cell(text)}")


def _decision_line(item: Mapping[str, Any]) -> str:
    """Return a rule's decision in one line, with what was measured and allowed where that is known."""
    state = "passed" if item["passed"] else f"{item['action']}: {item['reason']}"
    measured = f"measured {_cell(item['value'])}" if item["value"] not in (None, "") else ""
    figures = ", ".join(filter(None, (measured, _cell(item["threshold"]))))
    return f"{item['rule']} v{item['version']}: {_cell(state)}{f' ({figures})' if figures else ''}"
