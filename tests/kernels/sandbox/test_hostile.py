"""A decoder under an attacker's control, in each modality: every attempt is refused, and costs one sample."""

from __future__ import annotations

import os
import pickle
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mm_embed_kernels.errors import SampleError, UserError
from mm_embed_kernels.kernels.base import RESULT, results
from mm_embed_kernels.sandbox import channel, child_process, confinement
from mm_embed_kernels.sandbox.answers import ANSWER_DEPTH, BadAnswer, pack_answer, unpack_answer
from mm_embed_kernels.sandbox.sandbox import Limits, Sandbox
from tests.kernels.media_samples import ENGLISH, encode_image, picture
from tests.kernels.sandbox import hostile
from tests.kernels.sounds import encode_audio, noise
from tests.kernels.videos import encode_video, pan

MODALITIES = ("text", "image", "audio", "video")
MISSING = confinement.missing_layers()
needs_landlock = pytest.mark.skipif("landlock" in MISSING, reason="this kernel has no Landlock")
needs_seccomp = pytest.mark.skipif("seccomp" in MISSING, reason="this kernel has no seccomp")


@pytest.fixture(scope="module")
def samples() -> dict[str, bytes]:
    return {
        "text": (ENGLISH * 4).encode(),
        "image": encode_image(picture(), "JPEG"),
        "audio": encode_audio(noise(1.0, 16_000), "FLAC", 16_000),
        "video": encode_video(pan(rate=10, size=(160, 120)), rate=10),
    }


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    opened = Sandbox(Limits(item_seconds=60.0))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def beside_secrets() -> Iterator[Sandbox]:
    """A sandbox whose children start where the environment holds secrets."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "PGPASSWORD", "GITHUB_TOKEN", "MM_STORE"):
            patch.setenv(name, "s3cr3t")
        opened = Sandbox(Limits(item_seconds=60.0))
        yield opened
        opened.close()


def ask(sandbox: Sandbox, function: Any, *arguments: Any) -> Any:
    (outcome,) = sandbox.map(function, [arguments])
    assert not isinstance(outcome, SampleError), outcome
    return outcome


@needs_landlock
@pytest.mark.parametrize("modality", MODALITIES)
def test_no_file_is_read(modality: str, samples: Any, sandbox: Sandbox, tmp_path: Path) -> None:
    secrets = [tmp_path / "home/.aws/credentials", tmp_path / "store/blobs/pack", tmp_path / "id.json"]
    for secret in secrets:
        secret.parent.mkdir(parents=True, exist_ok=True)
        secret.write_text("aws_secret_access_key=PLANTED")
    names = [str(secret) for secret in secrets]
    assert ask(sandbox, hostile.read_files, modality, samples[modality], names, os.getpid()) == []


@pytest.mark.skipif(len(MISSING) == 2, reason="this kernel has neither Landlock nor seccomp")
@pytest.mark.parametrize("modality", MODALITIES)
def test_nothing_is_written(modality: str, samples: Any, sandbox: Sandbox, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("content")
    victim.chmod(0o600)
    before = victim.stat()
    allowed = [] if not MISSING else ["mode", "times", "owner", "attribute"]
    passed = ask(sandbox, hostile.write_files, modality, samples[modality], str(tmp_path))
    assert [name for name in passed if name.split(":")[0] not in allowed] == []
    assert os.listdir(tmp_path) == ["victim"]
    assert victim.read_text() == "content"
    if not MISSING:
        after = victim.stat()
        assert (after.st_mode, after.st_mtime_ns) == (before.st_mode, before.st_mtime_ns)


@needs_seccomp
@pytest.mark.parametrize("modality", MODALITIES)
def test_no_socket_program_or_process_is_reached(
    modality: str, samples: Any, sandbox: Sandbox, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(tmp_path / "agent"))
        unix.listen()
        port = tcp.getsockname()[1]
        passed = ask(
            sandbox,
            hostile.reach_others,
            modality,
            samples[modality],
            os.getpid(),
            port,
            str(tmp_path / "agent"),
        )
    assert passed == []


@pytest.mark.skipif(bool(MISSING), reason="this kernel lacks a layer")
@pytest.mark.parametrize("modality", MODALITIES)
def test_what_was_given_up_does_not_come_back(modality: str, samples: Any, sandbox: Sandbox) -> None:
    assert ask(sandbox, hostile.undo_confinement, modality, samples[modality], os.getpid()) == []
    assert not Path("/dev/shm/mm-attack").exists()
    assert not Path("/tmp/mm-attack").exists()


@needs_seccomp
@pytest.mark.parametrize("modality", MODALITIES)
def test_a_file_that_is_open_for_reading_is_neither_locked_nor_altered(
    modality: str, samples: Any, sandbox: Sandbox, tmp_path: Path
) -> None:
    blob = tmp_path / "pack"
    blob.write_bytes(b"content")
    assert ask(sandbox, hostile.harm_held_file, modality, samples[modality], blob) == []
    assert blob.read_bytes() == b"content"


def test_a_decoder_does_not_take_all_threads() -> None:
    opened = Sandbox(Limits(item_seconds=60.0))
    try:
        outcomes = opened.map(hostile.start_threads, [(4_000, 600.0), (4, 0.0)])
    finally:
        opened.close()
    assert isinstance(outcomes[0], SampleError)
    assert (outcomes[0].error_class, outcomes[0].retryable) == ("decoder_crash", False)
    assert "more than 2,048 threads" in outcomes[0].message
    assert outcomes[1] == 4


def test_threads_that_are_left_behind_end_with_their_child() -> None:
    opened = Sandbox(Limits(item_seconds=60.0))
    try:
        assert opened.map(hostile.start_threads, [(4_000, 0.0), (4, 0.0)])[1] == 4
        pid = opened.map(os.getpid, [()])[0]
        assert len(os.listdir(f"/proc/{pid}/task")) < 100, "another child"
    finally:
        opened.close()


@pytest.mark.parametrize("kind", ["descriptors", "out of band"])
def test_what_is_sent_beside_an_answer_costs_its_own_sample_at_most(kind: str) -> None:
    before = len(os.listdir("/proc/self/fd"))
    opened = Sandbox(Limits(item_seconds=1.0))
    try:
        outcomes = opened.map(hostile.send_beside, [("",), (kind,), ("",)])
    finally:
        opened.close()
    assert [outcomes[0], outcomes[2]] == ["healthy", "healthy"]
    assert outcomes[1] == "healthy" or outcomes[1].error_class in ("decoder_crash", "timeout")
    assert len(os.listdir("/proc/self/fd")) <= before + 1, "no descriptor of a child stays here"


def test_a_child_that_closes_its_channel_is_not_killed_by_the_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(child_process, "_EXIT_SECONDS", 0.2)
    opened = Sandbox(Limits())
    try:
        (outcome,) = opened.map(hostile.close_channel, [(600,)])
    finally:
        opened.close()
    assert (outcome.error_class, outcome.retryable) == ("decoder_crash", False)
    assert "a closed channel" in outcome.message


@pytest.mark.parametrize("modality", MODALITIES)
def test_a_child_holds_no_secret_and_no_privilege(
    modality: str, samples: Any, beside_secrets: Sandbox
) -> None:
    seen = ask(beside_secrets, hostile.look_around, modality, samples[modality])
    assert "s3cr3t" not in str(seen["environment"])
    assert len(seen["files"]) == 1, "the channel alone"
    assert seen["files"][0].startswith("socket:")
    assert (seen["session"], seen["dumpable"]) == (True, 0)
    status = seen["status"]
    assert status["NoNewPrivs"] == "1"
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
    if "seccomp" not in MISSING:
        assert status["Seccomp"] == "2"


def test_the_parent_is_closed_to_others_of_its_user(sandbox: Sandbox) -> None:
    import ctypes

    assert sandbox.map(len, [("abc",)]) == [3]
    assert ctypes.CDLL(None).prctl(3, 0, 0, 0, 0) == 0  # PR_GET_DUMPABLE


def frame(body: bytes, size: int | None = None) -> bytes:
    return struct.pack("<QI", len(body) if size is None else size, 0) + body


BOMBS = {
    "terabyte": frame(b"", 1 << 40),
    "deep": frame(b"\x91" * 1000 + b"\xc0"),
    "deep tuples": frame(b"\xc7\xff\x03" * 200),
    "wide": frame(b"\xdd\xff\xff\xff\xff" + b"\xc0" * 100),
    "nests of wide": frame(b"\xdd\x00\x0f\xff\xff" * 15),
    "many": frame(b"\xdc\xff\xff" + (b"\x9f" + b"\x90" * 15) * 0xFFFF + b"\x90" * 1_000_000),
    "pickle": frame(pickle.dumps(hostile.Evil("/tmp/never"))),
    "nothing": frame(b""),
    "huge array": frame(b"\xc7\x0d\x01" + b"\x92\xa3<f8\x91\xce\xff\xff\xff\xff" + bytes(1)),
    "objects": frame(b"\xc7\x06\x01" + b"\x92\xa2|O\x90" + b""),
    "class of an error": frame(b"\xc7\x06\x02" + b"\x93\xa1?\xa1m\xc2"),
    "descriptors": struct.pack("<QI", 1, 200) + b"\xc0",
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_refused_and_costs_one_sample(bomb: str, sandbox: Sandbox) -> None:
    outcomes = sandbox.map(hostile.answer_with, [(None,), (BOMBS[bomb],), (None,)])
    assert [outcomes[0], outcomes[2]] == ["healthy", "healthy"]
    assert isinstance(outcomes[1], SampleError)
    assert outcomes[1].error_class == "bad_answer", outcomes[1]


def test_an_answer_is_never_unpickled(sandbox: Sandbox, tmp_path: Path) -> None:
    (outcome,) = sandbox.map(hostile.answer_evil, [(str(tmp_path / "pwned"),)])
    assert isinstance(outcome, SampleError)
    assert outcome.error_class == "bad_answer"
    assert os.listdir(tmp_path) == []


def test_an_answer_larger_than_its_bound_is_refused() -> None:
    opened = Sandbox(Limits(answer_bytes=1000))
    try:
        outcomes = opened.map(bytes.upper, [(b"a" * 2000,), (b"a" * 500,)])
    finally:
        opened.close()
    assert isinstance(outcomes[0], SampleError)
    assert outcomes[0].error_class == "bad_answer"
    assert outcomes[1] == b"A" * 500


def test_an_answer_that_nobody_has_asked_for_is_nobodys(sandbox: Sandbox) -> None:
    assert sandbox.map(hostile.speak_out_of_turn, [(frame(pack_answer(7)),)]) == ["healthy"]
    time.sleep(0.5)
    assert sandbox.map(len, [("abc",)]) == [3]


def test_an_answer_that_stops_in_its_middle_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "_ANSWER_SECONDS", 0.2)
    mine, theirs = socket.socketpair()
    with mine, theirs:
        theirs.sendall(frame(b"\xc0", 100))
        with pytest.raises(channel.LateAnswer):
            channel.Channel(mine).recv()


def test_an_answer_that_stops_in_its_middle_costs_time_not_the_sample(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(channel, "_ANSWER_SECONDS", 0.2)
    opened = Sandbox(Limits(item_seconds=0.2))
    try:
        outcomes = opened.map(hostile.answer_half, [(True,), (False,)])
    finally:
        opened.close()
    assert isinstance(outcomes[0], SampleError)
    assert (outcomes[0].error_class, outcomes[0].retryable) == ("timeout", True)
    assert "for its answer" in outcomes[0].message
    assert outcomes[1] == "healthy"


def test_a_child_that_reads_nothing_does_not_hold_its_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "_SECONDS", 0.2)
    monkeypatch.setattr(channel, "_BYTES_PER_SECOND", 1 << 40)
    mine, theirs = socket.socketpair()
    with mine, theirs, pytest.raises(TimeoutError):
        channel.Channel(mine).send(bytes(10_000_000))


def test_the_head_of_an_array_is_counted() -> None:
    head = (
        b"\x92\xa3<f8"
        + b"\xdf\x00\x0f\xff\xff"
        + b"".join(b"\xce" + i.to_bytes(4, "big") + b"\xc0" for i in range(0xFFFFF))
    )
    with pytest.raises(BadAnswer, match="more than 2,000,000 values"):
        unpack_answer(b"\xc9" + len(head).to_bytes(4, "big") + b"\x01" + head)
    with pytest.raises(BadAnswer):
        unpack_answer(b"\xc7\x08\x01" + b"\x92\xa3<f8\x81\x01\x02")


def test_nesting_has_a_bound() -> None:
    value: Any = 1
    for _ in range(ANSWER_DEPTH - 1):
        value = [value]
    assert unpack_answer(pack_answer(value)) == value
    with pytest.raises(BadAnswer, match="nested deeper"):
        unpack_answer(pack_answer([[value, value]]))


def test_an_answer_sets_no_column_of_another_row() -> None:
    import pyarrow as pa

    schema = pa.schema([*RESULT, pa.field("width", pa.int64())])
    answers: list[Any] = [{"key": "other", "status": "failed", "width": 3}, {"width": "wide"}, ["width"], {}]
    rows = results(["a", "b", "c", "d"], answers, 4.0, schema).to_pylist()
    assert [(row["key"], row["status"], row["error_class"], row["width"]) for row in rows] == [
        ("a", "ok", None, 3),
        ("b", "failed", "contract", None),
        ("c", "failed", "contract", None),
        ("d", "ok", None, None),
    ]


def test_work_starts_only_with_the_layers_that_are_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confinement, "missing_layers", lambda: {"landlock": "files can be read"})
    with pytest.raises(UserError, match=r"sandbox\.require names landlock, which this kernel"):
        Sandbox(Limits(require=("landlock",)))
    Sandbox(Limits()).close()
    monkeypatch.setenv("MM_SANDBOX_REQUIRE", "seccomp, landlock")
    with pytest.raises(UserError, match="landlock"):
        Sandbox(Limits())
    monkeypatch.setenv("MM_SANDBOX_REQUIRE", "selinux")
    limits = Limits()
    with pytest.raises(UserError, match="'selinux' is not known"):
        Sandbox(limits)
    monkeypatch.delenv("MM_SANDBOX_REQUIRE")
    monkeypatch.setattr(confinement, "_recorded", {})
    confinement.record_layers(["landlock"])
    with pytest.raises(UserError, match="landlock"):
        Sandbox(limits)
    assert "NOT by landlock: files can be read" in confinement.describe_layers()
