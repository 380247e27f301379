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
from typing import TYPE_CHECKING

from mm_embed_kernels.embedders import create
from mm_embed_kernels.errors import SampleError, UserError
from mm_embed_kernels.extras import DISTRIBUTION, EXTRAS, MissingPackage, install_command, is_installed
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

if TYPE_CHECKING:
    from packaging.requirements import Requirement

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
    """Check the versions of all that is installed; what an extra lacks is named, and no error."""
    from packaging.requirements import Requirement

    wrong: list[str] = []
    found_packages, lacking = set(), set()
    for item in map(Requirement, requires(DISTRIBUTION) or []):
        extra = _extra_of(item)
        if extra not in ("", *EXTRAS) or item.name == DISTRIBUTION:
            continue  # tools of development
        try:
            found = version(item.name)
        except PackageNotFoundError:
            if extra:
                lacking.add(extra)
            else:
                wrong.append(f"{item.name} is missing: pip install '{item.name}{item.specifier}'")
            continue
        found_packages.add(item.name)
        if not item.specifier.contains(found, prereleases=True):
            wrong.append(
                f"{item.name} is {found}, not {item.specifier}: pip install '{item.name}{item.specifier}'"
            )
    if wrong:
        raise UserError("; ".join(wrong))
    without = (
        f"; without {', '.join(f'[{extra}]' for extra in EXTRAS if extra in lacking)}" if lacking else ""
    )
    return f"{len(found_packages)} packages as pinned{without}"


def _extra_of(item: Requirement) -> str:
    """Return the extra that a requirement of the distribution belongs to; "" for the core."""
    text = str(item.marker or "")
    return text.partition("extra ==")[2].strip().strip("\"'") if "extra ==" in text else ""


def _check_weights() -> str:
    """Check the weight files of all packages that contain some; without backfills none has to be there."""
    count, absent = 0, []
    for package, sums in WEIGHT_SUMS.items():
        try:
            installed = distribution(package)
        except PackageNotFoundError:
            absent.append(package)
            continue
        files = tuple(Path(str(installed.locate_file(name))) for name in sums)
        installed_hash(f"the package {package}", files)
        count += len(files)
    # Those of transcripts are wanted by few.
    needed = [package for package in absent if package not in EXTRAS["speech"]]
    if needed and is_installed("platform"):
        raise MissingPackage("a backfill", needed[0])
    found = f"{count} files of {len(WEIGHT_SUMS) - len(absent)} packages are those that are pinned (NOTICE)"
    return found + (f"; not installed: {', '.join(absent)}" if absent else "")


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
    if not is_installed("platform"):
        return f"not needed to read a store; backfills need it: {install_command('dagster')}"
    from mm_assets.operations.dagster_home import open_instance  # loads Dagster

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
    if not is_installed("media"):
        return f"not needed to read a store; backfills and queries by words need it: {install_command('av')}"
    made = create(name)
    return f"{made.modality}, {made.dimension}-d, weights {made.weights_hash[:12]}, space {made.space}"


def _describe_machine() -> str:
    import psutil

    memory = psutil.virtual_memory()
    return f"{cpu_count()} CPUs, {memory.available >> 30:,} of {memory.total >> 30:,} GiB memory free"
