"""Which names of encodings a text may have."""

from __future__ import annotations

import codecs

# Python knows these as texts, but no file is written in them.
_OF_NO_FILE = ("idna", "punycode", "unicode-escape", "raw-unicode-escape")


def text_codec(name: str) -> str | None:
    """Python's name of an encoding of text files; None: it knows none, or a codec of other things (hex, zlib, idna)."""
    try:
        known = codecs.lookup(name).name
        # Only decoding tells codecs of texts from those of bytes (hex) and of other texts (rot13).
        b"a".decode(known, "replace")
        codecs.getincrementaldecoder(known)
    except (LookupError, ValueError):  # ValueError: a name with NUL or half of a character, or a codec that refuses all
        return None
    return None if known in _OF_NO_FILE else known
