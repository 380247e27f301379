"""Members of tar and zip archives, listed by Python's own readers with bounded memory."""

from __future__ import annotations

import hashlib
import lzma
import re
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, BinaryIO, cast

from mm_embed_kernels.errors import SampleError
from mm_resources.objects.compressed_streams import BOMB_RATIO, uncompressed_name
from mm_resources.objects.local_files import printable_path

# What zipfile raises for a member that is damaged, or packed by a method that it lacks.
_ZIP_DAMAGE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, ValueError, RuntimeError)
_TAR = (".tar", ".tgz", ".tbz2", ".txz", ".tzst")
_ZIP = (".zip",)
# Largest part that describes a sample.
_DESCRIPTION_BYTES = 1 << 20
# Largest member that may unpack to many times its size.
_BOMB_BYTES = 16 << 20
# Bytes of one read of a content.
_PART = 1 << 20
# Largest single read: a tar's extended header; a zip's table, which its reader holds (some 300,000 members).
_TAR_HEADER, _ZIP_TABLE = 1 << 20, 32 << 20


@dataclass
class Member:
    """A member of an archive.

    Attributes:
        locator: of its content in the archive: ``offset+size`` in a tar, the member's number in a zip.
        error: why it cannot be a sample.
        content: of a part that describes the others of its stem, or why that cannot be read.
        content_hash: sha256 of its content; "" where that was not read.
    """

    name: str
    locator: str
    size: int
    modified_at: datetime | None = None
    error: SampleError | None = None
    content: bytes | SampleError | None = None
    content_hash: str = ""

    @property
    def stem(self) -> str:
        """The path up to the first dot of the file's name, which the parts of a sample share (WebDataset)."""
        folder, _, name = self.name.rpartition("/")
        return f"{folder}/{name.partition('.')[0]}" if folder else name.partition(".")[0]

    @property
    def part(self) -> str:
        """The rest of the name after the stem, such as ``jpg`` or ``seg.png``."""
        return self.name.rpartition("/")[2].partition(".")[2].lower()


def archive_kind(uri: str) -> str | None:
    """Return ``tar`` or ``zip`` by the ending, else None."""
    name = uri.lower()
    if name.endswith(_ZIP):
        return "zip"
    return "tar" if uncompressed_name(name).endswith(_TAR) else None


def tar_members(
    stream: BinaryIO, uri: str, describes: Callable[[Member], bool], hashes: Callable[[Member], bool]
) -> Iterator[Member]:
    """Yield the members of an unpacked tar, in order.

    Args:
        describes: whether a member describes others, so that its content is read.
        hashes: whether the hash of a member's content is wanted.

    Raises:
        SampleError: ``truncated`` or ``bad_archive``.
        tarfile.ReadError, OSError: when the archive cannot be read.
    """
    bounded = _BoundedStream(stream, _TAR_HEADER, counts=True)
    try:
        with tarfile.open(fileobj=cast(Any, bounded), mode="r:", errors="surrogateescape") as archive:
            while (info := archive.next()) is not None:
                bounded.begin_member()
                archive.members = []  # type: ignore[attr-defined]  # or it would hold all members
                if info.isdir() or _is_marker(info.name, info.size):
                    continue
                member = _tar_member(info, uri)
                if member.error is None and describes(member):
                    stream.seek(info.offset_data)
                    member.content = _read_description(member, stream)
                if member.error is None and hashes(member):
                    stream.seek(info.offset_data)
                    try:
                        member.content_hash = _hash_content(stream, member.size)
                    except SampleError:
                        yield member  # whose header is whole; fetching it meets the same error
                        raise
                yield member
    except tarfile.ReadError as error:
        if bounded.is_cut_off:
            raise SampleError("truncated", f"{uri}: {error}") from error
        raise
    # Damage between two members looks to the reader like the end.
    if bounded.last_read.strip(b"\0"):
        is_cut = len(bounded.last_read) < tarfile.BLOCKSIZE
        raise SampleError(
            "truncated" if is_cut else "bad_archive",
            f"{uri}: after its last good member comes neither another nor the end",
        )


def _tar_member(info: tarfile.TarInfo, uri: str) -> Member:
    name, locator = _member_name(info.name), f"{info.offset_data}+{info.size}"
    member = Member(name, locator, info.size, _time(info.mtime), _name_error(name))
    if info.issym() or info.islnk():
        member.error = _link_error(name, uri)
    elif not info.isreg() or info.sparse is not None:
        member.error = SampleError("not_a_file", f"{name} in {uri} is a device, pipe or sparse file")
    return member


