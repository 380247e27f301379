"""`mm failures --classes`."""

from __future__ import annotations

from mm_assets.cli.output import print_json, print_table
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
    print("transient: the run itself tries again after a pause; a later run tries what is marked retryable")


def _import_plugins() -> None:
    """Import the modules of all plug-ins, which declare their error classes."""
    # Read here, since the other commands' arguments are checked without them.
    from mm_embed_kernels.embedders import embedders
    from mm_embed_kernels.modalities import modalities
    from mm_embed_kernels.rules import rules
    from mm_embed_kernels.transcribers import transcribers
    from mm_resources.sources import sources

    for discovered in (sources, modalities, rules, embedders, transcribers):
        discovered()
