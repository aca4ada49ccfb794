"""The bytes and the lines of a corpus file, unpacked and decoded as a stream.

How a file is packed is told by its first bytes: a browser may unpack what it downloads and leave the name.
"""

from __future__ import annotations

import bz2
import codecs
import contextlib
import gzip
import io
import lzma
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from solution.encodings import text_codec
from solution.errors import UserError
from solution.tables import encoding_advice, marked_encoding

REMEDY = "Fetch or make it again."
HEAD = 1 << 16
LONGEST_LINE = 1 << 25  # bytes; a file without line ends must not fill the memory
_MARKS = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
BROKEN = (EOFError, zlib.error, lzma.LZMAError, OSError)
"""What reading a damaged packed file may raise; see `broken`."""


def packing(path: Path) -> str | None:
    """How a file is packed: "gzip", "bzip2", "xz", "zstd", or None: it is not packed."""
    with open(path, "rb") as stream:
        head = stream.read(6)
    return packing_of(head)


def packing_of(head: bytes) -> str | None:
    """The same, told by the first bytes."""
    return next((name for mark, name in _MARKS.items() if head.startswith(mark)), None)


def open_unpacked(path: Path) -> BinaryIO:
    """The unpacked bytes of a file, as a stream that can look ahead (`peek`)."""
    packed = packing(path)
    if packed == "gzip":
        return gzip.open(path, "rb")  # type: ignore[return-value]
    if packed == "bzip2":
        return bz2.open(path, "rb")  # type: ignore[return-value]
    if packed == "xz":
        return lzma.open(path, "rb")  # type: ignore[return-value]
    if packed == "zstd":
        import pyarrow as pa

        return io.BufferedReader(pa.input_stream(str(path), compression="zstd"), 1 << 17)
    return open(path, "rb")


def head_of(path: Path) -> bytes:
    """The first bytes of a file, unpacked."""
    with open_unpacked(path) as stream:
        return stream.read(HEAD)


@contextlib.contextmanager
def seekable(path: Path) -> Iterator[BinaryIO]:
    """The bytes of a file in any order; a packed file is first unpacked to a temporary one (see `TMPDIR`)."""
    if packing(path) is None:
        with open(path, "rb") as stream:
            yield stream
        return
    with tempfile.TemporaryFile() as unpacked:
        try:
            with open_unpacked(path) as packed:
                shutil.copyfileobj(packed, unpacked)
        except BROKEN as error:
            raise broken(path, "", error) from None
        unpacked.seek(0)
        yield unpacked  # type: ignore[misc]


def broken(path: Path, after: str, error: Exception) -> UserError:
    """The error for a packed file that is cut or damaged; an error of the system is raised again as it is."""
    if isinstance(error, OSError) and error.errno is not None:
        raise error
    return UserError(f"the corpus is not a whole {packing(path)} file: {path}{after} ({error}). {REMEDY}")


# --- text ----------------------------------------------------------------------------------


def text_encoding(path: Path, encoding: str | None) -> str | None:
    """The encoding of a text file that is not plain UTF-8: what its byte-order mark says, or the user; else None.

    Args:
        encoding: of the texts that are not UTF-8, where the user has named it.

    Raises:
        UserError: Python knows no such encoding.
    """
    if encoding is not None and text_codec(encoding) is None:
        raise UserError(f"retrieval.encoding={encoding}: Python knows no such encoding of texts (cp1252, mac_roman)")
    with open_unpacked(path) as stream:
        if marked := marked_encoding(stream.read(4)):
            return marked
    return encoding if encoding is not None and not _is_utf8(path) else None


def _is_utf8(path: Path) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    with open_unpacked(path) as stream:
        try:
            while block := stream.read(1 << 20):
                decoder.decode(block)
            decoder.decode(b"", True)
        except UnicodeDecodeError:
            return False
    return True


def lines(path: Path, encoding: str | None = None) -> Iterator[str]:
    """The lines of a text file with their ends.

    Args:
        encoding: of a file that is not UTF-8, where the user has named it.

    Raises:
        UserError: while reading: a file that is not of its encoding (the message names others that fit), a damaged
            packed file, a NUL byte, or a line of more than 32 MiB.
    """
    number = 0
    try:
        other = text_encoding(path, encoding)
        with open_unpacked(path) as stream:
            head = stream.peek(HEAD)  # type: ignore[attr-defined]
            # Old programs end lines with a carriage return alone.
            wrapped = other or ("utf-8-sig" if b"\r" in head and b"\n" not in head else None)
            for line in _decoded(stream, path, wrapped) if wrapped else _utf8(stream, path):
                number += 1
                yield line
    except BROKEN as error:
        raise broken(path, f", after line {number}", error) from None


def _utf8(stream: Any, path: Path) -> Iterator[str]:
    """The lines of a UTF-8 stream; a newline byte is never part of another UTF-8 character."""
    number = 0
    while line := stream.readline(LONGEST_LINE + 1):
        number += 1
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        if len(line) > LONGEST_LINE:
            raise too_long(f"{path}, line {number}")
        if b"\0" in line:
            # UTF-16 without a mark looks like this too: the advice names it.
            more = encoding_advice(line, "retrieval.encoding=") if b"\0" in line[:4] and number == 1 else ""
            raise UserError(
                f"the corpus {path}, line {number} has a NUL byte in it; it is not a text file. {more}".rstrip()
            )
        try:
            yield line.decode("utf-8")
        except UnicodeDecodeError as error:
            sample = line + stream.read(1 << 20)
            raise not_utf8(f"{path}, line {number}", error, sample) from None


def _decoded(stream: Any, path: Path, encoding: str) -> Iterator[str]:
    number = 0
    text = io.TextIOWrapper(stream, encoding, newline=None)
    try:
        while line := text.readline(LONGEST_LINE + 1):
            number += 1
            if len(line) > LONGEST_LINE:
                raise too_long(f"{path}, line {number}")
            if "\0" in line:
                raise UserError(f"the corpus {path}, line {number} has a NUL byte in it; it is not a text file")
            yield line.removeprefix("\ufeff") if number == 1 else line
    except UnicodeError as error:
        raise UserError(
            f"the corpus {path} is not {encoding}: after line {number} ({error}). Name another retrieval.encoding."
        ) from None


def not_utf8(where: str, error: UnicodeDecodeError, sample: bytes) -> UserError:
    """The error for a text that is not UTF-8.

    Args:
        sample: some of its bytes, by which encodings that fit are named.
    """
    return UserError(
        f"the corpus is not UTF-8: {where}, byte 0x{error.object[error.start]:02x}. "
        + encoding_advice(sample, "retrieval.encoding=")
    )


def too_long(where: str) -> UserError:
    """The error for a line, a paragraph or a section that would fill the memory."""
    return UserError(f"the corpus {where} is longer than {LONGEST_LINE >> 20} MiB")
