"""Page of the settings: variables of the environment, and the configuration of Dagster's resources."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import dagster as dg

from mm_assets.definitions import default_resources
from mm_resources.settings import VARIABLES
from reference_pages.markdown import code, generated_page, sentence, write_table


def page() -> str:
    """Return the page."""
    rows = [(code(item.name), code(item.default), sentence(item.meaning)) for item in VARIABLES]
    parts = [
        "## Environment",
        write_table(("variable", "default", "meaning"), rows),
        "Credentials of buckets are read from the variables and files that `s3fs`, `adlfs`, `gcsfs` and "
        "Lance read themselves.",
        "## Resources",
        "The configuration of a run in Dagster, below `resources:`.",
    ]
    for names, kind in _kinds():
        fields = [
            (code(name), code(item.default) if item.default != "" else "", sentence(item.description or ""))
            for name, item in kind.model_fields.items()
            if item.description
        ]
        if fields:
            text = sentence((inspect.getdoc(kind) or "").partition("\n\n")[0])
            parts += [f"### {names}", text, write_table(("field", "default", "meaning"), fields)]
    return generated_page("Settings", "`mm_resources.settings` and `mm_resources.resources`", *parts)


def _kinds() -> Iterator[tuple[str, type[dg.ConfigurableResource]]]:
    """Yield each class of resources once, with the keys under which the code location has it."""
    keys: dict[type, list[str]] = {}
    from mm_resources.resources import StoreResource  # beside those that need it

    keys[StoreResource] = ["store"]
    for key, resource in default_resources().items():
        keys.setdefault(type(resource), []).append(key)
    yield from ((", ".join(names), kind) for kind, names in keys.items())  # type: ignore[misc]
