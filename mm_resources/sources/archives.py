"""Members of tar and zip archives, by glob over several shards.

Python's own readers are safe with memory, so that archives nobody vouches for may be read in this process, as long as
what they ask for is bounded: no single read of theirs is larger than a header may be, nothing is unpacked to disk under a
member's name, and a member is read up to the size that was listed and no further.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, partial
from typing import Any, BinaryIO, cast

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.spec import SourceSpec
from mm_resources.blobs import LARGE_BYTES
from mm_resources.sources.base import Listed, typed
from mm_resources.sources.files import Files, alternatives, asks_for_dots, glob_regex
from mm_resources.sources.objects import unopened
from mm_resources.sources.records import Keys
from mm_resources.sources.streams import BOMB_RATIO, unpacked, without_compression

_TAR = (".tar", ".tgz", ".tbz2", ".txz", ".tzst")
_ZIP = (".zip",)
# Parts of a WebDataset sample that say something of the others.
_DESCRIBING = ("json", "cls", "txt")
_DESCRIPTION_BYTES = 1 << 20
# What a reader may ask for at once: a tar's extended header; a zip's table, which it holds (some 300,000 members).
_TAR_HEADER, _ZIP_TABLE = 1 << 20, 32 << 20
# Members of one stem that are looked at together, and how large one may be that unpacks to many times its size.
_MOST_PARTS, _BOMB_BYTES = 1_000, 16 << 20


@dataclass
class _Member:
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


class Archives(Files):
    """``uri`` is a tar (also .gz, .bz2, .xz, .zst) or zip, or a glob over several; ``members`` is a glob over what is in them.

    A member's key is its archive's key and its path. Members with one stem share an entity, and take label and columns from
    their parts ``.json`` (an object of the spec's columns, and `label`), ``.cls`` (the label) and ``.txt`` (the column `txt`; of
    sounds, the transcript).
    """

    name = "archives"
    whole = False

    @classmethod
    def accepts(cls, spec: SourceSpec) -> bool:
        return super().accepts(spec) and all(_kind(each) for each in alternatives(spec.uri))

    def objects(self) -> Iterator[tuple[str, str]]:
        return ((item.uri, item.tag) for item in super()._walk())

    def tag(self, uri: str, locator: str) -> str | None:
        return self.reach.tag(uri)

    @property
    def flavour(self) -> str:
        return self.name

    def _walk(self) -> Iterator[Listed]:
        keys = Keys()
        for archive in super()._walk():
            if archive.error is None and archive.locator:
                archive.error = SampleError("bad_name", f"{archive.uri}: an archive needs a name that is UTF-8; rename it")
            if archive.error is None and _kind(archive.uri) is None:
                archive.error = SampleError("bad_archive", f"{archive.uri} is by its ending neither tar nor zip")
            if archive.error is not None:
                yield archive
                continue
            for item in self._listed(archive):
                keys.make_unique(item, declared=True)
                yield item

    def _listed(self, archive: Listed) -> Iterator[Listed]:
        """The samples of one archive. What was read of it stands when it cannot be read on; the rest is one failed sample."""
        held: list[_Member] = []
        try:
            for member in self._members(archive.uri):
                if held and (member.stem != held[0].stem or len(held) >= _MOST_PARTS):
                    yield from self._described(archive, held)
                    held = []
                held.append(member)
        except SampleError as error:
            archive.error = error
        yield from self._described(archive, held)
        if archive.error is not None:
            yield archive

    def _described(self, archive: Listed, parts: list[_Member]) -> Iterator[Listed]:
        wanted = [member for member in parts if self._is_wanted(member)]
        facts, problem = _facts(parts)
        for member in wanted:
            item = Listed(
                key=f"{archive.key}/{member.name}",
                uri=archive.uri,
                locator=member.locator,
                tag=archive.tag,
                size=member.size,
                modified_at=member.modified_at,
                link=f"{archive.key}/{member.stem}",
                error=member.error or problem,
            )
            if item.error is None and member.size > self.spec.fetch.max_bytes:
                item.error = SampleError("too_large", f"{item.key} is larger than fetch.max_bytes, {self.spec.fetch.max_bytes:,}")
            self._take(item, facts)
            yield item

    def _take(self, item: Listed, facts: dict[str, Any]) -> None:
        """Label, transcript and the declared columns, from what the other parts say."""
        label, transcript = facts.get("label", facts.get("cls")), facts.get("transcript")
        if transcript is None and self.spec.modality == "audio":
            transcript = facts.get("txt")
        item.label, item.transcript = (None if value in (None, "") else str(value) for value in (label, transcript))
        try:
            item.columns = {name: typed(facts[name], kind) for name, kind in self.schema.items() if name in facts and name != "label"}
            for text in (item.label, item.transcript):
                (text or "").encode()
        except UnicodeEncodeError:
            item.label = item.transcript = None
            item.error = item.error or SampleError("encoding_unknown", "a part that describes the sample holds unpaired surrogates")
        except SampleError as error:
            item.error = item.error or error

    def _is_wanted(self, member: _Member) -> bool:
        if self._named is None:
            hidden = "/." in f"/{member.name}"
            return member.error is not None or not (hidden or self._describes(member))
        return bool(self._named.match(member.name)) and (asks_for_dots(self.spec.members) or "/." not in f"/{member.name}")

    @cached_property
    def _named(self) -> re.Pattern[str] | None:
        return None if self.spec.members is None else glob_regex(self.spec.members)

    def _describes(self, member: _Member) -> bool:
        return member.part in _DESCRIBING and not (self.spec.modality == "text" and member.part == "txt")

    # -- reading

    def _members(self, uri: str) -> Iterator[_Member]:
        """The members of one archive, in order; those of one stem one behind the other.

        Raises:
            SampleError: ``truncated``, ``bad_archive`` or ``decompression_bomb``, when it cannot be read, or not to its end.
        """
        read = _zip_members if _kind(uri) == "zip" else _tar_members
        try:
            with self._stream(uri) as stream:
                yield from read(stream, uri, self._describes)
        except SampleError:
            raise
        except (EOFError, tarfile.ReadError, zipfile.BadZipFile) as error:
            cut = isinstance(error, EOFError) or "end of data" in str(error) or "truncated" in str(error)
            raise SampleError("truncated" if cut else "bad_archive", f"{uri}: {error or 'ends in the middle'}") from error
        except OSError as error:
            if error.errno is not None:
                raise unopened(uri, error) from error
            raise SampleError("bad_archive", f"{uri}: {error}") from error
        except Exception as error:
            raise SampleError("bad_archive", f"{uri}: {type(error).__name__}: {error}") from error

    def _stream(self, uri: str) -> BinaryIO:
        name = re.sub(r"\.t(gz|bz2|xz|zst)$", r".tar.\1", uri, flags=re.IGNORECASE)
        return unpacked(name, partial(self.reach.open, uri))

    def fetch(self, uri: str, locator: str) -> bytes | BinaryIO:
        try:
            if _kind(uri) == "zip":
                return self._zipped(uri, int(locator))
            start, size = (int(part) for part in locator.split("+"))
            stream = self._held(uri)
            stream.seek(start)
            return _copied(stream, size, f"a member of {uri}")
        except SampleError:
            raise
        except OSError as error:
            raise unopened(uri, error) from error

    def open(self, uri: str, locator: str) -> BinaryIO:
        found = self.fetch(uri, locator)
        return io.BytesIO(found) if isinstance(found, bytes) else found

    def _zipped(self, uri: str, number: int) -> bytes | BinaryIO:
        archive = cast(zipfile.ZipFile, self._held(uri))
        try:
            info = archive.infolist()[number]
            if info.file_size > self.spec.fetch.max_bytes:
                raise SampleError("too_large", f"{info.filename!r} in {uri} is larger than fetch.max_bytes")
            with archive.open(info) as stream:
                return _copied(cast(BinaryIO, stream), info.file_size, f"{info.filename!r} in {uri}")
        except IndexError:
            raise SampleError("source_changed", f"{uri} was listed with {number + 1} members and has fewer now") from None
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise SampleError("bad_archive", f"{uri}: {error}") from error
        except (NotImplementedError, RuntimeError) as error:  # a method of compression, or of encryption, that Python lacks
            raise SampleError("unsupported_member", f"{uri}: {error}") from error

    def _held(self, uri: str) -> Any:
        """The archive, opened once: a batch's members mostly lie in one, one behind the other."""
        opened: dict[str, Any] = self.__dict__.setdefault("_opened", {})
        if uri not in opened:
            for other in opened.values():
                other.close()
            opened.clear()
            stream = self._stream(uri)
            opened[uri] = zipfile.ZipFile(cast(Any, _Bounded(stream, _ZIP_TABLE))) if _kind(uri) == "zip" else stream
        return opened[uri]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_opened"}


