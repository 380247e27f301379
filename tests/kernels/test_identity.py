from __future__ import annotations

import hashlib
import re
import string
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mm_embed_kernels import identity

ALNUM = string.ascii_letters + string.digits
NAME = set(ALNUM + "_-")
VERSION = set(ALNUM + "._-")
near_keys = st.text(st.sampled_from(ALNUM + "._-@|/ \n\0éΩ٣"), max_size=40) | st.text(max_size=5)


@given(st.binary(max_size=10_000))
@example(b"")
def test_content_hash_is_sha256(data: bytes) -> None:
    assert identity.content_hash(data) == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("size", [0, 1, 3_000_000])
def test_file_hash_is_sha256(tmp_path: Path, size: int) -> None:
    path = tmp_path / "blob"
    path.write_bytes(b"ab" * size)
    assert identity.file_hash(path) == hashlib.sha256(b"ab" * size).hexdigest()


@given(st.lists(st.text(), max_size=4), st.lists(st.text(), max_size=4))
@example(["a", "bc"], ["ab", "c"])
@example(["a"], ["a", ""])
@example([], [""])
def test_digest_tells_parts_apart(one: list[str], other: list[str]) -> None:
    assert (identity.digest(*one) == identity.digest(*other)) == (one == other)


def test_digest_is_pinned() -> None:
    """Ids and cache keys of existing stores hang on it."""
    expected = hashlib.sha256(
        (1).to_bytes(8, "big") + b"a" + (2).to_bytes(8, "big") + "é".encode()
    ).hexdigest()
    assert identity.digest("a", "é") == expected
    assert identity.digest("a\udcff") == hashlib.sha256((2).to_bytes(8, "big") + b"a\xff").hexdigest()


def refused(check: Any, text: str) -> bool:
    try:
        assert check(text) == text
    except ValueError as error:
        assert "\n" not in str(error)
        return True
    return False


@given(near_keys)
@example("a" * 31)
@example("a" * 32)
@example("birds\n")
def test_dataset_names(name: str) -> None:
    good = 0 < len(name) <= 31 and set(name) <= NAME and name[0] in ALNUM
    assert refused(identity.check_name, name) == (not good)


@given(near_keys)
@example("1" * 32)
@example("1" * 33)
@example("v1..2")
@example("v1\n")
@example("1.")
def test_versions(text: str) -> None:
    good = (
        0 < len(text) <= 32
        and set(text) <= VERSION
        and text[0] in ALNUM
        and ".." not in text
        and text.lower() not in identity.ALIASES
    )
    assert refused(identity.check_version, text) == (not good)


@pytest.mark.parametrize("alias", [*sorted(identity.ALIASES), "Latest", "PRODUCTION"])
def test_aliases_name_no_version(alias: str) -> None:
    with pytest.raises(ValueError, match="alias"):
        identity.check_version(alias)
    with pytest.raises(ValueError, match="alias"):
        identity.split_dataset_version(f"birds@{alias}")


def test_aliases_are_the_documented_ones() -> None:
    assert {"production", "staging", "latest"} <= identity.ALIASES


@given(near_keys)
@example("birds@v1")
@example("a@b@c")
@example("birds@v1\n")
def test_dataset_versions(text: str) -> None:
    name, at, version = text.partition("@")
    good = (
        bool(at) and not refused(identity.check_name, name) and not refused(identity.check_version, version)
    )
    if good:
        assert identity.split_dataset_version(text) == (name, version)
        assert re.fullmatch(identity.PARTITION_KEY.pattern.rstrip("$") + r"\Z", text)
    else:
        with pytest.raises(ValueError, match=r"."):
            identity.split_dataset_version(text)


@pytest.mark.parametrize("text", ["birds", "@v1", "birds@", ""])
def test_incomplete_dataset_versions_show_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="birds@v1"):
        identity.split_dataset_version(text)


def test_ids_are_stable() -> None:
    """Written out: a changed value would orphan every stored feature."""
    assert (
        identity.sample_id("birds", "photos", "a/1.jpg")
        == identity.digest("sample", "birds", "photos", "a/1.jpg")[:32]
    )
    assert identity.sample_id("birds", "photos", "a/1.jpg") == "4268d90c2c38a6c2cfd2bfcc257bfcd2"
    assert identity.entity_id("birds", "owl") == "21f560c57ec185d8b629db299506fb14"
    assert identity.segment_id("0" * 32, "full") == "efd672b1a15e586b40f339c8fcfe02d4"
    assert identity.feature_id("0" * 32, "f" * 64) == "976f8a8eaf6094896006c432769b383c"


@pytest.mark.parametrize(
    ("make", "args"),
    [
        (identity.sample_id, ("d", "s", "k")),
        (identity.entity_id, ("d", "l")),
        (identity.segment_id, ("s", "full")),
        (identity.feature_id, ("s", "f")),
    ],
)
def test_ids_depend_on_every_part(make: Any, args: tuple[str, ...]) -> None:
    base = make(*args)
    assert re.fullmatch("[0-9a-f]{32}", base)
    others = [make(*args[:i], args[i] + "x", *args[i + 1 :]) for i in range(len(args))]
    assert len({base, *others}) == len(args) + 1


BASE: dict[str, Any] = {
    "name": "n",
    "code_version": "1",
    "weights": "w",
    "preprocessing": {"a": 1, "b": [2]},
    "libraries": ("numpy",),
    "device": "cpu",
    "dtype": "float32",
    "output": 3,
}


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("name", "m"),
        ("code_version", "2"),
        ("weights", "v"),
        ("preprocessing", {"a": 1, "b": [3]}),
        ("preprocessing", {}),
        ("libraries", ("pyarrow",)),
        ("libraries", ("numpy", "pyarrow")),
        ("libraries", ("numpy", "not-installed-anywhere")),
        ("device", "cuda"),
        ("dtype", "float16"),
        ("output", 4),
    ],
)
def test_fingerprint_changes_with(argument: str, value: Any) -> None:
    assert identity.fingerprint(**{**BASE, argument: value}) != identity.fingerprint(**BASE)


def test_fingerprint_ignores_order() -> None:
    shuffled = {**BASE, "preprocessing": {"b": [2], "a": 1}}
    assert identity.fingerprint(**shuffled) == identity.fingerprint(**BASE)
    both = [
        identity.fingerprint(**{**BASE, "libraries": names})
        for names in (("numpy", "pyarrow"), ("pyarrow", "numpy"))
    ]
    assert both[0] == both[1]


def test_library_versions_come_from_metadata() -> None:
    import numpy as np

    assert identity.library_versions(["numpy", "not-installed-anywhere"]) == {
        "not-installed-anywhere": "absent",
        "numpy": np.__version__,
    }


def test_environment_digest_is_the_same_in_another_process(tmp_path: Path) -> None:
    """A worker's failures must count as the driver's."""
    code = "from mm_embed_kernels.identity import environment_digest as d; print(d())"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout.strip()
    assert found == identity.environment_digest()
