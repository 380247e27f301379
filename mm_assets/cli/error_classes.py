"""`mm failures --classes`."""

from __future__ import annotations

from mm_assets.cli.output import print_json, print_table, say
from mm_embed_kernels.error_classes import by_subject, error_classes


def print_error_classes(json: bool) -> None:
    """Print all error classes, those of installed plug-ins too: by subject, or as a list with `--json`."""
    _import_plugins()
    if json:
        print_json([vars(item) for item in error_classes()])
        return
    for subject, group in by_subject().items():
        rows = [
            {
                "class": item.name,
                "transient": item.transient,
                "meaning": item.meaning,
                "what to do": item.action,
            }
            for item in group
        ]
        print_table(f"error classes: {subject}", rows)
    say("transient: retried in the run after a pause; retryable failures are retried by the next run")


def _import_plugins() -> None:
    """Import the modules of all plug-ins, which declare their error classes."""
    # Imported here: the other commands do without.
    from mm_embed_kernels.embedders import embedders
    from mm_embed_kernels.modalities import modalities
    from mm_embed_kernels.rules import rules
    from mm_embed_kernels.transcribers import transcribers
    from mm_resources.sources import sources

    for discovered in (sources, modalities, rules, embedders, transcribers):
        discovered()
