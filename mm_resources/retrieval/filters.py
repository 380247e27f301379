"""Filters in SQL that users give: each is one complete expression before it joins other conditions."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from mm_embed_kernels.errors import UserError
from mm_embed_kernels.sql import OutOfMemory
from mm_resources.storage.lance_errors import cause_of, is_filter_error, is_missing_file

# A doubled quote inside a text is the end of one text and the start of the next, which covers the same part.
_QUOTED = re.compile(r"(\b[A-WYZa-wyz]|&)?('[^']*'|`[^`]*`)")
# What Lance ignores (all that follows the expression), takes for a parameter, which makes it panic, or reads
# in two ways: a double quote begins a text in scans and a column in searches.
_REFUSED = (
    (re.compile(r"['`]"), "a quote is not closed"),
    (re.compile(r'"'), "double quotes are ambiguous; write texts in '...' and columns plain or in `...`"),
    (re.compile(r"--|/\*|\*/"), "comments are not allowed"),
    (re.compile(r";"), "it is more than one statement; leave out the semicolon"),
    (
        re.compile(r"\?|\$|(?<!:):(?!:)"),
        "parameters such as ? and $1 are not allowed; write the value itself",
    ),
)
# What has another value each time, or each day: the rows of a manifest could not be found again.
_VOLATILE = re.compile(
    r"\b(?:(random|rand|uuid|now|today|localtimestamp|localtime)\s*\("
    r"|(current_date|current_time|current_timestamp)\b)",
    re.IGNORECASE,
)
# What Lance says of a column that is not there, and of a text that its parser does not take.
_NO_COLUMN = re.compile(
    r"No field named (?P<name>[^.]+)\.(?:.*?Valid fields are (?P<columns>[^.]+))?", re.DOTALL
)
_NO_SQL = re.compile(r"sql parser error: (?P<detail>.*?)\)*$", re.DOTALL)
# Characters of a cause: the columns of a table are named all.
_CAUSE = 4_000
_PAIRS = {")": "(", "]": "[", "}": "{"}


def check_filter(where: object) -> str:
    """Return a user's filter if its text is one complete expression.

    Columns, functions and types are checked by Lance, where the filter is used.

    Raises:
        UserError: when it is no text, empty, or has an open quote or parenthesis, a comment, a second
            statement, a parameter, or a function whose value changes.
    """
    if not isinstance(where, str):
        raise UserError(
            f"the filter {where!r} is invalid: it is no text; give SQL such as \"split = 'train'\""
        )
    if not where.strip():
        raise UserError(f"the filter {where!r} is invalid: it is empty; leave it out to choose all rows")
    if problem := _problem(where):
        raise UserError(f"the filter {where!r} is invalid: {problem}")
    return where


def join_conditions(where: str | None, *conditions: str) -> str | None:
    """Return a user's filter, checked and in parentheses, joined with conditions; None without any.

    Raises:
        UserError: as `check_filter`.
    """
    own = [] if where is None else [f"({check_filter(where)})"]
    return " AND ".join([*own, *conditions]) or None


@contextmanager
def filter_errors(where: str | None, columns: Callable[[], Sequence[str]] = list) -> Iterator[None]:
    """Raise an error of planning a scan or search as `UserError` that names the filter, if there is one.

    Args:
        columns: returns those of the table, which Lance does not name where it guesses another.
    """
    try:
        yield
    except (UserError, OutOfMemory):
        raise
    except Exception as error:  # Lance has no type for these, and panics have one of their own
        if where is None or is_missing_file(error):
            raise
        raise _invalid(where, error, columns()) from error


@contextmanager
def row_errors(where: str | None) -> Iterator[None]:
    """Raise an error of applying a filter to rows, such as a division by 0, as `UserError`."""
    try:
        yield
    except Exception as error:  # DuckDB passes the error of a stream on as a text in an error of its own
        if where is None or isinstance(error, UserError) or not is_filter_error(error):
            raise
        raise _invalid(where, error) from error


def _invalid(where: str, error: Exception, columns: Sequence[str] = ()) -> UserError:
    # As the user has written it: it is in parentheses where other conditions may follow.
    if where.startswith("(") and where.endswith(")") and not _problem(where[1:-1]):
        where = where[1:-1]
    cause = cause_of(error)
    if found := _NO_COLUMN.search(cause):
        known = columns or [name.strip(" `\"'") for name in (found["columns"] or "").split(",")]
        # Without Lance's own.
        own = [name for name in known if name and not name.startswith("_")]
        cause = _unknown_column(where, found["name"].strip(" `\"'"), own)
    elif found := _NO_SQL.search(cause):
        cause = f"it is no complete expression of SQL: {found['detail'].strip()}"
    return UserError(f"the filter {where!r} is invalid: {cause.removeprefix('Invalid input, ')[:_CAUSE]}")


def _unknown_column(where: str, name: str, columns: list[str]) -> str:
    """Return that a column does not exist, what was meant, and the columns that there are."""
    near = difflib.get_close_matches(name.lower(), columns, 1, 0.7)
    quoted = re.sub(rf"(?<![\w'`.]){re.escape(name)}(?![\w'`])", f"'{name}'", where, flags=re.IGNORECASE)
    meant = ""
    if near:
        meant = f"; did you mean {near[0]}?"
    elif f"'{name}'" in quoted and not quoted.startswith(f"'{name}'"):
        meant = f"; a text stands in single quotes: {quoted}"
    return f"there is no column {name!r}{meant}; the columns are: {', '.join(columns)}"


def _requote(where: str) -> str:
    """Return the filter with texts in single quotes in place of double ones; "" where that is no filter."""
    single = re.sub(r'"([^"\']*)"', r"'\1'", where)
    return f": {single}" if '"' not in single and not _problem(single) else ""


def _problem(where: str) -> str:
    """Return why a text is not one complete expression; "" where it is."""
    if any(match[1] for match in _QUOTED.finditer(where)):
        return "texts take no prefix such as E'...' or N'...'; write '...'"
    bare = _QUOTED.sub(" ", where)
    for pattern, problem in _REFUSED:
        if pattern.search(bare):
            return problem + (_requote(where) if '"' in problem or "double" in problem else "")
    if volatile := _VOLATILE.search(bare):
        name = volatile[1] or volatile[2]
        return (
            f"{name} has another value each time, so that the same rows could not be found again; "
            "write the value itself"
        )
    opened: list[str] = []
    for sign in bare:
        if sign in _PAIRS.values():
            opened.append(sign)
        elif sign in _PAIRS and (not opened or opened.pop() != _PAIRS[sign]):
            return f"a {sign} closes no {_PAIRS[sign]}"
    return f"a {opened[-1]} is not closed" if opened else ""
