"""A Ray cluster with a token; tests/containers starts one and sends others than the token to it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from mm_resources.compute.ray_session import _connection_error

# As a head of Ray 2.60 answers a process with another token.
_REFUSAL = (
    "Failed to connect to Ray cluster at 127.0.0.1:6379 Failed to connect to GCS. Last connection error: Unauthenticated: RPC "
    "error: InvalidAuthToken: Authentication token is missing or incorrect"
)
_LINE = (
    "the Ray cluster at head:6379 wants a token that this process does not have; "
    "set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH to the file with the cluster's token"
)


def test_a_refused_token_is_told_in_one_line() -> None:
    assert str(_connection_error("head:6379", ConnectionError(_REFUSAL))) == _LINE


def test_a_token_that_is_not_there_is_told_in_one_line(tmp_path: Path) -> None:
    """Ray raises this before it connects."""
    program = f"""
import os
os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH={str(tmp_path / "none")!r})
from mm_embed_kernels.errors import UserError
from mm_resources.compute.ray_session import RaySession
try:
    RaySession("head:6379").start()
except UserError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == _LINE, done.stderr
