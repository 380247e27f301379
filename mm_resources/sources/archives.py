"""Members of tar and zip archives, by glob over several shards.

Python's own readers are memory-safe, so that untrusted archives may be read in this process as long as their
reads are bounded: no single read is larger than a header may be, nothing is unpacked to disk under a member's
name, and a member is read up to its listed size and no further.
"""

from __future__ import annotations

import io
import re
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from typing import Any, BinaryIO, cast

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.spec.source_spec import SourceSpec
from mm_resources.objects.compressed_streams import open_unpacked, uncompressed_name
from mm_resources.objects.opener import open_error
from mm_resources.sources.archive_members import Member, archive_kind, open_zip, tar_members, zip_members
from mm_resources.sources.base import Listed, cast_value, text_of
from mm_resources.sources.files import Files
from mm_resources.sources.globs import alternatives, exclusion, glob_regex, is_local, names_dots
from mm_resources.sources.keys import Keys
from mm_resources.sources.member_spool import Description, MemberSpool
from mm_resources.storage.store import LARGE_BYTES

# Parts of a WebDataset sample that describe the others.
_DESCRIBING = ("json", "cls", "txt")


class Archives(Files):
    """Members of archives.

    ``uri`` is a tar (also .gz, .bz2, .xz, .zst) or zip, or a glob over several; ``members`` is a glob over
    the names in them. A member's key is its archive's key and its path. Members with one stem share an
    entity, and take label and columns from their parts ``.json`` (an object of the spec's columns, and
    `label`), ``.cls`` (the label) and ``.txt`` (the column `txt`; of sounds, the transcript), wherever these
    stand in the archive. An archive without samples is one failed sample, beside others that have some.
    """

    name = "archives"
    single_object = False

    @classmethod
    def accepts(cls, spec: SourceSpec) -> bool:
        return super().accepts(spec) and all(archive_kind(each) for each in alternatives(spec.uri))

    def objects(self) -> Iterator[tuple[str, str]]:
        return ((item.uri, item.tag) for item in super()._walk())

    def containers(self) -> Iterator[tuple[str, str]]:
        return ((item.uri, item.tag) for item in super()._walk() if not (item.error or item.locator))

    def tag(self, uri: str, locator: str) -> str | None:  # noqa: ARG002 - the tag is the archive's
        return self.opener.tag(uri)

    @property
    def flavour(self) -> str:
        return self.name

    def _walk(self) -> Iterator[Listed]:
        """Yield samples and failures; a source of nothing but empty archives lists nothing."""
        empty: list[Listed] = []
        items = self._archive_samples()
        for item in items:
            if item.error is not None and item.error.error_class == "empty_archive":
                empty.append(item)
                continue
            yield from empty
            yield item
            yield from items
            return
        if self.spec.allow_empty or self.unread:
            yield from empty

    def _archive_samples(self) -> Iterator[Listed]:
        keys = Keys()
        for archive in super()._walk():
            if archive.error is None and archive.locator:
                archive.error = SampleError(
                    "bad_name", f"{archive.uri}: an archive needs a name that is UTF-8; rename it"
                )
            if archive.error is None and archive_kind(archive.uri) is None:
                archive.error = SampleError(
                    "bad_archive", f"{archive.uri} is by its ending neither tar nor zip"
                )
            if archive.error is not None:
                yield archive
                continue
            if archive.uri in self.unread:
                continue
            is_empty = True
            for item in self._samples(archive):
                is_empty = False
                keys.make_unique(item, declared=True)
                yield item
            if is_empty:
                archive.error = SampleError(
                    "empty_archive",
                    f"{archive.uri} has no member that is a sample"
                    + (f" and matches {self.spec.members}" if self.spec.members else ""),
                )
                yield archive

    def _samples(self, archive: Listed) -> Iterator[Listed]:
        """Yield the samples of one archive; where it cannot be read on, the rest is one failed sample."""
        if self.peeks:
            yield from self._first_sample(archive)
            return
        spool = MemberSpool({*self.schema, "label", "cls", "transcript", "txt"})
        try:
            for member in self.members(archive.uri):
                spool.append(member)
        except SampleError as error:
            archive.error = error
        for member, description in spool:
            if self._is_sample(member):
                yield self._sample(archive, member, description)
        if archive.error is not None:
            yield archive

    def _first_sample(self, archive: Listed) -> Iterator[Listed]:
        """Yield the first sample of an archive, or why none can be read; nothing where it has none."""
        try:
            first = next(filter(self._is_sample, self.members(archive.uri)), None)
        except SampleError as error:
            archive.error = error
            yield archive
            return
        if first is not None:
            yield self._sample(archive, first, Description(()))

    def _sample(self, archive: Listed, member: Member, description: Description) -> Listed:
        """Return a member as a sample, with the fields that the describing parts of its stem give."""
        item = Listed(
            key=f"{archive.key}/{member.name}",
            uri=archive.uri,
            locator=member.locator,
            tag=archive.tag,
            size=member.size,
            modified_at=member.modified_at,
            link=f"{archive.key}/{member.stem}",
            error=member.error or description.problem,
            content_hash=member.content_hash,
        )
        if item.error is None and member.size > self.spec.fetch.max_bytes:
            item.error = SampleError(
                "too_large", f"{item.key} is larger than fetch.max_bytes, {self.spec.fetch.max_bytes:,}"
            )
        self._fill(item, description.fields)
        return item

    def _fill(self, item: Listed, fields: dict[str, Any]) -> None:
        """Set label, transcript and the declared columns."""
        label, transcript = fields.get("label", fields.get("cls")), fields.get("transcript")
        if transcript is None and self.spec.modality == "audio":
            transcript = fields.get("txt")
        try:
            item.label, item.transcript = text_of(label, "label"), text_of(transcript, "transcript")
            item.columns = {
                name: cast_value(fields[name], kind)
                for name, kind in self.schema.items()
                if name in fields and name != "label"
            }
            for text in (item.label, item.transcript):
                (text or "").encode()
        except UnicodeEncodeError:
            item.label = item.transcript = None
            item.error = item.error or SampleError(
                "encoding_unknown", "a part that describes the sample holds unpaired surrogates"
            )
        except SampleError as error:
            item.error = item.error or error

    def _is_sample(self, member: Member) -> bool:
        if self._excludes(member.name):
            return False
        hidden = "/." in f"/{member.name}"
        if self._members_glob is None:
            return member.error is not None or not (hidden or self._describes(member))
        return bool(self._members_glob.match(member.name)) and (names_dots(self.spec.members) or not hidden)

    @cached_property
    def _excludes(self) -> Callable[[str], bool]:
        return exclusion(self.spec.exclude)

    @cached_property
    def _members_glob(self) -> re.Pattern[str] | None:
        return None if self.spec.members is None else glob_regex(self.spec.members)

    def _describes(self, member: Member) -> bool:
        return member.part in _DESCRIBING and not (self.spec.modality == "text" and member.part == "txt")

    def _is_description(self, member: Member) -> bool:
        """Return whether the content of a member is read for what it says of others."""
        return not self.peeks and self._describes(member)

    # -- reading

    def members(self, uri: str) -> Iterator[Member]:
        """Yield the members of one archive, those of one stem in sequence.

        Raises:
            SampleError: ``truncated``, ``bad_archive`` or ``decompression_bomb``, when it cannot be read to
                its end.
        """
        read = zip_members if archive_kind(uri) == "zip" else tar_members
        try:
            with self._stream(uri) as stream:
                yield from read(stream, uri, self._is_description, partial(self._hashes, uri))
        except SampleError:
            raise
        except (EOFError, tarfile.ReadError, zipfile.BadZipFile) as error:
            error_class = "truncated" if isinstance(error, EOFError) else "bad_archive"
            raise SampleError(error_class, f"{uri}: {error or 'ends in the middle'}") from error
        except OSError as error:
            if error.errno is not None:
                raise open_error(uri, error) from error
            raise SampleError("bad_archive", f"{uri}: {error}") from error
        except Exception as error:  # zipfile and tarfile raise anything for damaged bytes
            raise SampleError("bad_archive", f"{uri}: {type(error).__name__}: {error}") from error

    def _hashes(self, uri: str, member: Member) -> bool:
        """Return whether the listing hashes a member: of archives at hand, and such as it reads through.

        Of others it reads the headers alone; their contents would be transferred twice.
        """
        at_hand = is_local(uri) or uncompressed_name(_tar_name(uri)) != _tar_name(uri)
        return (
            at_hand
            and not self.peeks
            and member.size <= self.spec.fetch.max_bytes
            and self._is_sample(member)
        )

    def _stream(self, uri: str) -> BinaryIO:
        return open_unpacked(_tar_name(uri), partial(self.opener.open, uri))

    def fetch(self, uri: str, locator: str) -> bytes | BinaryIO:
        try:
            if archive_kind(uri) == "zip":
                archive = cast(zipfile.ZipFile, self._archive(uri))
                return _read_zipped(archive, uri, int(locator), self.spec.fetch.max_bytes)
            start, size = (int(part) for part in locator.split("+"))
            stream = self._archive(uri)
            stream.seek(start)
            return _read_member(stream, size, f"a member of {uri}")
        except SampleError:
            raise
        except OSError as error:
            raise open_error(uri, error) from error

    def open(self, uri: str, locator: str) -> BinaryIO:
        data = self.fetch(uri, locator)
        return io.BytesIO(data) if isinstance(data, bytes) else data

    def _archive(self, uri: str) -> Any:
        """Return the archive, opened once: most members of a batch are in one, in sequence."""
        opened: dict[str, Any] = self.__dict__.setdefault("_opened", {})
        if uri not in opened:
            for other in opened.values():
                other.close()
            opened.clear()
            stream = self._stream(uri)
            opened[uri] = open_zip(stream) if archive_kind(uri) == "zip" else stream
        return opened[uri]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_opened", "_excludes")}


