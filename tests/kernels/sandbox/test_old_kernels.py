"""Kernels that lack a layer: really, behind a filter that answers ENOSYS for its system calls."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mm_embed_kernels.sandbox import confinement

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.skipif(
    bool(confinement.missing_layers()) or platform.machine() != "x86_64",
    reason="this kernel lacks a layer, or has other numbers",
)
# Numbers of landlock_create_ruleset, landlock_add_rule and landlock_restrict_self, and of seccomp (x86-64).
NUMBERS = {"landlock": (444, 445, 446), "seccomp": (317,)}
# Makes the kernel an older one for this process and all that it starts, then does as it is told.
_SCRIPT = """
import ctypes, json, os, struct, sys

def forget(numbers):
    code = struct.pack("HBBI", 0x20, 0, 0, 0)
    for number in numbers:
        code += struct.pack("HBBI", 0x15, 0, 1, number) + struct.pack("HBBI", 0x06, 0, 0, 0x00050000 | 38)
    code += struct.pack("HBBI", 0x06, 0, 0, 0x7FFF0000)
    held = ctypes.create_string_buffer(code, len(code))
    head = struct.pack("HP", len(code) // 8, ctypes.addressof(held))
    library = ctypes.CDLL(None)
    assert library.prctl(38, 1, 0, 0, 0) == 0 and library.prctl(22, 2, head, 0, 0) == 0

if __name__ == "__main__":
    forget(json.loads(sys.argv[1]))
    if sys.argv[2] == "mm":
        sys.argv = sys.argv[2:]
        from mm_assets.cli.start import start
        start()
    from mm_embed_kernels.errors import UserError
    from mm_embed_kernels.sandbox import confinement
    from mm_embed_kernels.sandbox.sandbox import Limits, Sandbox
    from tests.kernels.sandbox import hostile
    told = {"missing": sorted(confinement.missing_layers()), "words": confinement.describe_layers(), "refused": {}}
    for layers in (["landlock"], ["seccomp"]):
        try:
            Sandbox(Limits(require=tuple(layers))).close()
        except UserError as error:
            told["refused"][layers[0]] = str(error)
    opened = Sandbox(Limits())
    try:
        told["healthy"] = opened.map(len, [("abc",)])
        told["read"] = opened.map(hostile.read_files, [("", b"", [sys.argv[3]], os.getpid())])[0]
        told["written"] = opened.map(hostile.write_files, [("", b"", sys.argv[4])])[0]
        told["reached"] = opened.map(hostile.look_for_sockets, [()])[0]
    finally:
        opened.close()
    print(json.dumps(told))
"""


def run(
    layers: tuple[str, ...], tmp_path: Path, *words: str, **more: str
) -> subprocess.CompletedProcess[str]:
    script = tmp_path / "script.py"
    script.write_text(_SCRIPT)
    numbers = json.dumps([number for layer in layers for number in NUMBERS[layer]])
    return subprocess.run(
        [sys.executable, str(script), numbers, *words],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(ROOT), **more},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize("layers", [(), ("landlock",), ("seccomp",), ("landlock", "seccomp")])
def test_work_goes_on_with_the_layers_that_there_are(layers: tuple[str, ...], tmp_path: Path) -> None:
    folder = tmp_path / "store"
    folder.mkdir()
    (folder / "victim").write_text("content")
    done = run(layers, tmp_path, "look", str(folder / "victim"), str(folder))
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    assert told["healthy"] == [3]
    assert told["missing"] == sorted(layers)
    assert sorted(told["refused"]) == sorted(layers), "`require` refuses what is missing, and nothing else"
    assert [f"NOT by {layer}" in told["words"] for layer in NUMBERS] == [layer in layers for layer in NUMBERS]
    # Landlock alone keeps files from being read; each of the two keeps them from being written.
    assert any("victim" in name for name in told["read"]) == ("landlock" in layers)
    assert (told["reached"] == []) == ("seccomp" not in layers)
    if "landlock" not in layers:
        assert not [name for name in told["read"] if "parent" in name]
    if len(layers) < 2:
        assert (folder / "victim").read_text() == "content"
        kinds = {name.split(":")[0] for name in told["written"]}
        # Landlock has no right on attributes, nor on memory that has no name.
        assert kinds <= ({"mode", "times", "owner", "attribute", "shared memory"} if layers else set())


def test_the_doctor_tells_what_is_missing_and_required(tmp_path: Path) -> None:
    done = run(("seccomp",), tmp_path, "mm", "doctor", COLUMNS="400")
    assert "NOT by seccomp" in " ".join(done.stdout.split()), done.stdout + done.stderr
    refused = run(("seccomp",), tmp_path, "mm", "doctor", COLUMNS="400", MM_SANDBOX_REQUIRE="seccomp")
    assert refused.returncode != 0
    assert "sandbox.require names seccomp" in " ".join(refused.stdout.split())
