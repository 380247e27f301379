"""Local files that become links between listing and reading, at each level of their path."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pytest

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.spec.source_spec import SourceSpec
from mm_resources.objects.local_files import open_regular_file
from mm_resources.sources import open_source


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    inside, outside = tmp_path / "in", tmp_path / "out"
    (inside / "sub").mkdir(parents=True)
    (outside / "sub").mkdir(parents=True)
    for folder, text in ((inside, "inside"), (outside, "outside")):
        (folder / "sub" / "a.txt").write_text(text)
        os.utime(folder / "sub" / "a.txt", ns=(10**18, 10**18))
    return inside, outside


def replace(path: Path, target: Path) -> None:
    path.rename(path.with_name(f"{path.name}.before"))
    path.symlink_to(target)


@pytest.mark.parametrize("part", ["sub/a.txt", "sub"])
@pytest.mark.parametrize("blobs", ["copy", "reference"])
def test_a_path_that_becomes_a_link_is_not_followed(places: tuple[Path, Path], part: str, blobs: str) -> None:
    inside, outside = places
    source = open_source(SourceSpec(name="s", modality="text", uri=str(inside), blobs=blobs), {})
    (item,) = source.list()
    assert source.fetch(item.uri, item.locator) == b"inside"
    replace(inside / part, outside / part)
    for read in (source.fetch, source.open):  # type: ignore[attr-defined]
        with pytest.raises(SampleError) as caught:
            read(item.uri, item.locator)
        assert caught.value.error_class == "path_escape"


def test_links_inside_the_folder_are_followed(places: tuple[Path, Path]) -> None:
    inside, _ = places
    (inside / "b.txt").symlink_to(inside / "sub" / "a.txt")
    (inside / "c.txt").symlink_to("sub/a.txt")
    source = open_source(SourceSpec(name="s", modality="text", uri=str(inside)), {})
    assert {item.key: source.fetch(item.uri, item.locator) for item in source.list()} == {
        key: b"inside" for key in ("b.txt", "c.txt", "sub/a.txt")
    }


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.arrow", "t.parquet"])
def test_a_table_that_becomes_a_link_is_not_read(places: tuple[Path, Path], name: str) -> None:
    import pyarrow.parquet as parquet

    inside, outside = places
    table = pa.table({"text": ["a secret"]})
    (outside / "t.csv").write_text("text\na secret\n")
    (outside / "t.jsonl").write_text('{"text": "a secret"}\n')
    parquet.write_table(table, outside / "t.parquet")
    with pa.OSFile(str(outside / "t.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    (inside / name).write_bytes((outside / name).read_bytes())
    source = open_source(
        SourceSpec(name="s", modality="text", uri=str(inside / name), record={"text": "text"}), {}
    )
    (item,) = source.list()
    fresh = open_source(source.spec, {})
    assert fresh.fetch(item.uri, item.locator) == b"a secret"
    replace(inside / name, outside / name)
    with pytest.raises(SampleError) as caught:
        open_source(source.spec, {}).fetch(item.uri, item.locator)
    assert caught.value.error_class == "path_escape"


def test_a_link_that_appears_behind_the_check_is_not_followed(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The path is replaced between its resolution and its opening."""
    inside, outside = places
    real = os.path.realpath

    def swap(path: str) -> str:
        found = real(path)
        if (inside / "sub").is_dir() and not (inside / "sub").is_symlink():
            replace(inside / "sub", outside / "sub")
        return found

    monkeypatch.setattr(os.path, "realpath", swap)
    with pytest.raises(SampleError) as caught:
        open_regular_file(str(inside / "sub" / "a.txt"), str(inside))
    assert caught.value.error_class == "path_escape"


def test_no_handle_is_left(places: tuple[Path, Path]) -> None:
    inside, outside = places
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        stream, size = open_regular_file(str(inside / "sub" / "a.txt"), str(inside))
        assert size == len(stream.read())
        stream.close()
        for path in (outside / "sub" / "a.txt", inside / "absent"):
            with pytest.raises((SampleError, FileNotFoundError)):
                open_regular_file(str(path), str(inside))
        with pytest.raises((SampleError, OSError)):
            open_regular_file(str(inside / "sub"), str(inside))
    assert len(os.listdir("/proc/self/fd")) == before
