"""Check a spec, before it is frozen, against what is installed and what is registered."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from mm_embed_kernels import identity
from mm_embed_kernels.embedders import kind_of
from mm_embed_kernels.errors import UserError, unknown_choice
from mm_embed_kernels.modalities import Modality, modalities
from mm_embed_kernels.rules import rule_set
from mm_embed_kernels.spec.dataset_spec import DatasetSpec
from mm_embed_kernels.spec.source_spec import SourceSpec
from mm_embed_kernels.transcribers import create as create_transcriber
from mm_embed_kernels.validation.bounds import validation_bounds
from mm_resources.sources import open_source


class UnknownVersion(UserError):
    """A version that is not registered."""


class UnknownParent(UserError):
    """A spec follows a version that is not registered, and may be registered after it."""


SpecLookup = Callable[[str, str], DatasetSpec]


def check_spec(spec: DatasetSpec, registered: SpecLookup) -> None:
    """Refuse a spec that names what does not exist.

    Args:
        registered: the frozen spec of a dataset and version; raises UserError for one that is not registered.

    Raises:
        UserError: in one line, for all mistakes.
    """
    if spec.parent is not None:
        try:
            registered(spec.name, spec.parent)
        except UnknownVersion as error:
            raise UnknownParent(f"{spec.dataset_version}: its parent is not registered: {error}") from None
    installed = modalities()
    mistakes: list[str] = []
    for check in _checks(spec, installed):
        try:
            check()
        except UserError as error:
            mistakes += [str(error)] if str(error) not in mistakes else []
    if mistakes:
        raise UserError("; ".join(mistakes))
    if not identity.PARTITION_KEY.fullmatch(spec.dataset_version):
        raise UserError(f"{spec.dataset_version}: must match {identity.PARTITION_KEY.pattern}")


def _checks(spec: DatasetSpec, installed: Mapping[str, Modality]) -> Iterator[Callable[[], object]]:
    """Yield the checks of the parts of a spec, each of which raises its own mistake."""
    for source in spec.sources:
        yield partial(_check_source, spec, source, installed)
    for name in installed:
        yield partial(rule_set, name, spec.curation.rules)
    for modality, columns in spec.validation.items():
        yield partial(_check_validation, modality, columns, installed)
    for modality, names in spec.embedders.items():
        yield partial(check_embedders, modality, names)
    for modality, name in spec.transcribe.items():
        yield partial(_check_transcriber, modality, name, installed)


def _check_source(spec: DatasetSpec, source: SourceSpec, installed: Mapping[str, Modality]) -> None:
    if source.modality != "auto" and source.modality not in installed:
        raise unknown_choice(f"source {source.name}: modality", source.modality, ["auto", *installed])
    opened = open_source(source, dict(spec.schema_))
    if source.blobs == "reference" and opened.name != "files":
        raise UserError(
            f"source {source.name}: blobs: reference is for files, not for a source of {opened.name}"
        )


def _check_validation(modality: str, columns: Mapping[str, Any], installed: Mapping[str, Modality]) -> None:
    if modality not in installed:
        raise UserError(f"validation.{modality}: no such modality; there are: {', '.join(installed)}")
    validation_bounds(installed[modality], columns)


def _check_transcriber(modality: str, name: str, installed: Mapping[str, Modality]) -> None:
    if modality not in installed or not installed[modality].spoken:
        spoken = ", ".join(name for name, item in installed.items() if item.spoken)
        raise UserError(
            f"transcribe.{modality}: not a modality with speech; choose one of: {spoken or 'none'}"
        )
    create_transcriber(name)


def check_embedders(modality: str, names: list[str]) -> None:
    """Refuse embedders that do not exist or cannot read the modality.

    Raises:
        UserError: in one line.
    """
    if modality not in modalities():
        raise UserError(f"embedders.{modality}: no such modality; there are: {', '.join(modalities())}")
    if not names or len(set(names)) < len(names):
        raise UserError(
            f"embedders.{modality}: name at least one embedder, and each once; the first is the primary one"
        )
    for name in names:
        try:
            reads = kind_of(name).modality
        except UserError as error:
            raise UserError(f"embedders.{modality}: {error}") from None
        # An embedder of texts reads whatever segments carry a text, such as a transcript; but not every one
        # does.
        if reads != modality and not (reads == "text" and name != names[0]):
            raise UserError(f"embedders.{modality}: {name} reads {reads}, not {modality}")
