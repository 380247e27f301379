"""Rows of a listing: URLs stripped of their secrets, and every field within the bounds of its table.

What a stranger's list or archive names costs its own sample, however long or odd it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mm_embed_kernels import identity
from mm_embed_kernels.errors import SampleError, UserError
from mm_embed_kernels.escapes import escape_surrogates
from mm_embed_kernels.spec.dataset_spec import DatasetSpec
from mm_embed_kernels.spec.model import user_column
from mm_embed_kernels.spec.source_spec import SourceSpec
from mm_embed_kernels.urls import redact_text, redact_url, strip_secrets, strip_text
from mm_resources.sources import Listed
from mm_resources.storage.secret_table import SecretTable, has_secrets, join_locator

# Characters of a key or URI, of a label, link or group, and of any other text of a row.
_KEY, _LABEL, _TEXT, _TAG = 8_192, 4_096, 1 << 20, 1_024
_REFUSED = ("bad_url", "refused_address")
_LARGEST = 2**63 - 1
# Samples of one source: a server that pages without end is no source.
MOST_SAMPLES = 500_000_000
# Rows whose secrets are stored together.
_SAVED_ROWS = 4_096


class ListingRows:
    """Turns the samples of one source of a spec into rows.

    Args:
        secrets: takes the URLs with secrets; None where nothing is stored, so that rows name none.
        known: the spec's references by value, see `SecretTable.values`.
    """

    def __init__(
        self, spec: DatasetSpec, source: SourceSpec, secrets: SecretTable | None, known: Mapping[str, str]
    ) -> None:
        self.spec, self.source, self.secrets, self.known = spec, source, secrets, known

    def rows(self, samples: Iterator[tuple[Listed, str]]) -> Iterator[dict[str, Any]]:
        """Yield the row of each (sample, modality); the secrets are stored before the last row's successor.

        Raises:
            UserError: for a source without end.
        """
        count = 0
        for count, (item, modality) in enumerate(samples, 1):
            if count > MOST_SAMPLES:
                raise UserError(
                    f"source {self.source.name} lists more than {MOST_SAMPLES:,} samples; split it"
                )
            yield self._row(item, modality)
            if self.secrets is not None and count % _SAVED_ROWS == 0:
                self.secrets.save()
        if self.secrets is not None:
            self.secrets.save()

    def _row(self, item: Listed, modality: str) -> dict[str, Any]:
        uri, locator = listed_uri(item.uri), item.locator
        if self.secrets is not None and has_secrets(item.uri):
            locator = join_locator(locator, self.secrets.reference(item.uri, self.known))
        key = _bound_key(item)
        texts = {
            name: _bound_text(item, name, getattr(item, name), limit)
            for name, limit in (("label", _LABEL), ("group", _LABEL), ("link", _LABEL), ("transcript", _TEXT))
        }
        columns = {
            user_column(name): _bound_text(item, name, value, _TEXT) if isinstance(value, str) else value
            for name, value in item.columns.items()
            if name not in ("label", "transcript")
        }
        sample = identity.sample_id(self.spec.name, self.source.name, key)
        # A sound track shares the entity of its video.
        track_of = self.source.track_of
        video = identity.sample_id(self.spec.name, track_of, key) if track_of else sample
        return {
            "sample_id": sample,
            "entity_id": identity.entity_id(self.spec.name, texts["link"]) if texts["link"] else video,
            "key": key,
            "source_uri": uri,
            "source": self.source.name,
            **texts,
            "locator": escape_surrogates(locator),
            "tag": bound_tag(item.tag),
            "size": item.size if item.size is not None and 0 <= item.size <= _LARGEST else None,
            "modified_at": item.modified_at,
            "error_class": item.error.error_class if item.error else None,
            "message": item.error.message if item.error else None,
            "content_hash": item.content_hash or None,
            "modality": modality,
            **columns,
        }


def listed_uri(uri: str) -> str:
    """Return a URI as a listing holds it: without secrets, of a bounded length."""
    uri = escape_surrogates(strip_secrets(uri))
    return uri if len(uri) <= _KEY else f"{redact_url(uri)[:_TAG]}#{identity.digest('uri', uri)[:16]}"


def bound_tag(tag: str) -> str:
    """Return a tag as a listing holds it; a server may send one of any length and bytes."""
    tag = escape_surrogates(tag)
    return tag if len(tag) <= _TAG else identity.digest("tag", tag)


def _bound_key(item: Listed) -> str:
    key = escape_surrogates(strip_secrets(item.key))
    if len(key) <= _KEY:
        return key
    item.error = item.error or SampleError(
        "bad_name", f"a name of {len(key):,} characters, {key[:80]!r}...; at most {_KEY:,} are read"
    )
    return f"{redact_url(key)[:_TAG]}#{identity.digest('key', key)[:16]}"


def _bound_text(item: Listed, name: str, value: str | None, limit: int) -> str | None:
    if value is None:
        return None
    # Of a refused reference no parameter is needed, and any may be a secret.
    is_refused = item.error is not None and item.error.error_class in _REFUSED
    strip = redact_text if is_refused else strip_text
    text = escape_surrogates(strip(value)) if len(value) <= limit else None
    if text is None:
        item.error = item.error or SampleError(
            "schema_mismatch", f"the field {name!r} has {len(value):,} characters; at most {limit:,} are read"
        )
    return text
