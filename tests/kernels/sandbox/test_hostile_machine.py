"""A decoder under an attacker's control leaves the machine, and other children, as they are."""

from __future__ import annotations

import os
from typing import Any

import pytest

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.sandbox.sandbox import Limits, Sandbox
from tests.kernels.sandbox import hostile_machine as hostile
from tests.kernels.sandbox.test_hostile import MISSING, MODALITIES, ask, needs_seccomp, samples, sandbox

__all__ = ["samples", "sandbox"]


@needs_seccomp
@pytest.mark.parametrize("modality", MODALITIES)
def test_what_all_processes_share_is_not_taken(modality: str, samples: Any, sandbox: Sandbox) -> None:
    assert ask(sandbox, hostile.exhaust_machine, modality, samples[modality]) == []


@pytest.mark.skipif(bool(MISSING), reason="this kernel lacks a layer")
@pytest.mark.parametrize("modality", MODALITIES)
def test_another_child_is_not_reached(modality: str, samples: Any, sandbox: Sandbox) -> None:
    other = Sandbox(Limits())
    try:
        (pid,) = other.map(os.getpid, [()])
        assert ask(sandbox, hostile.reach_process, modality, samples[modality], pid) == []
        assert other.map(os.getpid, [()]) == [pid], "it lives"
    finally:
        other.close()


def test_a_decoder_opens_few_files_and_raises_no_limit(sandbox: Sandbox) -> None:
    """Pipes hold memory that is not counted as that of a process."""
    assert 1_000 < ask(sandbox, hostile.open_most_files) < 5_000
    assert ask(sandbox, hostile.raise_limits) == []


def test_what_a_decoder_says_of_its_end_is_one_line_of_bounded_length(sandbox: Sandbox) -> None:
    message = (
        "\x1b]0;title\x07\nsecond line https://alice:s3cr3t@host/a?X-Amz-Signature=s3cr3t " + "x" * 1_000_000
    )
    (outcome,) = sandbox.map(hostile.fail_with, [(message,)])
    assert isinstance(outcome, SampleError)
    assert outcome.error_class == "decode_error"
    assert len(outcome.message) < 5_000
    assert "\n" not in outcome.message
    assert "s3cr3t" not in outcome.message