def _kind(uri: str) -> str | None:
    name = uri.lower()
    if name.endswith(_ZIP):
        return "zip"
    return "tar" if without_compression(name).endswith(_TAR) else None


def _tar_members(stream: BinaryIO, uri: str, describes: Callable[[_Member], bool]) -> Iterator[_Member]:
    bounded = _Bounded(stream, _TAR_HEADER)
    with tarfile.open(fileobj=cast(Any, bounded), mode="r:", errors="surrogateescape") as archive:
        while (info := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]  # would hold all that was seen
            if info.isdir():
                continue
            member = _Member(_printable(info.name), f"{info.offset_data}+{info.size}", info.size, _time(info.mtime))
            member.error = _misleading(member.name)
            if info.issym() or info.islnk():
                member.error = SampleError("linked_member", f"{member.name} in {uri} is a link; only regular members are samples")
            elif not info.isreg() or info.sparse is not None:
                member.error = SampleError("not_a_file", f"{member.name} in {uri} is a device, pipe or sparse file")
            if member.error is None and describes(member):
                stream.seek(info.offset_data)
                member.content = _description(member, stream)
            yield member
        # Of damage between two members the reader says no more than of the end.
        if bounded.latest.strip(b"\0"):
            cut = len(bounded.latest) < tarfile.BLOCKSIZE
            raise SampleError("truncated" if cut else "bad_archive", f"{uri}: after its last good member comes neither another nor the end")


