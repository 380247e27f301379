"""Settings of this process, from the environment."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from mm_embed_kernels.errors import UserError, unknown_choice
from mm_embed_kernels.inference.precision import AUTO, PRECISIONS
from mm_embed_kernels.media.film_reader import FFMPEG, VARIABLE, film_reader

DEFAULT_STORE = ".mm/store"
DEFAULT_HOME = ".mm/dagster"
DEFAULT_DATASETS = ".mm/datasets"
_PREFIX = re.compile(r"[A-Za-z0-9_]+(/[A-Za-z0-9_]+)*")
_ADDRESS = re.compile(r"https?://[A-Za-z0-9.\-\[\]:]+(/[A-Za-z0-9._~%\-/]*)?")
PROFILES = ("bundled", "hub")


@dataclass(frozen=True)
class Variable:
    """A variable of the environment that the packages read.

    Attributes:
        name: its name.
        default: value that holds where it is not set, as text.
        meaning: one sentence or two.
    """

    name: str
    default: str
    meaning: str


# The one list of variables: the reference of settings is written from it; a test compares it with the code.
VARIABLES = (
    Variable(
        "MM_STORE",
        DEFAULT_STORE,
        "Root of the store: a folder or an fsspec URL. Unset: the nearest `.mm/store`, from "
        "the current folder upward; home and specs beside it.",
    ),
    Variable("DAGSTER_HOME", DEFAULT_HOME, "The Dagster instance; initialised once with `dagster.yaml`."),
    Variable("MM_DATASETS", DEFAULT_DATASETS, "Folder of specs that the sensor `specs` watches."),
    Variable("MM_SECRETS", "/run/secrets", "Folder of the files that `${file:NAME}` in a spec names."),
    Variable("MM_SECRET_NAME", "none", "Secret that `${env:MM_SECRET_NAME}` in a spec names; any NAME."),
    Variable(
        "MM_STORE_SHARED",
        "false",
        "`true`: files and folders of store and home for the group, too (0660/0770 with umask 007, instead "
        "of 0600/0700); in Dagster `store: {shared: true}`. A stricter umask is respected.",
    ),
    Variable(
        "MM_PROFILE",
        PROFILES[0],
        "Default models: `bundled` are pip packages, `hub` come from a model hub; a missing model is an "
        "error, never replaced.",
    ),
    Variable(
        "MM_PRECISION",
        AUTO,
        "Floating-point format of models: `float32`, `bfloat16` where an embedder declares it, or `auto`, by "
        "the processor.",
    ),
    Variable(
        "MM_CALIBRATION",
        "DAGSTER_HOME/calibration.json",
        "Measurements of `mm doctor --calibrate` on this machine.",
    ),
    Variable(
        "MM_FILM_READER",
        FFMPEG,
        "Reader of films' frames: `ffmpeg`, or `decord`, which is asked where it gives the same frames. With "
        "another reader a cell is computed again.",
    ),
    Variable("MM_PRICES", "built in", "The deployment's price table, a YAML file."),
    Variable(
        "MM_SANDBOX_REQUIRE",
        "none",
        "Layers of confinement (`landlock`, `seccomp`) without which no work starts.",
    ),
    Variable(
        "MM_KEY_PREFIX",
        "none",
        "Words in front of the keys of the twelve assets, `a/b`, in a project of your own.",
    ),
    Variable("MM_ALERTS", "none", "File that says where alerts go: mail, Slack, a webhook."),
    Variable("MM_METRICS_FILE", "none", "File `NAME.prom` that the job `metrics` writes for Prometheus."),
    Variable("MM_METRICS_GATEWAY", "none", "Address of a push gateway to which the job `metrics` pushes."),
    Variable("MM_TOKEN", "none", "Token of `mm serve`, for the service and for its clients."),
    Variable(
        "MM_EXPLORER_URL",
        "none",
        "Address of `mm serve` for people, to which asset pages in Dagster link: `http://127.0.0.1:8808`.",
    ),
    Variable(
        "MM_DAGSTER_URL",
        "none",
        "Address of the Dagster UI, to which pages of `mm serve` link: `http://127.0.0.1:3000`.",
    ),
    Variable("MM_SQL_MEMORY", "512MB", "Memory of one SQL statement, which spills to disk beyond it."),
    Variable("RAY_ADDRESS", "none: a local cluster", "Address of a running Ray cluster."),
    Variable("XDG_CACHE_HOME", "~/.cache", "Parent folder of `mm-features`, the cache of converted models."),
    Variable("STORAGE_EMULATOR_HOST", "none", "Address of an emulator of Google Cloud Storage."),
)


@dataclass(frozen=True)
class Settings:
    """Locations and choices of this process.

    `VARIABLES` lists all variables, those that other modules read included.

    Attributes:
        store: root of the store, an absolute path or an fsspec URL (``MM_STORE``).
        dagster_home: folder of the Dagster instance (``DAGSTER_HOME``).
        datasets: folder of spec files that the sensor watches (``MM_DATASETS``).
        profile: model profile, one of `PROFILES`; there is no fallback (``MM_PROFILE``).
        precision: number format of inference, one of `mm_embed_kernels.inference.precision.PRECISIONS`
            (``MM_PRECISION``).
        calibration: calibration file, see `mm_resources.compute.calibration` (``MM_CALIBRATION``); None: in
            `dagster_home`.
        key_prefix: words in front of the keys of the twelve assets, ``a/b`` (``MM_KEY_PREFIX``).
        metrics_file: file that the job `metrics` writes, an absolute path (``MM_METRICS_FILE``).
        metrics_gateway: push gateway of the job `metrics` (``MM_METRICS_GATEWAY``).
        alerts: file of the channels of alerts, an absolute path; "" for none (``MM_ALERTS``).
        prices: file of the deployment's price table, see `mm_resources.costs.prices` (``MM_PRICES``); None
            takes the built-in one.
        explorer_url: address of `mm serve`, for links of asset pages (``MM_EXPLORER_URL``); "" for none.
        dagster_url: address of the Dagster UI, for links of `mm serve` (``MM_DAGSTER_URL``); "" for none.
    """

    store: str
    dagster_home: Path
    datasets: Path
    profile: str
    precision: str = AUTO
    prices: Path | None = None
    calibration: Path | None = None
    key_prefix: str = ""
    explorer_url: str = ""
    dagster_url: str = ""
    alerts: str = ""
    metrics_file: str = ""
    metrics_gateway: str = ""

    @property
    def calibration_file(self) -> Path:
        return self.calibration or self.dagster_home / "calibration.json"

    @staticmethod
    def from_environment() -> Settings:
        profile = os.environ.get("MM_PROFILE") or "bundled"
        if profile not in PROFILES:
            raise unknown_choice("MM_PROFILE", profile, PROFILES)
        precision = os.environ.get("MM_PRECISION") or AUTO
        if precision not in PRECISIONS:
            raise unknown_choice("MM_PRECISION", precision, PRECISIONS)
        return Settings(
            store=absolute(os.environ.get("MM_STORE") or in_project(DEFAULT_STORE)),
            dagster_home=Path(absolute(os.environ.get("DAGSTER_HOME") or in_project(DEFAULT_HOME))),
            datasets=Path(absolute(os.environ.get("MM_DATASETS") or in_project(DEFAULT_DATASETS))),
            profile=profile,
            precision=precision,
            calibration=Path(absolute(named)) if (named := os.environ.get("MM_CALIBRATION")) else None,
            key_prefix=_checked_prefix(os.environ.get("MM_KEY_PREFIX") or ""),
            metrics_file=absolute(file) if (file := os.environ.get("MM_METRICS_FILE")) else "",
            metrics_gateway=os.environ.get("MM_METRICS_GATEWAY") or "",
            alerts=absolute(alerts) if (alerts := os.environ.get("MM_ALERTS")) else "",
            prices=Path(absolute(prices)) if (prices := os.environ.get("MM_PRICES")) else None,
            explorer_url=_checked_address("MM_EXPLORER_URL"),
            dagster_url=_checked_address("MM_DAGSTER_URL"),
        )

    def exports(self) -> dict[str, str]:
        """The variables with which native dagster commands use the same settings."""
        return {
            "MM_STORE": self.store,
            "DAGSTER_HOME": str(self.dagster_home),
            "MM_DATASETS": str(self.datasets),
            "MM_PROFILE": self.profile,
            **({"MM_PRECISION": self.precision} if self.precision != AUTO else {}),
            **({"MM_CALIBRATION": str(self.calibration)} if self.calibration else {}),
            **({VARIABLE: reader} if (reader := film_reader()) != FFMPEG else {}),
            **({"MM_PRICES": str(self.prices)} if self.prices else {}),
            **({"MM_KEY_PREFIX": self.key_prefix} if self.key_prefix else {}),
            **({"MM_EXPLORER_URL": self.explorer_url} if self.explorer_url else {}),
            **({"MM_DAGSTER_URL": self.dagster_url} if self.dagster_url else {}),
            **({"MM_METRICS_FILE": self.metrics_file} if self.metrics_file else {}),
            **({"MM_METRICS_GATEWAY": self.metrics_gateway} if self.metrics_gateway else {}),
            **({"MM_ALERTS": self.alerts} if self.alerts else {}),
        }


def in_project(path: str) -> str:
    """Return a path below the nearest folder upward that has a store; else below the current one.

    As git looks for a repository. A store of another user's is left out: whoever may write into a folder
    above would choose what is read.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        try:
            if (folder / DEFAULT_STORE).stat().st_uid == os.geteuid():
                return str(folder / path)
        except OSError:  # none, or none that can be seen
            continue
    return str(here / path)


