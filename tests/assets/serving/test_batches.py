"""Texts that are embedded together: one that the model refuses costs itself."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest

from mm_embed_kernels.embedders import create
from mm_embed_kernels.errors import ProcessFailure, UserError
from mm_embed_kernels.sandbox.child_process import ChildDied
from mm_embed_kernels.sandbox.scratch import Scratch
from mm_resources.serving.metrics import ServiceMetrics
from mm_resources.serving.models import ModelProcess


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A model's process whose answers are told by the texts; no process is started."""
    scratch = Scratch()
    made = ModelProcess(create("wordllama"), scratch, ServiceMetrics())

    def ask(_kind: str, texts: list[str]) -> Any:
        if "dies" in texts:
            raise ProcessFailure("died") from ChildDied(-9, True)
        if "refused" in texts:
            raise UserError("refused")
        if "few" in texts:
            return np.zeros((len(texts) - 1, 2))
        return np.array([[float(len(text)), 0.0] for text in texts])

    monkeypatch.setattr(made, "_ask", ask)
    yield made
    made.close()
    scratch.remove()


def answers(process: Any, *texts: str) -> list[Any]:
    batch: list[Any] = [("text", text, Future()) for text in texts]
    process._answer(batch)
    return [work[2].exception(0) or work[2].result(0)[0] for work in batch]


def test_a_text_that_is_refused_costs_itself(process: Any) -> None:
    one, refused, three = answers(process, "a", "refused", "abc")
    assert (one, three) == (1.0, 3.0)
    assert isinstance(refused, UserError)


def test_an_answer_of_too_few_vectors_is_no_answer(process: Any) -> None:
    first, few = answers(process, "a", "few")
    assert first == 1.0
    assert isinstance(few, ProcessFailure)


def test_a_process_that_dies_is_asked_once(process: Any) -> None:
    assert [type(error) for error in answers(process, "a", "dies")] == [ProcessFailure] * 2
