"""The embedder of texts that a draft proposes, by the languages of a sample."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mm_embed_kernels.embedders.base import embedders
from mm_embed_kernels.media.language import MIN_PROBABILITY, detect_language
from mm_embed_kernels.media.text_encoding import decode
from mm_embed_kernels.modalities import get
from mm_embed_kernels.sandbox.sandbox import call_guarded

_SAMPLE, _BYTES = 200, 20_000
# Share of texts in unknown languages from which on another embedder is proposed.
_MOST_UNKNOWN = 0.2


def file_texts(paths: Iterable[Path]) -> list[str]:
    """Return the beginnings of text files; of up to 200 of them, without those that cannot be read."""
    texts = []
    for path in list(paths)[:_SAMPLE]:
        with path.open("rb") as stream:
            decoded = call_guarded(decode, (stream.read(_BYTES),))
        if isinstance(decoded, tuple):
            texts.append(decoded[0])
    return texts


def multilingual_embedder(texts: Iterable[str]) -> str | None:
    """Return the embedder that knows most of the texts, where the usual one does not know a fifth of them."""
    languages = []
    for text in list(texts)[:_SAMPLE]:
        language, confidence = detect_language(text) if any(map(str.isalpha, text)) else ("", 0.0)
        if confidence >= MIN_PROBABILITY:
            languages.append(language)
    known = {name: kind.languages for name, kind in embedders().items() if kind.modality == "text"}
    shares = {
        name: sum(language in codes for language in languages) / max(1, len(languages))
        for name, codes in known.items()
        if codes
    }
    usual = get("text").embedder
    if not languages or shares.get(usual, 1.0) >= 1 - _MOST_UNKNOWN:
        return None
    best = max(shares, key=lambda name: shares[name])
    return best if shares[best] > shares[usual] else None