def _checked_prefix(prefix: str) -> str:
    if prefix and not _PREFIX.fullmatch(prefix):
        raise UserError(
            f"MM_KEY_PREFIX is {prefix!r}; a prefix is words of letters, digits and _, joined by /"
        )
    return prefix


def _checked_address(variable: str) -> str:
    """Return the address of a site that a variable names, without a slash at its end; "" for none."""
    given = os.environ.get(variable) or ""
    if given and not _ADDRESS.fullmatch(given):
        raise UserError(
            f"{variable} is {given[:100]!r}; give an address such as http://127.0.0.1:8808, without user, "
            "query and fragment"
        )
    return given.rstrip("/")


def absolute(location: str) -> str:
    """Return a URL unchanged and a path as absolute, against the current folder.

    ``abfs://CONTAINER`` becomes ``az://CONTAINER`` and ``gcs://BUCKET`` becomes ``gs://BUCKET``: the one name
    that Lance knows as well.

    Raises:
        UserError: for a URL with a password, which logs and tables would show.
    """
    if "://" in location and urlsplit(location).password is not None:
        raise UserError(
            f"a {urlsplit(location).scheme}:// location contains a password; "
            "remove it and put credentials in the environment or a profile"
        )
    if location.startswith("abfs://") and "@" not in location:
        location = location.replace("abfs", "az", 1)
    if location.startswith("gcs://"):
        location = location.replace("gcs", "gs", 1)
    return location.rstrip("/") if "://" in location else os.path.abspath(os.path.expanduser(location))