def _tar_name(uri: str) -> str:
    """Return a name with the short ending of a compressed tar written out."""
    return re.sub(r"\.t(gz|bz2|xz|zst)$", r".tar.\1", uri, flags=re.IGNORECASE)


def _read_zipped(archive: zipfile.ZipFile, uri: str, number: int, max_bytes: int) -> bytes | BinaryIO:
    """Read a member of a zip file by its number in the directory; a large one into an open file."""
    try:
        info = archive.infolist()[number]
        if info.file_size > max_bytes:
            raise SampleError("too_large", f"{info.filename!r} in {uri} is larger than fetch.max_bytes")
        with archive.open(info) as stream:
            return _read_member(cast(BinaryIO, stream), info.file_size, f"{info.filename!r} in {uri}")
    except IndexError:
        raise SampleError(
            "source_changed", f"{uri} was listed with {number + 1} members and has fewer now"
        ) from None
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise SampleError("bad_archive", f"{uri}: {error}") from error
    except (NotImplementedError, RuntimeError) as error:
        # A method of compression or encryption that Python lacks.
        raise SampleError("unsupported_member", f"{uri}: {error}") from error


def _read_member(stream: BinaryIO, size: int, what: str) -> bytes | BinaryIO:
    """Read this many bytes of a stream; many of them into an open temporary file."""
    if size <= LARGE_BYTES:
        data = stream.read(size)
        if len(data) < size:
            raise SampleError(
                "truncated", f"{what} has {len(data):,} of {size:,} bytes: the archive is cut off"
            )
        return data
    spool, left = tempfile.TemporaryFile(), size  # noqa: SIM115 - the caller closes it
    try:
        while left and (part := stream.read(min(left, LARGE_BYTES))):
            spool.write(part)
            left -= len(part)
        if left:
            raise SampleError(
                "truncated", f"{what} has {size - left:,} of {size:,} bytes: the archive is cut off"
            )
    except BaseException:
        spool.close()
        raise
    spool.seek(0)
    return cast(BinaryIO, spool)
