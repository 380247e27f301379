"""Entry point of `mm`: registers each command, and turns errors into one line and an exit code."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import traceback
from typing import Annotated, NoReturn

import typer

from mm_assets.cli.audit import audit
from mm_assets.cli.backfill import backfill
from mm_assets.cli.cost import cost
from mm_assets.cli.curate import curate
from mm_assets.cli.datasets import datasets
from mm_assets.cli.diff import diff
from mm_assets.cli.doctor import doctor
from mm_assets.cli.env import env
from mm_assets.cli.explain import explain
from mm_assets.cli.export import export
from mm_assets.cli.failures import failures
from mm_assets.cli.forget import forget
from mm_assets.cli.forgotten import list_forgotten
from mm_assets.cli.gc import gc
from mm_assets.cli.init import init
from mm_assets.cli.label import label
from mm_assets.cli.output import say
from mm_assets.cli.pick import pick
from mm_assets.cli.promote import promote
from mm_assets.cli.redrive import redrive
from mm_assets.cli.register import register
from mm_assets.cli.report import report
from mm_assets.cli.search import search
from mm_assets.cli.serve import serve
from mm_assets.cli.sql import sql
from mm_assets.cli.status import status
from mm_assets.cli.trace import trace
from mm_assets.cli.try_embedder import try_embedder
from mm_assets.cli.unregister import unregister
from mm_assets.cli.upkeep import upkeep
from mm_assets.cli.working_folder import leave_working_folder
from mm_embed_kernels.errors import Interrupted, UserError
from mm_embed_kernels.extras import EXTRAS, MissingPackage, explain_missing, require_installed
from mm_embed_kernels.messages import message_line
from mm_embed_kernels.urls import redact_text
from mm_resources.storage.lance_errors import Fenced, cause_of, is_unanswered

# Commands that write files of the user's own, and nothing into the store.
_WRITERS = ("export", "init", "report")
# Commands that need all that backfills need, whichever package they miss first.
_BACKFILLS = ("mm backfill", "mm redrive", "mm register", "mm try")

app = typer.Typer(
    help="Turn raw texts, images, sounds, videos and documents into versioned, searchable, joinable features "
    "for training.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from mm_assets import __version__  # reads the metadata of the distribution

        say(f"mm-features {__version__}")
        raise typer.Exit


@app.callback()
def _configure(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001 - typer calls it
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="print the version")
    ] = False,
) -> None:
    """Configure this process before a command runs, but not for `mm --help`."""
    if context.invoked_subcommand == "init":
        # It looks into files of strangers, and takes each error for the file's.
        require_installed("mm init", EXTRAS["media"])
    from mm_resources.storage.process import configure_process  # here: imports pyarrow

    configure_process(private=context.invoked_subcommand not in _WRITERS)


# `mm --help` lists the commands in this order.
app.command("init")(init)
app.command("register")(register)
app.command("unregister")(unregister)
app.command("datasets")(datasets)
app.command("backfill")(backfill)
app.command("curate")(curate)
app.command("label")(label)
app.command("cost")(cost)
app.command("report")(report)
app.command("failures")(failures)
app.command("redrive")(redrive)
app.command("status")(status)
app.command("search")(search)
app.command("serve")(serve)
app.command("explain")(explain)
app.command("try")(try_embedder)
app.command("diff")(diff)
app.command("promote")(promote)
app.command("sql")(sql)
app.command("pick")(pick)
app.command("export")(export)
app.command("trace")(trace)
app.command("audit")(audit)
app.command("forget")(forget)
app.command("forgotten")(list_forgotten)
app.command("env")(env)
app.command("doctor")(doctor)
app.command("upkeep")(upkeep)
app.command("gc")(gc)


def main() -> None:
    """Run a command.

    Exit codes: 1 when a cell or a check failed, 2 for a user's mistake or an operating-system error (one line
    on stderr), 3 when another run processes a cell, so that nothing was done, 130 or 143 when interrupted by
    SIGINT or SIGTERM.
    """
    leave_working_folder()
    try:
        with explain_missing(_command()):
            app()
    except UserError as error:
        say(f"error: {_with_whole_extra(error)}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        # The reader of the output, such as `head`, has ended.
        sys.exit(0)
    except OSError as error:
        # A path that cannot be a folder, a full disk, an unreachable store: a traceback explains nothing.
        say(f"error: {redact_text(message_line(error))}", file=sys.stderr)
        sys.exit(2)
    except (Interrupted, KeyboardInterrupt) as error:
        say("interrupted; run the same command again to resume", file=sys.stderr)
        _exit_now(128 + (error.signal if isinstance(error, Interrupted) else signal.SIGINT))
    except Exception as error:  # noqa: BLE001 - of the program itself; printed and ended
        if isinstance(error, Fenced) or is_unanswered(error):
            # Another process was first; or Lance, which has no type for it, got no answer of a remote store.
            say(f"error: {redact_text(cause_of(error))}", file=sys.stderr)
            sys.exit(2)
        # A mistake of the program: with its traceback, but as every text of a stranger.
        say(redact_text(traceback.format_exc()), file=sys.stderr)
        sys.exit(1)


def _command() -> str:
    """Return the command that runs, as it is typed: `mm backfill`."""
    names = {command.name for command in app.registered_commands}
    return " ".join(["mm", *[word for word in sys.argv[1:] if word in names][:1]])


def _with_whole_extra(error: UserError) -> UserError:
    """Return the error; of a package that a backfill lacks, with the extra of all that it needs."""
    if isinstance(error, MissingPackage) and _command() in _BACKFILLS and error.package in EXTRAS["media"]:
        return MissingPackage(_command(), error.package, "platform")
    return error


def _exit_now(code: int) -> NoReturn:
    """Exit at once, after the exit handlers have closed Ray, child processes and temporary folders.

    An interrupted query leaves threads and native objects behind, which the interpreter's own shutdown
    would report.
    """
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
