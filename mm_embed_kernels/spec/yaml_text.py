"""YAML of specs, read within bounds: its size, its depth, and the nodes that its aliases stand for.

A few hundred bytes of aliases can stand for billions of nodes, and brackets can nest deeper than a parser's
stack; both are counted in the events of the text, before anything is built from it.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import yaml

from mm_embed_kernels.errors import UserError

# Characters of a spec: the longest ones, with thousands of sources, have some 200 KB.
_CHARACTERS, _NODES, _DEPTH = 1 << 20, 200_000, 64
# Characters of a cause.
_CAUSE = 500
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def parse_yaml(text: str, origin: str) -> Any:
    """Return the value of a YAML text.

    Args:
        text: the YAML.
        origin: file name for error messages.

    Raises:
        UserError: naming the file and the cause in one line.
    """
    try:
        _check_bounds(text, origin)
        return yaml.load(text, Loader=_LOADER)
    except yaml.YAMLError as error:
        raise UserError(f"{origin}: not valid YAML: {_one_line(error)}") from None
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        # Of a number or a date that Python does not have.
        raise UserError(f"{origin}: not valid YAML: {_one_line(error)}") from None


def read_text(path: Path) -> str:
    """Return the text of a spec file; a pipe, which would block, or a file of any other kind is refused.

    Raises:
        UserError: naming the file and the cause in one line.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(handle, "rb") as stream:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise UserError(f"{path}: cannot read the spec: it is no regular file")
            data = stream.read(4 * _CHARACTERS + 1)
        return data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot read the spec: {_one_line(error)}") from None


def _check_bounds(text: str, origin: str) -> None:
    """Refuse a text that is too long, too deep, or stands for too many nodes.

    Raises:
        UserError: naming the bound.
        yaml.YAMLError: for a text that is no YAML.
    """
    if len(text) > _CHARACTERS:
        raise UserError(f"{origin}: a spec has at most {_CHARACTERS:,} characters")
    sizes: dict[str, int] = {}
    # Anchor and nodes of each open collection; the first is the document.
    open_nodes: list[tuple[str | None, int]] = [(None, 0)]
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, (yaml.SequenceStartEvent, yaml.MappingStartEvent)):
            open_nodes.append((event.anchor, 1))
            if len(open_nodes) > _DEPTH:
                raise UserError(f"{origin}: a spec nests at most {_DEPTH} levels deep")
            continue
        if isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent)):
            anchor, size = open_nodes.pop()
        elif isinstance(event, yaml.AliasEvent):
            # One that is still open would contain itself; an unknown one is an error of the loader's.
            if any(event.anchor == opened for opened, _ in open_nodes):
                raise UserError(f"{origin}: the alias *{event.anchor:.40} stands inside what it names")
            anchor, size = None, sizes.get(event.anchor or "", 1)
        elif isinstance(event, yaml.ScalarEvent):
            anchor, size = event.anchor, 1
        else:
            continue
        if anchor is not None:
            sizes[anchor] = size
        outer, nodes = open_nodes[-1]
        open_nodes[-1] = (outer, nodes + size)
        if nodes + size > _NODES:
            raise UserError(f"{origin}: its aliases stand for more than {_NODES:,} nodes; write them out")


def _one_line(error: Exception) -> str:
    text = " ".join(str(error)[: 4 * _CAUSE].split())
    return text if len(text) <= _CAUSE else f"{text[:_CAUSE]}..."