def zip_members(
    stream: BinaryIO, uri: str, describes: Callable[[Member], bool], hashes: Callable[[Member], bool]
) -> Iterator[Member]:
    """Yield the members of a zip, sorted by stem; arguments as of `tar_members`.

    Raises:
        zipfile.BadZipFile, EOFError, OSError: when the archive cannot be read.
    """
    with open_zip(stream) as archive:
        members = [
            (info, Member(_member_name(info.filename), str(i), info.file_size))
            for i, info in enumerate(archive.infolist())
        ]
        for info, member in sorted(members, key=lambda pair: pair[1].stem):
            if info.is_dir() or _is_marker(info.filename, info.file_size):
                continue
            with suppress(ValueError):
                member.modified_at = datetime(*info.date_time, tzinfo=UTC)
            member.error = _name_error(member.name) or _zip_error(info, uri)
            if member.error is None and describes(member):
                try:
                    with archive.open(info) as part:
                        member.content = _read_description(member, cast(BinaryIO, part))
                except Exception as error:  # noqa: BLE001 - of any decoder; the samples of this stem fail
                    member.content = description_error(member, error)
            if member.error is None and hashes(member):
                # A member that cannot be unpacked is known by its place, and fetching it says why.
                with suppress(*_ZIP_DAMAGE), archive.open(info) as part:
                    member.content_hash = _hash_content(cast(BinaryIO, part), member.size)
            yield member


def _hash_content(stream: BinaryIO, size: int) -> str:
    """Return the sha256 of the next bytes of a stream, hex; "" where it ends before."""
    state, left = hashlib.sha256(), size
    while left:
        # The last byte alone: the reader of a tar steps back to it, which must not unpack from the start.
        part = stream.read(min(left - 1, _PART) or 1)
        if not part:
            return ""
        state.update(part)
        left -= len(part)
    return state.hexdigest()


def open_zip(stream: BinaryIO) -> zipfile.ZipFile:
    """Open a zip whose table has at most 32 MiB.

    Raises:
        SampleError: ``bad_archive``, for a larger table.
        zipfile.BadZipFile, OSError: when the archive cannot be read.
    """
    return zipfile.ZipFile(cast(Any, _BoundedStream(stream, _ZIP_TABLE)))


def _read_description(member: Member, stream: BinaryIO) -> bytes | SampleError:
    if member.size > _DESCRIPTION_BYTES:
        return description_error(member, f"it is larger than {_DESCRIPTION_BYTES:,} bytes")
    return stream.read(member.size)


def description_error(member: Member, cause: object) -> SampleError:
    """Return the error of samples whose description cannot be read."""
    return SampleError("bad_record", f"{member.name}, which describes the sample, cannot be read: {cause}")


def _link_error(name: str, uri: str) -> SampleError:
    return SampleError("linked_member", f"{name} in {uri} is a link; only regular members are samples")


def _zip_error(info: zipfile.ZipInfo, uri: str) -> SampleError | None:
    name = _member_name(info.filename)
    if info.flag_bits & 0x1:
        return SampleError("encrypted", f"{name} in {uri} is encrypted")
    if (info.external_attr >> 16) & 0o170000 == 0o120000:
        return _link_error(name, uri)
    if info.file_size > max(_BOMB_BYTES, BOMB_RATIO * info.compress_size):
        return SampleError(
            "decompression_bomb",
            f"{name} in {uri} says that it unpacks to more than {BOMB_RATIO} times its size",
        )
    return None


def _name_error(name: str) -> SampleError | None:
    """Return the error of an inner archive, or of a name that leads outside (no file is named by it)."""
    if name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", name) or ".." in re.split(r"[/\\]", name):
        return SampleError("path_escape", f"a member is called {name}, which leads outside of its archive")
    if archive_kind(name) is not None:
        return SampleError(
            "nested_archive",
            f"{name} is an archive in an archive; unpack it, and name it as a source of its own",
        )
    return None


def _is_marker(name: str, size: int) -> bool:
    """Return whether an empty member is named as a folder; some Windows programs write a backslash."""
    return not size and name.endswith(("/", "\\"))


def _member_name(name: str) -> str:
    return printable_path(name.removeprefix("./"))


def _time(seconds: float) -> datetime | None:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None


class _BoundedStream:
    """A stream that refuses larger reads than the reader of a sound archive makes.

    Args:
        most: bytes of one read.
        counts: whether the reads of one member are counted together.

    Attributes:
        last_read: bytes of the last read.
    """

    def __init__(self, stream: BinaryIO, most: int, counts: bool = False) -> None:
        self._stream, self._most = stream, most
        self.last_read, self._requested = b"", 0
        self._read = 0
        # Several headers in a row are rare, and a zip's table is read beside single members.
        self._in_all = 4 * most if counts else sys.maxsize

    def begin_member(self) -> None:
        """Begin another member, whose headers may have as many bytes again."""
        self._read = 0

    def read(self, size: int = -1) -> bytes:
        """Read at most `size` bytes, and at most the bound; of one member, in all of its headers.

        Raises:
            SampleError: ``bad_archive``, when there are more bytes than the bound.
        """
        self._requested = min(size, self._most + 1) if size >= 0 else self._most + 1
        self.last_read = self._stream.read(self._requested)
        # A member may have any number of headers, each of which its reader holds.
        self._read += len(self.last_read)
        if len(self.last_read) > self._most or self._read > self._in_all:
            raise SampleError("bad_archive", f"its headers or table are larger than {self._most:,} bytes")
        return self.last_read

    @property
    def is_cut_off(self) -> bool:
        """True if the last read met the end, inside a header or in place of a member's last byte.

        `tarfile` reads this one byte to check that the whole member is there.
        """
        return 0 < len(self.last_read) < self._requested or (self._requested == 1 and not self.last_read)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
