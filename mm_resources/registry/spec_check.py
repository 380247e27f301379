"""TODO."""

from __future__ import annotations

from mm_embed_kernels.errors import UserError
from mm_embed_kernels.modalities import modalities


def check_embedders(modality: str, names: list[str]) -> None:
    """Refuse embedders that do not exist or cannot read the modality.

    Raises:
        UserError: in one line.
    """
    from mm_embed_kernels.embedders import kind_of

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
        # An embedder of texts reads whatever segments carry a text, such as a transcript; but not every one does.
        if reads != modality and not (reads == "text" and name != names[0]):
            raise UserError(f"embedders.{modality}: {name} reads {reads}, not {modality}")
