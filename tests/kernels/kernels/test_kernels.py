from __future__ import annotations

import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mm_embed_kernels.embedders.base import Embedder
from mm_embed_kernels.errors import SampleError, UserError, error_fingerprint
from mm_embed_kernels.identity import content_hash
from mm_embed_kernels.kernels.base import REQUEST, RESULT, Kernel, results
from mm_embed_kernels.kernels.embed import EmbedKernel, embed_each
from mm_embed_kernels.kernels.probe import ProbeKernel
from mm_embed_kernels.kernels.segment import SegmentKernel
from mm_embed_kernels.modalities import get
from mm_embed_kernels.sandbox.sandbox import Limits
from tests.kernels.media_samples import ENGLISH, encode_image, picture

LIMITS = Limits(memory_bytes=2 << 30, item_seconds=20.0)


@dataclass
class Shelf:
    """A blob reader over a dict."""

    blobs: dict[str, bytes] = field(default_factory=dict)

    def read(self, content_hash: str, path: str, offset: int, size: int) -> bytes:
        if content_hash not in self.blobs:
            raise SampleError("blob_missing", f"no blob {content_hash}", retryable=True)
        return self.blobs[content_hash]

    media = read


def requests(*blobs: bytes | None, texts: list[str] | None = None) -> tuple[Shelf, pa.Table]:
    """Requests for blobs (None: one that the store lacks) with the reader that serves them."""
    rows = []
    for i, blob in enumerate(blobs):
        rows.append(
            {
                "key": f"k{i}",
                "content_hash": content_hash(b"?" if blob is None else blob),
                "span": "full",
                "path": "p",
                "offset": 0,
                "size": 1,
            }
        )
        rows[-1]["text"] = texts[i] if texts else None
    return Shelf({content_hash(blob): blob for blob in blobs if blob is not None}), pa.Table.from_pylist(
        rows, schema=REQUEST
    )


def run(kernel: Kernel, table: pa.Table) -> list[dict[str, Any]]:
    for stage in kernel.stages():
        stage.setup()
        table = stage.run(table)
    assert table.schema.equals(kernel.result)
    return table.to_pylist()


def test_probe_kernel_gives_a_row_for_each_request() -> None:
    good = encode_image(picture(), "PNG")
    shelf, table = requests(
        good, good[:500], None, b"", b"just words", encode_image(picture((64, 48)), "JPEG")
    )
    rows = run(ProbeKernel(get("image"), shelf, LIMITS), table)
    assert [row["key"] for row in rows] == [f"k{i}" for i in range(6)]
    assert [row["error_class"] for row in rows] == [
        None,
        "truncated",
        "blob_missing",
        "zero_length",
        "wrong_modality",
        None,
    ]
    assert [row["status"] for row in rows] == ["ok", "failed", "failed", "failed", "failed", "ok"]
    assert [row["retryable"] for row in rows] == [False, False, True, False, False, False]
    assert [row["width"] for row in rows] == [320, None, None, None, None, 64]
    assert all(row["seconds"] >= 0 for row in rows)


def test_segment_kernel() -> None:
    shelf, table = requests(ENGLISH.encode(), b"", (ENGLISH * 40).encode())
    rows = run(SegmentKernel(get("text"), shelf, LIMITS), table)
    assert [row["error_class"] for row in rows] == [None, "no_segments", None]
    assert rows[0]["segments"] == [{"span": f"chars=0-{len(ENGLISH)}", "text": ENGLISH, "cost": len(ENGLISH)}]
    assert len(rows[2]["segments"]) > 3


def test_kernels_are_told_apart() -> None:
    shelf = Shelf()
    kernels = [kind(get(name), shelf) for kind in (ProbeKernel, SegmentKernel) for name in ("text", "image")]
    assert len({kernel.fingerprint for kernel in kernels}) == 4
    assert {kernel.scope for kernel in kernels} == {
        "probe-text",
        "probe-image",
        "segment-text",
        "segment-image",
    }


