"""Hook of mkdocs: adds the generated pages of the reference to the site, without writing them to disk."""

from __future__ import annotations

import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

_DOCS = Path(__file__).parents[1]
_PICTURES = _DOCS.parent / ".github" / "pictures"
sys.path[:0] = [str(_DOCS.parent), str(_DOCS)]

from reference_pages import cli, json_shapes, plugins, settings, spec, tables  # noqa: E402

PAGES = {
    "reference/cli.md": cli.page,
    "reference/spec.md": spec.page,
    "reference/tables.md": tables.page,
    "reference/rules.md": plugins.rules_page,
    "reference/embedders.md": plugins.embedders_page,
    "reference/sources.md": plugins.sources_page,
    "reference/error-classes.md": plugins.error_classes_page,
    "reference/settings.md": settings.page,
    "reference/json.md": json_shapes.page,
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages, each with the content that its module returns now."""
    for path, page in PAGES.items():
        files.append(File.generated(config, path, content=page()))
    # The pictures that `make browser` writes, and that the README shows, are stored once.
    for picture in sorted(_PICTURES.glob("*.png")):
        files.append(File.generated(config, f"pictures/{picture.name}", abs_src_path=str(picture)))
    return files
