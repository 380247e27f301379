"""Python, libraries and models that must be equal for equal results."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mm_embed_kernels.embedders import Embedder, embedders
from mm_embed_kernels.embedders import create as create_embedder
from mm_embed_kernels.errors import UserError
from mm_embed_kernels.identity import ENVIRONMENT_LIBRARIES, digest, file_hash, library_versions
from mm_embed_kernels.inference.precision import BFLOAT16, FLOAT32, has_fast_bfloat16
from mm_embed_kernels.inference.weights import installed_hash
from mm_embed_kernels.media.film_reader import VARIABLE, film_reader
from mm_embed_kernels.modalities import modalities
from mm_embed_kernels.transcribers import Transcriber, transcribers
from mm_embed_kernels.transcribers import create as create_transcriber

# What runs on workers.
_PACKAGES = ("mm_embed_kernels", "mm_resources")
# (kind, name, device, precision): enough to find a model on another machine.
Model = tuple[str, str, str, str]


def model_of(model: Embedder | Transcriber) -> Model:
    """Describe a model so that another machine can find it."""
    if isinstance(model, Embedder):
        return "embedder", model.name, model.device, model.precision
    return "transcriber", model.name, model.device, FLOAT32


def environment(models: Iterable[Model] = ()) -> dict[str, str]:
    """Describe this machine: interpreter, libraries in fingerprints, this code, plug-ins, weights.

    For models in bfloat16 it states whether the processor is fast with them: if not, it would choose another
    precision for the same cell. Nothing heavy is imported; the weights of `models` are hashed.
    """
    models = list(models)
    declaring: list[Any] = [*modalities().values(), *embedders().values(), *transcribers().values()]
    libraries = {*ENVIRONMENT_LIBRARIES, *(name for item in declaring for name in item.libraries)}
    groups = ("mm.modalities", "mm.rules", "mm.embedders", "mm.sources", "mm.transcribers")
    plugins = [entry.dist for group in groups for entry in entry_points(group=group) if entry.dist]
    return {
        "Python": platform.python_version(),
        "machine": platform.machine(),
        VARIABLE: film_reader(),
        "the code of mm-features": _code()[:12],
        **{f"plug-in {plugin.name}": plugin.version for plugin in plugins},
        **library_versions(libraries),
        **{f"weights of {name}": _weights(kind, name, device) for kind, name, device, _ in models},
        **{
            f"the best precision of {name}": BFLOAT16 if has_fast_bfloat16() else FLOAT32
            for *_, name, _, used in models
            if used == BFLOAT16
        },
    }


def differences(here: Mapping[str, str], there: Mapping[str, str]) -> list[str]:
    """The differences of two environments, with both values."""
    names = [*here, *(name for name in there if name not in here)]
    pairs = [(name, here.get(name, "absent"), there.get(name, "absent")) for name in names]
    return [f"{name} is {theirs} there and {ours} here" for name, ours, theirs in pairs if ours != theirs]


def _weights(kind: str, name: str, device: str) -> str:
    try:
        made = (
            create_embedder(name, device=device)
            if kind == "embedder"
            else create_transcriber(name, device=device)
        )
        return installed_hash(name, made.weights)[:12]
    except UserError as error:
        return f"unavailable ({error})"


@cache
def _code() -> str:
    """Digest of the source files of the packages that workers run."""
    found = []
    for package in _PACKAGES:
        spec = find_spec(package)
        for folder in (spec and spec.submodule_search_locations) or ():
            found += [
                (str(path.relative_to(Path(folder).parent)), path)
                for path in sorted(Path(folder).rglob("*.py"))
            ]
    return digest("code", *(part for name, path in found for part in (name, file_hash(path))))
