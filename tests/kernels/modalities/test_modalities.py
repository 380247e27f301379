"""What holds for every modality that is discovered; those that bring no sample here are skipped where one is needed."""

from __future__ import annotations

import pickle
import re
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm_embed_kernels.contracts import VALIDATED_SAMPLES
from mm_embed_kernels.contracts.fields import MEDIA
from mm_embed_kernels.embedders import embedders
from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.modalities import Modality, get, modalities, modality_of, sniff
from mm_embed_kernels.plugins import UnknownPlugin
from mm_embed_kernels.sandbox.sandbox import call_guarded
from tests.kernels.media_samples import GOOD

ALL = modalities()
every = pytest.mark.parametrize("name", ALL)
with_sample = pytest.mark.parametrize("name", [name for name in ALL if name in GOOD])
MIMES = [
    "text/plain",
    "text/html",
    "image/png",
    "image/jpeg",
    "image/svg+xml",
    "video/mp4",
    "audio/mpeg",
    "audio/x-wav",
    "application/zip",
]


def measured(modality: Modality, row: dict[str, Any]) -> pa.Table:
    """The probe's columns as a table in the contract's types."""
    fields = {item.name: item.type for item in [*MEDIA, *modality.signals]}
    return pa.table({name: pa.array([value], fields[name]) for name, value in row.items()})


def test_the_bundled_modalities_are_discovered() -> None:
    assert {"text", "image", "audio"} <= set(ALL)
    with pytest.raises(UnknownPlugin, match="image, text"):
        get("smell")


@every
def test_embedder_exists_and_reads_it(name: str) -> None:
    assert embedders()[ALL[name].embedder].modality == name


@every
def test_is_documented(name: str) -> None:
    assert ALL[name].__doc__
    assert [item.name for item in ALL[name].signals if not (item.metadata or {}).get(b"description")] == []


@every
def test_signals_do_not_shadow_shared_columns(name: str) -> None:
    names = [item.name for item in ALL[name].signals]
    assert set(names).isdisjoint(VALIDATED_SAMPLES.schema.names)
    assert len(set(names)) == len(names)


@every
def test_fingerprints(name: str) -> None:
    modality = ALL[name]
    probe, segment = modality.fingerprint("probe"), modality.fingerprint("segment")
    assert probe != segment
    assert get(name).fingerprint("probe") == probe
    assert all(re.fullmatch("[0-9a-f]{64}", value) for value in (probe, segment))
    changed: Any = type("Changed", (type(modality),), {"probe_version": "next"})()
    assert changed.fingerprint("probe") != probe
    assert changed.fingerprint("segment") == segment
    signal = pa.field("another", pa.string())
    richer: Any = type("Richer", (type(modality),), {"signals": [*modality.signals, signal]})()
    assert richer.fingerprint("probe") != probe
    others = {other.fingerprint("probe") for other in ALL.values()}
    assert len(others) == len(ALL)


@every
def test_travels_to_workers(name: str) -> None:
    assert pickle.loads(pickle.dumps(ALL[name])).fingerprint("probe") == ALL[name].fingerprint("probe")


@pytest.mark.parametrize("mime", MIMES)
def test_a_media_type_has_one_owner_at_most(mime: str) -> None:
    owners = [name for name, modality in ALL.items() if modality.claims(mime)]
    assert len(owners) <= 1
    assert modality_of(mime) == (owners[0] if owners else None)


@with_sample
def test_probe_of_a_good_sample(name: str) -> None:
    row = ALL[name].probe(GOOD[name])
    assert set(row) <= {item.name for item in [*MEDIA, *ALL[name].signals]}
    assert {item.name for item in ALL[name].signals} <= set(row)
    assert modality_of(row["mime"]) == name
    assert VALIDATED_SAMPLES.extend(ALL[name].signals).violations(measured(ALL[name], row)) == {}
    assert ALL[name].probe(GOOD[name]) == row


@with_sample
def test_segments_of_a_good_sample(name: str) -> None:
    found = ALL[name].segment(GOOD[name])
    assert found
    assert len({item.span for item in found}) == len(found)
    assert all(item.cost >= 1 for item in found)
    assert ALL[name].segment(GOOD[name]) == found


