"""Page of the `mm` command, from its typer app."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import typer.main

from mm_assets.cli.main import app, main
from reference_pages.markdown import code, generated_page, sentence, write_table

_KINDS = {str: "TEXT", int: "NUMBER", float: "NUMBER", Path: "PATH"}


def page() -> str:
    """Return the page: each command with its usage, arguments and options, in the order of `mm --help`."""
    group: Any = typer.main.get_command(app)
    parts = [sentence(group.help or ""), " ".join((main.__doc__ or "").split("\n\n")[1].split())]
    for name, command in group.commands.items():
        parts += [f"## mm {name}", sentence(command.help or ""), f"```\n{_usage(name, command)}\n```"]
        arguments = [item for item in command.params if item.param_type_name == "argument"]
        options = [item for item in command.params if item.param_type_name == "option"]
        if arguments:
            parts.append(write_table(("argument", "meaning"), map(_argument, arguments)))
        if options:
            parts.append(write_table(("option", "default", "meaning"), map(_option, options)))
    return generated_page("Command line", "the typer app `mm_assets.cli.main`", *parts)


def _usage(name: str, command: Any) -> str:
    arguments = [item for item in command.params if item.param_type_name == "argument"]
    words = [_metavar(item) if item.required else f"[{_metavar(item)}]" for item in arguments]
    return " ".join(["mm", name, "[OPTIONS]", *words])


def _metavar(item: Any) -> str:
    return item.metavar or item.name.upper()


def _argument(item: Any) -> tuple[str, str]:
    return code(_metavar(item)), sentence(item.help or "")


def _option(item: Any) -> tuple[str, str, str]:
    value = "" if item.is_flag else f" {item.metavar or _kind(item.type_descriptor.annotation)}"
    names = ", ".join(code(name + value) for name in item.opts)
    default = "required" if item.required else "" if item.is_flag else code(_default(item.default))
    return names, default, sentence(item.help or "")


def _kind(annotation: Any) -> str:
    """Return the word that stands for a value of a type, or for one of its elements."""
    return _KINDS[next(iter(get_args(annotation)), annotation)]


def _default(value: Any) -> str:
    return "" if value in (None, "", [], ()) or callable(value) else str(value)
