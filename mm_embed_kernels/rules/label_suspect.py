"""Rule `label_suspect`: labels that contradict the vectors of their samples."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from mm_embed_kernels.rules.base import Action, Rule, Verdict
from mm_embed_kernels.rules.vectors import VectorIndex, VectorRule
from mm_embed_kernels.selection.label_doubt import FOLDS, doubt_labels
from mm_embed_kernels.sql import CellReader


@dataclass
class LabelSuspect(VectorRule, Rule):
    """A label that confident learning takes for that of another class (Northcutt et al., 2021, by cleanlab).

    A probe is trained on the vectors that the parent version has published of the same bytes, and asked about
    samples that it has not seen. Samples without a label or a vector, and labels of fewer than five samples,
    are not judged. Off by default: it needs a parent version, and the extra ``curate``. A rare but right
    sample may be suspect, so flag, look, and then drop.

    Attributes:
        max_probability: suspects whose own label has more than this probability pass.
    """

    name = "label_suspect"
    columns = ("sample_id", "label", "content_hash")
    cost = 9

    action: Action = "off"
    max_probability: float = 1.0

    _ids: Any = field(default=None, init=False, repr=False, compare=False)
    _values: Any = field(default=None, init=False, repr=False, compare=False)
    _suspect: Any = field(default=None, init=False, repr=False, compare=False)

    def prepare(self, read: CellReader) -> None:
        index = VectorIndex(self._read_vectors)
        ids, labels, places = [np.zeros(0, "S32")], [np.zeros(0, object)], [np.zeros(0, np.int64)]
        for batch in read(list(self.columns)):
            ids.append(np.asarray(batch["sample_id"].to_pylist(), "S32"))
            labels.append(np.asarray(batch["label"].to_pylist(), object))
            places.append(index.places(np.asarray(batch["content_hash"].to_pylist(), "S64")))
        order = np.argsort(every := np.concatenate(ids), kind="stable")
        named, where = np.concatenate(labels)[order], np.concatenate(places)[order]
        chosen = np.flatnonzero((where >= 0) & np.array([label is not None for label in named], np.bool_))
        names, classes = np.unique(named[chosen].astype(str), return_inverse=True)
        enough = np.bincount(classes, minlength=len(names))[classes] >= FOLDS if len(names) else classes == 0
        chosen = chosen[enough]
        self._ids = every[order][chosen]
        self._values, self._suspect = np.zeros(len(chosen)), np.zeros(len(chosen), np.bool_)
        kept, classes = np.unique(classes[enough], return_inverse=True)
        if len(kept) > 1:
            found = doubt_labels(lambda rows: index.vectors(where[chosen[rows]]), classes)
            self._values = found.probability
            self._suspect = found.suspect & (found.probability <= self.max_probability)

    def judge(self, batch: pa.Table) -> Verdict:
        ids = np.asarray(batch["sample_id"].to_pylist(), "S32")
        if not len(self._ids):
            nothing = pa.nulls(len(ids))
            return Verdict(nothing.cast(pa.bool_()), nothing.cast(pa.float64()), "")
        places = np.minimum(np.searchsorted(self._ids, ids), len(self._ids) - 1)
        known = self._ids[places] == ids
        return Verdict(
            pa.array(~self._suspect[places], mask=~known),
            pa.array(np.round(self._values[places].astype(np.float64), 4), mask=~known),
            "the label contradicts the vector; probability of the label by samples of the other labels",
        )
