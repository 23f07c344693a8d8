"""The form of a bundle's file: a gzip-packed tar archive that holds exactly what its table of contents says.

``tar tzf`` lists it. The table of contents comes first, so that one pass from front to back can check everything. Each
member is a gzip member of its own: disks are packed fast, what is packed already is stored. Nothing in the file but the
table is interpreted: every header must be the very bytes that the table implies, in its order, so no link, device, long
name or second copy can be told to a reader at all.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import os
import secrets
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from labctl.errors import HostError, LabctlError
from labctl.host import files
from labctl.lifecycle import manifest
from labctl.lifecycle.manifest import Blob, Manifest

MANIFEST_NAME = "manifest.json"
SUFFIX = ".labz"
GZIP = b"\x1f\x8b"

_BLOCK = tarfile.BLOCKSIZE
_END = bytes(2 * _BLOCK)
_CHUNK = 1 << 20
_FAST, _STORE = (
    1,
    0,
)  # gzip: a raw disk shrinks to a third at 65 MB/s; 6 saves a few per cent more at a third of the speed

Heard = Callable[[int], None]


def write(target: Path, contents: Manifest, sources: Iterable[Path], heard: Heard = lambda _: None) -> str:
    """Write a bundle; the file is whole or not there. Returns its SHA-256.

    sources: the file of each of ``contents.blobs()``. heard: gets the number of bytes read so far. Raises HostError on
    a full disk, LabctlError where a file is not what the table of contents says.
    """
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
    try:
        with partial.open("xb") as file:
            out = _Hashing(file)
            table = contents.to_bytes()
            with _packed(out, _FAST) as member:
                member.write(_header(MANIFEST_NAME, len(table)) + _padded(table))
            done = 0
            for blob, source in zip(contents.blobs(), sources, strict=True):
                with _packed(out, _STORE if blob.packed else _FAST) as member:
                    member.write(_header(blob.name, blob.size))
                    for chunk in _checked(source, blob):
                        member.write(chunk)
                        done += len(chunk)
                        heard(done)
                    member.write(bytes(-blob.size % _BLOCK))
            with _packed(out, _STORE) as member:
                member.write(_END)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
        return out.digest.hexdigest()
    except OSError as error:
        raise files.explained(target, error) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


class Reader:
    """A bundle that is read from front to back: its table of contents, then every content in its order."""

    def __init__(self, file: Path, stream: BinaryIO) -> None:
        self._file = file
        self._stream = stream
        self.contents = self._table()

    def content(self, blob: Blob, target: BinaryIO | None, heard: Heard = lambda _: None) -> None:
        """Read the next content, which must be ``blob``, and write it to ``target``. heard: gets each chunk's bytes.

        Raises LabctlError where it is anything else; what was written until then is not to be used.
        """
        self._expect(_header(blob.name, blob.size), f"{blob.name} does not follow as it should")
        digest, left = hashlib.sha256(), blob.size
        while left:
            chunk = self._read(min(_CHUNK, left))
            if not chunk:
                manifest.refuse(f"it breaks off in {blob.name}")
            left -= len(chunk)
            digest.update(chunk)
            if target is not None:
                target.write(chunk)
            heard(len(chunk))
        self._expect(bytes(-blob.size % _BLOCK), f"{blob.name} does not end as it should")
        if digest.hexdigest() != blob.sha256:
            manifest.refuse(f"{blob.name} has another digest than its table of contents says")

    def end(self) -> None:
        """Insist that nothing follows."""
        self._expect(_END, "it does not end where it should")
        if self._read(1):
            manifest.refuse("there is more behind its end")

    def _table(self) -> Manifest:
        block = self._read(_BLOCK)
        if not block:
            manifest.refuse("it is empty")
        try:
            size = tarfile.TarInfo.frombuf(block, "utf-8", "strict").size
        except (tarfile.TarError, UnicodeError):
            manifest.refuse("it has no table of contents")
        if not 0 < size <= manifest.MAX_BYTES or block != _header(MANIFEST_NAME, size):
            manifest.refuse("it has no table of contents")
        data = self._read(size)
        self._expect(bytes(-size % _BLOCK), "its table of contents breaks off")
        return manifest.read(data)

    def _expect(self, wanted: bytes, otherwise: str) -> None:
        if self._read(len(wanted)) != wanted:
            manifest.refuse(otherwise)

    def _read(self, size: int) -> bytes:
        """So many bytes, or fewer at the end."""
        try:
            return self._stream.read(size)
        except EOFError:
            manifest.refuse("it breaks off: the file is not whole")
        except (gzip.BadGzipFile, zlib.error) as error:
            manifest.refuse(f"it is damaged ({error})")
        except OSError as error:
            raise HostError(f"{self._file} cannot be read: {error.strerror}") from error


@contextlib.contextmanager
def reading(file: Path) -> Iterator[Reader]:
    """Open a bundle. Raises LabctlError where it is none, HostError where it cannot be read."""
    try:
        raw = file.open("rb")
    except OSError as error:
        raise HostError(f"the bundle {file} cannot be read: {error.strerror}") from error
    with raw:
        if raw.read(2) != GZIP:
            raise LabctlError(f"{file} is no bundle", hint="labctl bundle makes one; LAB is a folder or a lab.yaml.")
        raw.seek(0)
        with gzip.GzipFile(fileobj=raw, mode="rb") as unpacked, io.BufferedReader(unpacked, _CHUNK) as stream:
            yield Reader(file, stream)


class _Hashing(io.RawIOBase):
    """A file that knows the digest of what was written to it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def write(self, data: Any, /) -> int:
        self.digest.update(data)
        return self._file.write(data)

    def writable(self) -> bool:
        return True


@contextlib.contextmanager
def _packed(out: _Hashing, level: int) -> Iterator[gzip.GzipFile]:
    with gzip.GzipFile(filename="", mode="wb", compresslevel=level, fileobj=out, mtime=0) as member:
        yield member


def _header(name: str, size: int) -> bytes:
    """The tar header of a plain file: the same bytes whoever writes it, whenever."""
    entry = tarfile.TarInfo(name)
    entry.size = size
    entry.mode = 0o644
    return entry.tobuf(tarfile.GNU_FORMAT, "utf-8", "strict")


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % _BLOCK)


def _checked(source: Path, blob: Blob) -> Iterator[bytes]:
    """A file's content in pieces; it must be the one that the table of contents names."""
    digest, size = hashlib.sha256(), 0
    with source.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
            if size > blob.size:
                break
            yield chunk
    if size != blob.size or digest.hexdigest() != blob.sha256:
        raise LabctlError(
            f"{source} is not what it was when it was looked at",
            hint="Leave the lab alone while it is bundled; labctl image verify NAME checks images.",
        )
