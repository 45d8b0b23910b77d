"""The file format of backups: a gzipped tar, written and read as a stream, so that pipes work.

Members in order: `backup.json` (format, version, migrations), each table's rows in pieces `<table>/00000.copy` in
PostgreSQL's COPY text format, and `manifest.json` (rows, bytes and SHA-256 of each table). A truncated file has no
manifest and is rejected.
"""

import gzip
import hashlib
import io
import json
import tarfile
import zlib
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, BinaryIO

FORMAT = 1
PIECE = 1 << 20  # bytes; a piece is written when it is at least as long
MAX_MEMBER = 64 << 20  # bytes; no backup has longer members


class BadArchive(Exception):
    """The file is not a complete, undamaged backup; the message says what is wrong."""


class Totals:
    """Computes the totals of a table's pieces."""

    def __init__(self) -> None:
        self.pieces, self._bytes, self._hash = 0, 0, hashlib.sha256()

    def add(self, data: bytes) -> None:
        self.pieces += 1
        self._bytes += len(data)
        self._hash.update(data)

    def entry(self, rows: int) -> dict[str, Any]:
        """Return the table's entry in the manifest; `rows` is the number that COPY reported."""
        return {"rows": rows, "bytes": self._bytes, "sha256": self._hash.hexdigest()}


class Writer:
    """Writes an archive.

    Args:
        file: where to write; need not be seekable.
        about: what `backup.json` says besides the format.
    """

    def __init__(self, file: BinaryIO, about: dict[str, Any]) -> None:
        self._gzip = gzip.GzipFile(fileobj=file, mode="wb", compresslevel=6)
        self._tar = tarfile.open(fileobj=self._gzip, mode="w|")  # noqa: SIM115 - closed by `finish`
        self._totals: dict[str, Totals] = defaultdict(Totals)
        self._manifest: dict[str, dict[str, Any]] = {}
        self._add("backup.json", json.dumps({"format": FORMAT} | about, indent=2).encode())

    def add_piece(self, table: str, data: bytes) -> None:
        self._add(f"{table}/{self._totals[table].pieces:05}.copy", data)
        self._totals[table].add(data)

    def end_table(self, table: str, rows: int) -> None:
        """Add a table, whose pieces are all written, to the manifest."""
        self._manifest[table] = self._totals[table].entry(rows)

    def finish(self) -> None:
        """Write the manifest and the end of the archive; the file stays open."""
        self._add("manifest.json", json.dumps(self._manifest, indent=2).encode())
        self._tar.close()
        self._gzip.close()

    def _add(self, name: str, data: bytes) -> None:
        member = tarfile.TarInfo(name)
        member.size, member.mode = len(data), 0o600
        self._tar.addfile(member, io.BytesIO(data))


class Reader:
    """Reads an archive: `about` at once, then `pieces`; after the last piece `manifest` is set.

    Raises:
        BadArchive: the file is damaged or not a backup; `pieces` raises it too.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._members = self._read(file)
        self.manifest: dict[str, Any] = {}
        name, data = next(self._members, ("", b""))
        if name != "backup.json":
            raise BadArchive("this is not a file that `voting backup` made")
        self.about = _json(data)
        if (form := self.about.get("format")) != FORMAT:
            raise BadArchive(f"its format is {form}, and this version reads {FORMAT}: update voting")

    def pieces(self) -> Iterator[tuple[str, bytes]]:
        """Yield each table's name and rows, piece by piece; the caller compares the totals with `manifest`."""
        for name, data in self._members:
            if name == "manifest.json":
                self.manifest = _json(data)
                if next(self._members, None):  # reading to the end also makes gzip check its CRC
                    raise BadArchive("it has data after its end")
                return
            yield name.partition("/")[0], data
        raise BadArchive("its end is missing: the backup was interrupted, or the copy is incomplete")

    @staticmethod
    def _read(file: BinaryIO) -> Iterator[tuple[str, bytes]]:
        try:
            with gzip.GzipFile(fileobj=file) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
                for member in tar:
                    content = tar.extractfile(member)
                    if content is None or member.size > MAX_MEMBER:
                        raise BadArchive(f"`voting backup` does not write the member {member.name}")
                    yield member.name, content.read()
                while stream.read(PIECE):
                    pass
        except (tarfile.TarError, zlib.error, EOFError, gzip.BadGzipFile) as error:
            raise BadArchive(f"it is damaged, or not a backup ({error})") from None


def _json(data: bytes) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(data)
    except ValueError as error:
        raise BadArchive(f"it is damaged ({error})") from None
    return found
