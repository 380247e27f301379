"""Entry point of `mm`."""

from __future__ import annotations

import atexit
import os
import sys
from typing import NoReturn

import typer

from mm_assets.cli import (
    audit,
    backfill,
    cost,
    curate,
    datasets,
    diff,
    env,
    explain,
    export,
    failures,
    label,
    report,
)

app = typer.Typer(
    help="Turn raw texts, images, sounds and videos into versioned, searchable, joinable features for training.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for module in (datasets, backfill, curate, label, cost, report, failures, explain, diff, export, audit, env):
    module.add_to(app)


def main() -> None:
    """Run a command. A user's mistake is one line and exit code 2; a cell that is not sound is exit code 1."""
    from mm_embed_kernels.errors import Interrupted, UserError

    try:
        app()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        sys.exit(0)
    except OSError as error:
        # A folder that cannot be one, a full disk, a store that does not answer: nothing that a traceback explains.
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except (Interrupted, KeyboardInterrupt):
        print("interrupted; the same command goes on where it ended", file=sys.stderr)
        _leave(130)


def _leave(code: int) -> NoReturn:
    """End at once, with what is to be closed closed (Ray, children, temporary folders).

    A query that was broken off leaves threads and native objects behind, and the interpreter's own end, which finds
    them, prints what they are.
    """
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