def _zip_members(stream: BinaryIO, uri: str, describes: Callable[[_Member], bool]) -> Iterator[_Member]:
    with zipfile.ZipFile(cast(Any, _Bounded(stream, _ZIP_TABLE))) as archive:
        found = [(info, _Member(_printable(info.filename), str(i), info.file_size)) for i, info in enumerate(archive.infolist())]
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
                    member.content = _undescribed(member, error)
            yield member


def _description(member: _Member, stream: BinaryIO) -> bytes | SampleError:
    if member.size > _DESCRIPTION_BYTES:
        return _undescribed(member, f"it is larger than {_DESCRIPTION_BYTES:,} bytes")
    return stream.read(member.size)


def _undescribed(member: _Member, cause: object) -> SampleError:
    return SampleError("bad_record", f"{member.name}, which describes the sample, cannot be read: {cause}")


def _refused(info: zipfile.ZipInfo, uri: str) -> SampleError | None:
    where = f"{_printable(info.filename)} in {uri}"
    if info.flag_bits & 0x1:
        return SampleError("encrypted", f"{where} is encrypted")
    if (info.external_attr >> 16) & 0o170000 == 0o120000:
        return SampleError("linked_member", f"{where} is a link; only regular members are samples")
    if info.file_size > max(_BOMB_BYTES, BOMB_RATIO * info.compress_size):
        return SampleError("decompression_bomb", f"{where} says that it unpacks to more than {BOMB_RATIO} times its size")
    return None


def _misleading(name: str) -> SampleError | None:
    """Nothing is written where a member's name leads; but who names it so has something in mind."""
    if name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", name) or ".." in re.split(r"[/\\]", name):
        return SampleError("path_escape", f"a member is called {name}, which leads outside of its archive")
    if _kind(name) is not None:
        return SampleError("nested_archive", f"{name} is an archive in an archive; unpack it, and name it as a source of its own")
    return None


def _facts(parts: list[_Member]) -> tuple[dict[str, Any], SampleError | None]:
    """What the describing parts say, and which of them cannot be read."""
    found: dict[str, Any] = {}
    problem = None
    for member in parts:
        if isinstance(member.content, SampleError):
            problem = member.content
        elif member.content is not None:
            try:
                text = member.content.decode("utf-8")
                described = json.loads(text) if member.part == "json" else {member.part: text.strip()}
                found |= {name: value for name, value in described.items() if name not in found} if isinstance(described, dict) else {}
            except (ValueError, RecursionError) as error:
                problem = _undescribed(member, error)
    return found, problem


def _copied(stream: BinaryIO, size: int, what: str) -> bytes | BinaryIO:
    """So many bytes of a stream, or a temporary file with them where they are many."""
    if size <= LARGE_BYTES:
        data = stream.read(size)
        if len(data) < size:
            raise SampleError("truncated", f"{what} has {len(data):,} of {size:,} bytes: the archive is cut off")
        return data
    spool, left = tempfile.TemporaryFile(), size  # noqa: SIM115 - for the caller to close
    try:
        while left and (part := stream.read(min(left, LARGE_BYTES))):
            spool.write(part)
            left -= len(part)
        if left:
            raise SampleError("truncated", f"{what} has {size - left:,} of {size:,} bytes: the archive is cut off")
    except BaseException:
        spool.close()
        raise
    spool.seek(0)
    return cast(BinaryIO, spool)


def _printable(name: str) -> str:
    return name.removeprefix("./").encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _time(seconds: float) -> datetime | None:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None


class _Bounded:
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
