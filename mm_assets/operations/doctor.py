"""Checks of the requirements of a run: packages, store, Dagster home, sandbox, weights, machine."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution, requires, version
from pathlib import Path

from mm_assets.operations.dagster_home import open_instance
from mm_embed_kernels.embedders import create
from mm_embed_kernels.errors import SampleError, UserError
from mm_embed_kernels.inference.runtime import cpu_count
from mm_embed_kernels.inference.weight_sums import WEIGHT_SUMS
from mm_embed_kernels.inference.weights import installed_hash
from mm_embed_kernels.messages import message_line
from mm_embed_kernels.modalities import modalities
from mm_embed_kernels.sandbox.confinement import (
    describe_layers,
    missing_layers,
    require_layers,
    required_layers,
)
from mm_embed_kernels.sandbox.reach import EFFECTS, reach_out
from mm_embed_kernels.sandbox.sandbox import Limits, Sandbox
from mm_resources.catalog import Catalog
from mm_resources.settings import Settings
from mm_resources.storage import lance_datasets

_FREE_BYTES = 2 << 30


@dataclass(frozen=True)
class Finding:
    """The result of one check; a finding that is not ok names the remedy."""

    name: str
    ok: bool
    finding: str


def run_checks() -> list[Finding]:
    """Run all checks; the error of one that raises is its finding."""
    settings = Settings.from_environment()
    checks: list[tuple[str, Callable[[], str]]] = [
        ("python", _check_python),
        ("packages", _check_packages),
        ("weights", _check_weights),
        ("store", lambda: _check_store(settings)),
        ("dagster home", lambda: _check_home(settings)),
        ("sandbox", _check_sandbox),
        ("confinement", _check_confinement),
        ("lance and lancedb", _check_lance_pair),
        *(
            (f"embedder {name}", lambda name=name: _check_embedder(name))
            for name in primary_embedders(settings)
        ),
        ("machine", _describe_machine),
    ]
    return [_run_check(name, check) for name, check in checks]


def _run_check(name: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(name, True, check())
    except (UserError, SampleError, OSError, RuntimeError, ImportError) as error:
        return Finding(name, False, message_line(error))


def _check_python() -> str:
    return platform.python_version()


def _check_packages() -> str:
    from packaging.requirements import Requirement

    wrong = []
    required = [Requirement(line) for line in requires("mm-features") or []]
    required = [item for item in required if item.marker is None]
    for item in required:
        try:
            if not item.specifier.contains(version(item.name), prereleases=True):
                wrong.append(f"{item.name} is {version(item.name)}, not {item.specifier}")
        except ModuleNotFoundError:
            wrong.append(f"{item.name} is missing")
    if wrong:
        raise UserError(f"{'; '.join(wrong)}: run `make install`")
    return f"{len(required)} packages as pinned"


def _check_weights() -> str:
    count = 0
    for package, sums in WEIGHT_SUMS.items():
        try:
            installed = distribution(package)
        except PackageNotFoundError:
            raise UserError(
                f"the package {package}, which contains weights, is missing: run `make install`"
            ) from None
        files = tuple(Path(str(installed.locate_file(name))) for name in sums)
        installed_hash(f"the package {package}", files)
        count += len(files)
    return f"{count} files of {len(WEIGHT_SUMS)} packages are those that are pinned (NOTICE)"


def _check_store(settings: Settings) -> str:
    store = Catalog.open(settings.store).store
    probe = f".doctor-{uuid.uuid4().hex}"
    if not (store.create(probe, b"a") and not store.create(probe, b"b") and store.read(probe) == b"a"):
        raise UserError(
            f"{settings.store} does not support exclusive creation, which publishing needs; "
            "use a folder, or a bucket of a kind that docs/how-to/buckets.md lists"
        )
    store.remove(probe)
    if not store.is_local:
        return settings.store
    free = shutil.disk_usage(settings.store).free
    if free < _FREE_BYTES:
        raise UserError(
            f"{settings.store} has only {free >> 20:,} MiB free; "
            f"free at least {_FREE_BYTES >> 20:,} MiB or set MM_STORE to a larger disk"
        )
    return f"{settings.store}, {free >> 30:,} GiB free"


def _check_home(settings: Settings) -> str:
    instance = open_instance(settings)
    runs = instance.get_runs_count()
    instance.dispose()
    return f"{settings.dagster_home}, {runs:,} runs"


def _check_sandbox() -> str:
    sandbox = Sandbox(Limits())
    try:
        alive, dead = sandbox.map(os.path.basename, [("/a/b",)])[0], sandbox.map(os.abort, [()])[0]
    finally:
        sandbox.close()
    if alive != "b" or not isinstance(dead, SampleError) or dead.error_class != "decoder_crash":
        raise UserError(
            f"the sandbox does not isolate a crash: child answered {alive!r}, crashing child {dead!r}; "
            "see SECURITY.md"
        )
    return "children start, and one that crashes costs one sample"


def _check_confinement() -> str:
    require_layers(required_layers())
    sandbox = Sandbox(Limits())
    try:
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as planted:
            planted.write("for nobody else")
            planted.flush()
            (reached,) = sandbox.map(reach_out, [(planted.name, os.getpid())])
    finally:
        sandbox.close()
    if isinstance(reached, SampleError):
        raise reached
    expected = {
        effect for layer, effects in EFFECTS.items() if layer in missing_layers() for effect in effects
    }
    if unexpected := sorted(set(reached) - expected):
        raise UserError(
            f"a child that should be confined {', '.join(unexpected)}; {describe_layers()}; see SECURITY.md"
        )
    return describe_layers()


def _check_lance_pair() -> str:
    # Loads the databases, which no other check needs.
    import lancedb
    import pyarrow as pa

    with tempfile.TemporaryDirectory() as folder:
        lance_datasets.create(
            f"{folder}/pair.lance", pa.schema([("a", pa.int64())]), pa.table({"a": [1]}).to_batches()
        )
        if lancedb.connect(folder).open_table("pair").count_rows() != 1:
            raise UserError("lancedb does not read what pylance writes; install the pinned pair")
    return f"pylance {version('pylance')} and lancedb {version('lancedb')} read each other"


def primary_embedders(settings: Settings) -> list[str]:
    """Return the names of the profile's embedders, each once."""
    return list(dict.fromkeys(modality.primary(settings.profile) for modality in modalities().values()))


def _check_embedder(name: str) -> str:
    made = create(name)
    return f"{made.modality}, {made.dimension}-d, weights {made.weights_hash[:12]}, space {made.space}"


def _describe_machine() -> str:
    import psutil

    memory = psutil.virtual_memory()
    return f"{cpu_count()} CPUs, {memory.available >> 30:,} of {memory.total >> 30:,} GiB memory free"
