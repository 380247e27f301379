"""TODO."""

from __future__ import annotations

import re
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, BinaryIO, cast

from mm_embed_kernels.errors import SampleError
from mm_resources.objects.compressed_streams import BOMB_RATIO, without_compression

_TAR = (".tar", ".tgz", ".tbz2", ".txz", ".tzst")


_ZIP = (".zip",)


_DESCRIPTION_BYTES = 1 << 20

# How large a member may be that unpacks to many times its size.
_BOMB_BYTES = 16 << 20


# What a reader may ask for at once: a tar's extended header; a zip's table, which it holds (some 300,000 members).
_TAR_HEADER, ZIP_TABLE = 1 << 20, 32 << 20


@dataclass
class Member:
    """A member of an archive: where it lies, why it cannot be a sample, and its content if it describes others."""

    name: str
    locator: str
    size: int
    modified_at: datetime | None = None
    error: SampleError | None = None
    content: bytes | SampleError | None = None

    @property
    def stem(self) -> str:
        """What the parts of one sample share (WebDataset): the path up to the first dot of the file's name."""
        folder, _, name = self.name.rpartition("/")
        return f"{folder}/{name.partition('.')[0]}" if folder else name.partition(".")[0]

    @property
    def part(self) -> str:
        """What follows the stem, such as ``jpg`` or ``seg.png``."""
        return self.name.rpartition("/")[2].partition(".")[2].lower()


def archive_kind(uri: str) -> str | None:
    name = uri.lower()
    if name.endswith(_ZIP):
        return "zip"
    return "tar" if without_compression(name).endswith(_TAR) else None


def tar_members(stream: BinaryIO, uri: str, describes: Callable[[Member], bool]) -> Iterator[Member]:
    bounded = BoundedStream(stream, _TAR_HEADER)
    with tarfile.open(fileobj=cast(Any, bounded), mode="r:", errors="surrogateescape") as archive:
        while (info := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]  # would hold all that was seen
            if info.isdir():
                continue
            member = Member(
                _printable(info.name), f"{info.offset_data}+{info.size}", info.size, _time(info.mtime)
            )
            member.error = _misleading(member.name)
            if info.issym() or info.islnk():
                member.error = SampleError(
                    "linked_member", f"{member.name} in {uri} is a link; only regular members are samples"
                )
            elif not info.isreg() or info.sparse is not None:
                member.error = SampleError(
                    "not_a_file", f"{member.name} in {uri} is a device, pipe or sparse file"
                )
            if member.error is None and describes(member):
                stream.seek(info.offset_data)
                member.content = _description(member, stream)
            yield member
        # Of damage between two members the reader says no more than of the end.
        if bounded.latest.strip(b"\0"):
            cut = len(bounded.latest) < tarfile.BLOCKSIZE
            raise SampleError(
                "truncated" if cut else "bad_archive",
                f"{uri}: after its last good member comes neither another nor the end",
            )


def zip_members(stream: BinaryIO, uri: str, describes: Callable[[Member], bool]) -> Iterator[Member]:
    with zipfile.ZipFile(cast(Any, BoundedStream(stream, ZIP_TABLE))) as archive:
        found = [
            (info, Member(_printable(info.filename), str(i), info.file_size))
            for i, info in enumerate(archive.infolist())
        ]
        for info, member in sorted(found, key=lambda pair: pair[1].stem):
            if info.is_dir():
                continue
            with suppress(ValueError):
                member.modified_at = datetime(*info.date_time, tzinfo=UTC)
            member.error = _misleading(member.name) or _refused(info, uri)
            if member.error is None and describes(member):
                try:
                    with archive.open(info) as part:
                        member.content = _description(member, cast(BinaryIO, part))
                except Exception as error:  # noqa: BLE001 - as in `_members`; it costs the samples that it describes
                    member.content = undescribed(member, error)
            yield member


def _description(member: Member, stream: BinaryIO) -> bytes | SampleError:
    if member.size > _DESCRIPTION_BYTES:
        return undescribed(member, f"it is larger than {_DESCRIPTION_BYTES:,} bytes")
    return stream.read(member.size)


def undescribed(member: Member, cause: object) -> SampleError:
    return SampleError("bad_record", f"{member.name}, which describes the sample, cannot be read: {cause}")


def _refused(info: zipfile.ZipInfo, uri: str) -> SampleError | None:
    where = f"{_printable(info.filename)} in {uri}"
    if info.flag_bits & 0x1:
        return SampleError("encrypted", f"{where} is encrypted")
    if (info.external_attr >> 16) & 0o170000 == 0o120000:
        return SampleError("linked_member", f"{where} is a link; only regular members are samples")
    if info.file_size > max(_BOMB_BYTES, BOMB_RATIO * info.compress_size):
        return SampleError(
            "decompression_bomb", f"{where} says that it unpacks to more than {BOMB_RATIO} times its size"
        )
    return None


def _misleading(name: str) -> SampleError | None:
    """Nothing is written where a member's name leads; but who names it so has something in mind."""
    if name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", name) or ".." in re.split(r"[/\\]", name):
        return SampleError("path_escape", f"a member is called {name}, which leads outside of its archive")
    if archive_kind(name) is not None:
        return SampleError(
            "nested_archive",
            f"{name} is an archive in an archive; unpack it, and name it as a source of its own",
        )
    return None


def _printable(name: str) -> str:
    return name.removeprefix("./").encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _time(seconds: float) -> datetime | None:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None


class BoundedStream:
    """A stream that refuses to be asked for more at once than a sound archive's reader asks for."""

    def __init__(self, stream: BinaryIO, most: int) -> None:
        self._stream, self._most, self.latest = stream, most, b""

    def read(self, size: int = -1) -> bytes:
        self.latest = self._stream.read(min(size, self._most + 1) if size >= 0 else self._most + 1)
        if len(self.latest) > self._most:
            raise SampleError("bad_archive", f"its headers or table are larger than {self._most:,} bytes")
        return self.latest

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
