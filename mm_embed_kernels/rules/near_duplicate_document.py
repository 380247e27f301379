"""Rule `near_duplicate_document`: MinHash over the text layers of documents (Broder, 1997)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mm_embed_kernels.rules.near_duplicate_text import NearDuplicateText


@dataclass
class NearDuplicateDocument(NearDuplicateText):
    """Almost the same text layer as another document of the cell; see `near_duplicate_text`.

    A document without a text layer, such as a scan, is compared with none.
    """

    name = "near_duplicate_document"
    version: ClassVar[str] = "1"
    modalities = ("document",)
    kind = "near_document"
    reason = "has almost the same text as another document"