class Letters(Embedder):
    """A text model: how often a, b and c occur. Some texts it cannot bear."""

    name = "letters"
    modality = "text"
    dimension = 3
    refused: tuple[str, ...] = ()
    path: Path = Path(__file__)
    loads = 0

    @property
    def weights(self) -> tuple[Path, ...]:
        return (self.path,)

    @property
    def preprocessing(self) -> dict[str, Any]:
        return {"letters": "abc"}

    def load(self) -> None:
        self.loads += 1
        self._model = lambda text: [text.count(letter) for letter in "abc"]

    def embed(self, inputs: Any) -> np.ndarray[Any, Any]:
        if bad := [text for text in inputs if text in self.refused]:
            raise ValueError(f"cannot bear {bad}")
        return np.array(
            [[np.inf] * 3 if text == "infinite" else self._model(text) for text in inputs], np.float64
        )


class Crowded(Letters):
    """A text model on a device that has memory for some rows."""

    room = 2

    def embed(self, inputs: Any) -> np.ndarray[Any, Any]:
        import torch

        if self.batch_size > self.room:
            raise torch.OutOfMemoryError(f"no memory for {self.batch_size} rows")
        return super().embed(inputs)


class Corner(Embedder):
    """An image model: the colour of the first pixel."""

    name = "corner"
    modality = "image"
    dimension = 3
    input_shape = (2, 2, 3)
    weights = ()
    preprocessing = {}

    def load(self) -> None:
        pass

    def decode(self, data: bytes, span: str) -> np.ndarray[Any, Any]:
        if data == b"odd":
            return np.zeros((3, 3, 3), np.uint8)
        if data == b"float":
            return np.zeros((2, 2, 3))
        return np.frombuffer(data, np.uint8).reshape(2, 2, 3)

    def embed(self, inputs: Any) -> np.ndarray[Any, Any]:
        assert inputs.dtype == np.uint8
        assert inputs.shape[1:] == self.input_shape
        return inputs[:, 0, 0, :].astype(np.float32)


def test_text_vectors_have_unit_length() -> None:
    texts = ["aab", "c", "", "infinite", "abc"]
    shelf, table = requests(*[None] * 5, texts=texts)
    rows = run(EmbedKernel(Letters(), shelf), table)
    assert [row["error_class"] for row in rows] == [None, None, "bad_vector", "bad_vector", None]
    assert [row["vector"] is None for row in rows] == [False, False, True, True, False]
    np.testing.assert_allclose(rows[0]["vector"], np.array([2, 1, 0]) / 5**0.5, rtol=1e-6)
    np.testing.assert_allclose([np.linalg.norm(rows[i]["vector"]) for i in (0, 1, 4)], 1, rtol=1e-6)


def test_a_refused_batch_is_finished_item_by_item() -> None:
    embedder = Letters()
    embedder.refused = ("bad", "worse")
    shelf, table = requests(*[None] * 5, texts=["a", "bad", "b", "worse", "c"])
    rows = run(EmbedKernel(embedder, shelf), table)
    assert [row["error_class"] for row in rows] == [None, "embedding_error", None, "embedding_error", None]
    assert rows[1]["message"] == "ValueError: cannot bear ['bad']"
    assert rows[4]["vector"] == [0, 0, 1]


def test_decoded_inputs() -> None:
    colours = [bytes([10, 0, 0] * 4), bytes([0, 3, 4] * 4)]
    shelf, table = requests(colours[0], b"short", None, b"odd", b"float", colours[1])
    kernel = EmbedKernel(Corner(), shelf, LIMITS)
    rows = run(kernel, table)
    assert [row["error_class"] for row in rows] == [
        None,
        "decode_error",
        "blob_missing",
        "contract",
        "contract",
        None,
    ]
    assert rows[2]["retryable"]
    assert "uint8[3, 3, 3]" in rows[3]["message"]
    assert [row["vector"] for row in (rows[0], rows[5])] == [
        [1, 0, 0],
        [0, pytest.approx(0.6), pytest.approx(0.8)],
    ]
    assert len(kernel.stages()) == 2
    assert len(EmbedKernel(Letters(), shelf).stages()) == 1


def test_a_batch_in_which_all_fails() -> None:
    shelf, table = requests(None, None)
    assert [row["status"] for row in run(EmbedKernel(Corner(), shelf, LIMITS), table)] == ["failed", "failed"]


def test_a_slice_of_a_table() -> None:
    """Blocks reach a stage as slices of a larger table."""
    texts = [letter * 3 for letter in "abcab"]
    shelf, table = requests(*[None] * 5, texts=texts)
    rows = run(EmbedKernel(Letters(), shelf), table.slice(2, 2))
    assert [row["vector"] for row in rows] == [[0, 0, 1], [1, 0, 0]]