@pytest.mark.parametrize(("name", "other"), [(a, b) for a in ALL for b in GOOD if a != b])
def test_another_modality_is_named(name: str, other: str) -> None:
    with pytest.raises(SampleError, match=f"declared as {name}, but the content is .*{other}") as caught:
        ALL[name].probe(GOOD[other])
    assert caught.value.error_class == "wrong_modality"
    assert not caught.value.retryable


@every
@pytest.mark.parametrize(
    "data",
    [b"PK\x03\x04" + bytes(60), bytes(range(256)) * 4, b"\x7fELF" + bytes(60)],
    ids=["zip", "binary", "elf"],
)
def test_what_nothing_claims_is_unsupported(name: str, data: bytes) -> None:
    with pytest.raises(SampleError) as caught:
        ALL[name].probe(data)
    assert caught.value.error_class == "unsupported_format"


@with_sample
@settings(max_examples=60)
@given(data=st.data())
def test_damaged_bytes_are_refused_or_measured_within_the_contract(name: str, data: st.DataObject) -> None:
    modality, good = ALL[name], bytearray(GOOD[name])
    for place, byte in data.draw(
        st.lists(st.tuples(st.integers(0, len(good) - 1), st.integers(0, 255)), max_size=8)
    ):
        good[place] = byte
    cut = data.draw(st.integers(0, len(good)) | st.just(len(good)))
    outcome = call_guarded(modality.probe, (bytes(good[:cut]),))
    if isinstance(outcome, SampleError):
        assert re.fullmatch("[a-z_]+", outcome.error_class)
        assert outcome.message
        assert "\n" not in outcome.message
    else:
        assert VALIDATED_SAMPLES.extend(modality.signals).violations(measured(modality, outcome)) == {}


@pytest.mark.parametrize("name", sorted(ALL))
def test_a_file_without_bytes_is_named(name: str) -> None:
    with pytest.raises(SampleError, match=r"^zero_length: the sample has no bytes$"):
        get(name).require(b"")


@settings(max_examples=200)
@given(st.binary(max_size=200))
def test_sniff_always_answers(head: bytes) -> None:
    assert re.fullmatch(r"[a-z]+/[\w.+-]+", sniff(head))


@pytest.mark.parametrize(
    ("head", "mime"),
    [
        (b"", "application/x-empty"),
        (b"plain words", "text/plain"),
        (b'{"a": 1}', "text/plain"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'></svg>", "image/svg+xml"),
        (b"<?xml version='1.0'?><svg></svg>", "image/svg+xml"),
        (b"<?xml version='1.0'?><book></book>", "text/plain"),
        ("Ελληνικά".encode("utf-16"), "text/plain"),
        (("é" * 30).encode()[:-1], "text/plain"),
        (b"words\0and a zero byte", "application/octet-stream"),
        (b"%PDF-1.7\n", "application/pdf"),
        (b"RIFX\0\0\0\x24WAVEfmt ", "audio/x-wav"),
        (b"RF64\xff\xff\xff\xffWAVEds64", "audio/x-wav"),
        (b"caff\0\x01\0\0desc", "audio/x-caf"),
        (b"caffeine keeps us awake", "text/plain"),
        (b".snd\0\0\0\x18", "audio/basic"),
        (b".snd is an old ending", "text/plain"),
        (b"\xff\xfa\x90\xc4" + bytes(8), "audio/mpeg"),
        ("\u4e00 is one".encode("utf-16"), "text/plain"),
        # Words and letters that begin, or are spread over, binary formats.
        (b"MAC addresses are assigned by vendors.", "text/plain"),
        (b"8BPS, MThd and MP+ are some letters each.", "text/plain"),
        (b"GCAT" * 300, "text/plain"),
        (b"P3\n1 1\n255\n1 2 3\n", "image/x-portable-anymap"),
        (bytes(100) + (b"G" + bytes(187)) * 5, "video/mp2t"),
        (b"P5\n100 80\n255\n" + b"p" * 8000, "image/x-portable-anymap"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_sniff(head: bytes, mime: str) -> None:
    assert sniff(head) == mime


@pytest.mark.parametrize("name", [name for name in ALL if ALL[name].canary()])
def test_a_canary_is_healthy(name: str) -> None:
    """It tells files that end their children from libraries that are broken."""
    kind: Any = get(name)
    healthy = kind.canary()
    assert len(healthy) < 4096
    assert kind.claims(kind.probe(healthy)["mime"])
    assert kind.segment(healthy)
    assert kind.preview(healthy)
