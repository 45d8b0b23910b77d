"""The file that a backup is: a gzipped tar, written and read as a stream, so that it fits through a pipe.

Members in order: `backup.json` (what this is), each table's rows in pieces `<table>/00000.copy` in PostgreSQL's COPY
text format, and `manifest.json` (rows, bytes and SHA-256 of each table). The manifest comes last, so a file that was
cut short has none, and is refused. `tar -tzf` lists it.
"""

import gzip
import hashlib
import io
import json
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO

FORMAT = 1
PIECE = 1 << 20  # bytes of a table that are collected before they are written
MAX_MEMBER = 64 << 20  # no member that we wrote is longer; nothing longer is read


class BadArchive(Exception):
    """This is no whole, undamaged backup; the message says what is wrong."""


@dataclass
class Contents:
    """What a table's pieces have to add up to."""

    rows: int = 0
    bytes: int = 0
    sha256: str = ""


class Digest:
    """Adds up a table's bytes."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._bytes = 0

    def add(self, data: bytes | bytearray) -> None:
        """Another piece."""
        self._hash.update(data)
        self._bytes += len(data)

    def contents(self, rows: int) -> Contents:
        """The sum."""
        return Contents(rows, self._bytes, self._hash.hexdigest())


class Writer:
    """Writes an archive.

    Args:
        file: need not be seekable.
        about: what `backup.json` says besides the format.
    """

    def __init__(self, file: BinaryIO, about: dict[str, Any]) -> None:
        self._gzip = gzip.GzipFile(fileobj=file, mode="wb", compresslevel=6)
        self._tar = tarfile.open(fileobj=self._gzip, mode="w|")  # noqa: SIM115 - closed by finish
        self._manifest: dict[str, Contents] = {}
        self._add("backup.json", json.dumps({"format": FORMAT} | about, indent=2).encode())

    def piece(self, table: str, number: int, data: bytes) -> None:
        """A piece of a table."""
        self._add(f"{table}/{number:05}.copy", data)

    def end_table(self, table: str, contents: Contents) -> None:
        """All of it is written."""
        self._manifest[table] = contents

    def finish(self) -> None:
        """Write the manifest and what closes the file; the file itself stays open."""
        manifest = {name: asdict(contents) for name, contents in self._manifest.items()}
        self._add("manifest.json", json.dumps(manifest, indent=2).encode())
        self._tar.close()
        self._gzip.close()

    def _add(self, name: str, data: bytes) -> None:
        member = tarfile.TarInfo(name)
        member.size, member.mode = len(data), 0o600
        self._tar.addfile(member, io.BytesIO(data))


class Reader:
    """Reads an archive: `about` first, then `pieces`, then `manifest`.

    Raises:
        BadArchive: from any of these, as soon as something is wrong.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._members = self._read(file)
        self.manifest: dict[str, Contents] = {}
        name, data = next(self._members, ("", b""))
        if name != "backup.json":
            raise BadArchive("this is not a file that `voting backup` made")
        self.about = _json(data)
        if (form := self.about.get("format")) != FORMAT:
            raise BadArchive(f"its format is {form}, and this version reads {FORMAT}: update voting")

    def pieces(self) -> Iterator[tuple[str, bytes]]:
        """The tables' names and rows; whoever takes them checks the sums against `manifest`, there when this ends."""
        for name, data in self._members:
            if name == "manifest.json":
                self.manifest = {table: Contents(**contents) for table, contents in _json(data).items()}
                if next(self._members, None):  # also what makes gzip look at its own sum
                    raise BadArchive("it goes on after its end")
                return
            yield name.partition("/")[0], data
        raise BadArchive("its end is missing: the backup was interrupted, or the copy is not whole")

    @staticmethod
    def _read(file: BinaryIO) -> Iterator[tuple[str, bytes]]:
        try:
            with gzip.GzipFile(fileobj=file) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
                for member in tar:
                    content = tar.extractfile(member)
                    if content is None or member.size > MAX_MEMBER:
                        raise BadArchive(f"{member.name} is nothing that `voting backup` writes")
                    yield member.name, content.read()
                while stream.read(PIECE):
                    pass
        except (tarfile.TarError, zlib.error, EOFError, gzip.BadGzipFile) as error:
            raise BadArchive(f"it is damaged, or no backup ({error})") from None


def _json(data: bytes) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(data)
    except ValueError as error:
        raise BadArchive(f"it is damaged ({error})") from None
    return found
