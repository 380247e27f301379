"""Output that programs read."""

from __future__ import annotations

import pytest

from mm_assets.cli.output import print_exactly, print_table, print_tree
from mm_embed_kernels.errors import UserError


def test_what_a_program_reads_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    print_exactly("export MM_STORE=/data/\u0645\u06cc\u200c\u0634\u0648\u062f")
    assert capsys.readouterr().out == "export MM_STORE=/data/\u0645\u06cc\u200c\u0634\u0648\u062f\n"
    with pytest.raises(UserError, match=r"\\x1b"):
        print_exactly("export MM_STORE=/data/\x1b[2J")


def test_names_between_colons_are_no_pictures(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(":cat:", [{"embedder:clap:": "embed:clap:/models/mine"}])
    print_tree(":cat:", {"a:clap:b": {"c:clap:d": 1}})
    shown = capsys.readouterr().out
    for name in (":cat:", "embedder:clap:", "embed:clap:/models/mine", "a:clap:b", "c:clap:d"):
        assert name in shown
