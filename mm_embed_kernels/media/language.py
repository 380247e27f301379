"""The language of a text, by langid.py's naive Bayes."""

from __future__ import annotations

from functools import cache
from typing import Any

# Probability from which on a text counts as one in the detected language.
MIN_PROBABILITY = 0.5
_CHARACTERS = 2_000


def detect_language(text: str) -> tuple[str, float]:
    """Return ISO 639-1 code and probability (langid.py's naive Bayes) of the first 2,000 characters."""
    language, probability = _model().classify(text[:_CHARACTERS])
    return str(language), min(1.0, max(0.0, float(probability)))


@cache
def _model() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