class Crooked(Letters):
    def embed(self, inputs: Any) -> np.ndarray[Any, Any]:
        return np.ones((len(inputs), 4))


def test_a_model_of_another_dimension_breaks_its_contract() -> None:
    found = embed_each(Crooked(), ["a", "b"])
    assert [error.error_class for error in found] == ["contract", "contract"]


def test_embedders_travel_without_their_model() -> None:
    embedder = Letters(device="cuda:1", batch_size=7)
    fingerprint = embedder.fingerprint
    embedder.load()
    again = pickle.loads(pickle.dumps(embedder))
    assert not hasattr(again, "_model")
    assert (again.device, again.batch_size, again.fingerprint) == ("cuda:1", 7, fingerprint)


def test_fingerprint_of_an_embedder() -> None:
    assert Letters(batch_size=1).fingerprint == Letters(batch_size=99, threads=3).fingerprint
    assert (
        Letters(device="cuda:0").fingerprint == Letters(device="cuda:1").fingerprint != Letters().fingerprint
    )


def test_missing_weights_are_one_line(tmp_path: Path) -> None:
    embedder = Letters()
    embedder.path = tmp_path / "model.bin"
    with pytest.raises(UserError, match=r"embedder letters: weight file .*model\.bin is missing"):
        _ = embedder.fingerprint


def test_what_an_embedder_cannot_do() -> None:
    with pytest.raises(UserError, match="no text side"):
        Corner().embed_text(["a"])
    with pytest.raises(SampleError, match="does not decode"):
        Letters().decode(b"", "full")


def test_results_keep_order_and_share_time() -> None:
    schema = pa.schema([*RESULT, pa.field("n", pa.int64())])
    table = results(
        ["a", "b"], [{"n": 1}, SampleError("truncated", "ends\n  early", retryable=True)], 3.0, schema
    )
    assert table.to_pylist() == [
        {
            "key": "a",
            "status": "ok",
            "error_class": None,
            "message": None,
            "retryable": False,
            "seconds": 1.5,
            "n": 1,
        },
        {
            "key": "b",
            "status": "failed",
            "error_class": "truncated",
            "message": "ends early",
            "retryable": True,
            "seconds": 1.5,
            "n": None,
        },
    ]
    with pytest.raises(ValueError, match="zip"):
        results(["a"], [], 0.0, schema)


def test_a_message_with_bytes_that_are_not_text_can_be_stored() -> None:
    """Decoders quote what they choke on; Python keeps undecodable bytes as unpaired surrogates."""
    error = SampleError("decode_error", "bad tag \udcff\ud800")
    assert results(["a"], [error], 0.0, pa.schema(RESULT)).num_rows == 1


def test_a_sample_error_survives_a_process_border() -> None:
    error = pickle.loads(pickle.dumps(SampleError("truncated", "a  b\nc" + "x" * 900, retryable=True)))
    assert (error.error_class, error.retryable, len(error.message)) == ("truncated", True, 500)
    assert str(error).startswith("truncated: a b c")


def test_error_fingerprint_leaves_out_what_varies() -> None:
    one = error_fingerprint("raw_assets", "not_found", "blob 0x7f12ab at byte 17 of '/a/b.jpg' is gone")
    assert one == error_fingerprint("raw_assets", "not_found", "blob 0x99 at byte 4 of '/c/d.jpg' is gone")
    assert one != error_fingerprint("raw_assets", "not_found", "blob 0x99 at byte 4 of '/c/d.jpg' is late")
    assert one != error_fingerprint(
        "raw_assets", "truncated", "blob 0x7f12ab at byte 17 of '/a/b.jpg' is gone"
    )
    assert one != error_fingerprint("segments", "not_found", "blob 0x7f12ab at byte 17 of '/a/b.jpg' is gone")


def test_a_device_without_memory_gets_fewer_rows() -> None:
    embedder = Crowded(batch_size=16)
    embedder.load()
    assert [vector.tolist() for vector in embed_each(embedder, ["a", "b", "c"])] == np.eye(3).tolist()
    assert embedder.batch_size == 2, "and so for all that follow"
    embedder.room = 0
    (refused,) = embed_each(embedder, ["a"])
    assert isinstance(refused, SampleError)
    assert refused.retryable, "the machine's trouble, not the text's"
