"""Specs drafted from folders of archives and lists: what they say, and that they list what is there."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from mm_assets.spec_drafts.contents import LITTER as LITTER_CAUSE
from mm_assets.spec_drafts.contents import MISNAMED, WILL_FAIL
from mm_assets.spec_drafts.folder import SCHEMA_FILE, draft_spec
from mm_embed_kernels.errors import UserError
from mm_embed_kernels.spec.dataset_spec import parse_spec
from mm_resources.sources import open_source


def drafted(folder: Path) -> tuple[list[dict[str, Any]], dict[str, list[str]], dict[str, str]]:
    """Sources as written, keys that each lists by its name, and what is skipped."""
    draft = draft_spec(folder, "mine", "v1", folder)
    spec = parse_spec(draft.yaml, "draft", str(folder))
    listed = {
        source.name: [item.key for item in open_source(source, dict(spec.schema_)).list()]
        for source in spec.sources
    }
    sources: list[dict[str, Any]] = yaml.safe_load(draft.yaml)["sources"]
    return sources, listed, draft.skipped


def test_archives(tmp_path: Path) -> None:
    for shard in range(2):
        with tarfile.open(tmp_path / f"shard-{shard:04d}.tar", "w") as archive:
            for name, data in (
                (f"{shard}.jpg", b"\xff\xd8\xff"),
                (f"{shard}.txt", b"a cat"),
                (f"{shard}.json", b"{}"),
            ):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    with zipfile.ZipFile(tmp_path / "scans [1].zip", "w") as archive:
        archive.writestr("cats/1.jpg", b"\xff\xd8\xff")
        archive.writestr("dogs/2.png", b"\x89PNG")
    (tmp_path / "broken.zip").write_bytes(b"PK\x03\x04")
    sources, listed, skipped = drafted(tmp_path)
    assert [(source["modality"], source["members"]) for source in sources] == [
        ("image", "**/*{.jpg,.png}"), ("image", "**/*.jpg"), ("text", "**/*.txt"),
    ]  # fmt: skip
    assert list(listed.values()) == [
        ["scans [1].zip/cats/1.jpg", "scans [1].zip/dogs/2.png"], ["shard-0000.tar/0.jpg", "shard-0001.tar/1.jpg"],
        ["shard-0000.tar/0.txt", "shard-0001.tar/1.txt"],
    ]  # fmt: skip
    assert "File is not a zip file" in skipped["broken.zip"]


def test_a_list_of_urls(tmp_path: Path) -> None:
    rows = [
        {
            "id": i,
            "image_url": f"https://example.org/{i}.jpg?size=big",
            "caption": f"A caption that is long enough, {i}",
        }
        for i in range(5)
    ]
    (tmp_path / "list.jsonl.gz").write_bytes(
        gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode())
    )
    draft = draft_spec(tmp_path, "mine", "v1", tmp_path)
    spec = yaml.safe_load(draft.yaml)
    assert spec["sources"] == [
        {
            "name": "list",
            "modality": "image",
            "uri": "list.jsonl.gz",
            "record": {"url": "image_url", "id": "id"},
        }
    ]
    assert spec["schema"] == {"caption": "string"}


def test_a_compressed_table_of_texts(tmp_path: Path) -> None:
    (tmp_path / "texts.csv.gz").write_bytes(gzip.compress(b"text\n" + b"a sentence of some length\n" * 3))
    sources, listed, _ = drafted(tmp_path)
    assert [(source["name"], source["record"]) for source in sources] == [("texts", {"text": "text"})]
    assert len(listed["texts"]) == 3


def write(folder: Path, **files: bytes) -> None:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF"
LITTER = [
    "Amsel/Thumbs.db", "desktop.ini", "~$notes.docx", "__MACOSX/Amsel/note.txt", "Amsel/IMG.jpg.part", "@eaDir/a.jpg",
]  # fmt: skip


def test_what_systems_strew_is_left_out_and_named(tmp_path: Path) -> None:
    write(tmp_path, **{name: b"hello there\n" for name in LITTER})
    write(
        tmp_path,
        **{f"Amsel/IMG {i}.JPG": JPEG for i in range(3)},
        **{f"n{i}.TXT": b"a note\n" for i in range(4)},
    )
    write(
        tmp_path,
        **{".DS_Store": b"x", "notes.docx": b"PK\x03\x04", "a.json": b"[]", "run.sh": b"ls\n", "0.jpg": b""},
    )
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (tmp_path / "again").symlink_to(tmp_path)
    draft = draft_spec(tmp_path, "mine", "v1", tmp_path)
    assert {cause: sorted(keys) for cause, keys in draft.left_out.items()} == {
        LITTER_CAUSE: sorted(LITTER),
        "names that begin with a dot": [".DS_Store"],
        "links to a folder, to nothing, or out of the folder: not followed": ["again", "gone.jpg"],
        "no modality reads them": ["notes.docx"],
        "matched by name, will fail: empty, or not what the name says": ["0.jpg"],
        "for programs, not for readers": ["run.sh"],
        "JSON, of which lines are read: one object a line, in a file .jsonl": ["a.json"],
    }
    images, texts = yaml.safe_load(draft.yaml)["sources"]
    assert (images["uri"], images["exclude"]) == ("**/*.jpg", ["@eaDir"])
    assert (texts["uri"], texts["exclude"]) == ("**/*.txt", ["__MACOSX"])
    _, listed, _ = drafted(tmp_path)
    assert [key for key in listed["images"] if key.endswith(".JPG")] == [
        f"Amsel/IMG {i}.JPG" for i in range(3)
    ]
    assert [key for key in listed["texts"] if key != "again"] == [f"n{i}.TXT" for i in range(4)]


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("Meine Vögel", "Meine-Voegel"), ("Vo\u0308gel", "Voegel"), ("Łódź été", "Lodz-ete"), ("Птицы", "Ptitsy"),
        ("Ωκεανός", "Okeanos"), ("ØRE & más", "OeRE-mas"), ("鳥", "dataset"),
    ],
)  # fmt: skip
def test_names_are_spelled_in_ascii(tmp_path: Path, folder: str, name: str) -> None:
    write(tmp_path / folder, **{"a.txt": b"a text\n"})
    assert yaml.safe_load(draft_spec(tmp_path / folder, "", "v1", tmp_path).yaml)["name"] == name


def test_side_tables_by_the_ends_of_paths_and_texts_that_link(tmp_path: Path) -> None:
    write(tmp_path, **{f"cats/{i}.JPG": JPEG for i in range(4)})
    paths = "".join(f"/mnt/disk/zoo/cats/{i}.JPG;{i}\n" for i in range(4))
    captions = "".join(f"cats/{i}.JPG,a cat sits on wall number {i},{i}\n" for i in range(2))
    write(
        tmp_path,
        **{"sizes.csv": f"path;size\n{paths}".encode(), "texts.csv": f"file,caption,n\n{captions}".encode()},
    )
    sources, _, skipped = drafted(tmp_path)
    assert [(source["name"], source.get("record"), source.get("table")) for source in sources] == [
        ("texts", {"text": "caption", "link": "file"}, None),
        ("images", None, {"uri": "sizes.csv", "key": "path", "columns": ["size"]}),
    ]
    assert list(skipped) == ["texts.csv"]
    assert "one side table" in skipped["texts.csv"]


def test_a_spec_names_the_schema_that_editors_read(tmp_path: Path) -> None:
    write(tmp_path, **{"a.txt": b"a text\n"})
    first = draft_spec(tmp_path, "", "v1", tmp_path).yaml.splitlines()[0]
    assert first == f"# yaml-language-server: $schema={SCHEMA_FILE}"


def test_nothing_that_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"no")
    with pytest.raises(
        UserError, match=r"holds no media and no table with a text column; a\.zip: .*File is not a zip file"
    ):
        draft_spec(tmp_path, "", "v1", tmp_path)


def test_columns_that_are_no_labels_and_numbers_that_are_missing(tmp_path: Path) -> None:
    rows = [{"text": f"a sentence about herons {i}", "label": ["x"], "stars": float("nan")} for i in range(3)]
    (tmp_path / "t.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in [*rows, {**rows[0], "stars": 2}])
    )
    draft = yaml.safe_load(draft_spec(tmp_path, "mine", "v1", tmp_path).yaml)
    assert draft["sources"][0]["record"] == {"text": "text"}
    assert draft["schema"] == {"stars": "int"}


def test_a_table_that_is_not_utf8_is_left_out_by_name(tmp_path: Path) -> None:
    for i in range(4):
        (tmp_path / f"Bild {i}.JPG").write_bytes(b"\xff\xd8\xff" + bytes([i]))
    rows = "".join(f"Bild {i}.JPG;Müll\n" for i in range(4))
    (tmp_path / "Bilder.csv").write_bytes(f"Datei;Motiv\n{rows}".encode("cp1252"))
    sources, _, skipped = drafted(tmp_path)
    assert ["table" in source for source in sources] == [False]
    assert skipped == {
        "Bilder.csv": "has 4 of 4 rows that cannot be read: a row is not UTF-8; save it as UTF-8"
    }
    (tmp_path / "Bilder.csv").write_text(f"Datei;Motiv\n{rows}", "utf-8-sig")
    sources, _, skipped = drafted(tmp_path)
    assert (sources[0]["table"]["key"], skipped) == ("Datei", {})


def test_a_film_whose_ending_a_picture_has_is_no_stray(tmp_path: Path) -> None:
    for i in range(60):
        (tmp_path / f"{i}.jpg").write_bytes(b"\xff\xd8\xff" + bytes([i]))
    (tmp_path / "README.txt").write_text("These are pictures of a summer.")
    (tmp_path / "picture.mp4").write_bytes(b"\xff\xd8\xff")
    (tmp_path / "film.mp4").write_bytes(b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41")
    sources, listed, _ = drafted(tmp_path)
    assert [(source["modality"], source["uri"]) for source in sources] == [
        ("image", "**/*.jpg"),
        ("auto", "**/*.mp4"),
    ]
    assert listed["mixed"] == ["film.mp4", "picture.mp4"]


def test_a_text_under_the_name_of_a_picture_is_no_text(tmp_path: Path) -> None:
    """A web page that was saved as a picture changes neither the source of pictures nor makes one of texts."""
    for i in range(3):
        (tmp_path / f"{i}.jpg").write_bytes(b"\xff\xd8\xff" + bytes([i]))
    (tmp_path / "gone.JPG").write_text("<!doctype html><title>404</title> Not found: this picture is gone.")
    draft = draft_spec(tmp_path, "mine", "v1", tmp_path)
    (source,) = yaml.safe_load(draft.yaml)["sources"]
    assert (source["modality"], source["uri"]) == ("image", "**/*.jpg")
    assert draft.left_out == {WILL_FAIL: ["gone.JPG"]}
    # Alone it is named, too.
    for i in range(3):
        (tmp_path / f"{i}.jpg").rename(tmp_path / f"{i}.png")
    assert draft_spec(tmp_path, "mine", "v1", tmp_path).left_out == {MISNAMED: ["gone.JPG"]}
