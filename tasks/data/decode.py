"""A text file as UTF-8, decoded strictly, so that a wrong byte is named by its place."""

import codecs
import io
from typing import Any

from infra.errors import BadInput

CHUNK_BYTES = 1 << 20
TAIL_BYTES = 16


class Utf8(io.RawIOBase):
    """Reads any encoding, gives UTF-8 without a byte order mark. Raises BadInput; the same again by `check`, for callers that swallow it."""

    def __init__(self, stream: Any, name: str, encoding: str) -> None:
        super().__init__()
        self._stream, self._name, self._encoding = stream, name, encoding
        self._decoder = codecs.getincrementaldecoder("utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding)()
        self._ready, self._offset, self._ended = b"", 0, False
        self._error: BadInput | None = None
        self.tail = b""  # the last bytes so far

    def readable(self) -> bool:
        """True."""
        return True

    def check(self) -> None:
        """Raise the error that a caller (Arrow) has swallowed."""
        if self._error:
            raise self._error

    def peek(self, size: int) -> bytes:
        """The first bytes, without taking them."""
        while len(self._ready) < size and not self._ended:
            self._fill()
        return self._ready[:size]

    def readinto(self, buffer: Any) -> int:
        """The next bytes; at the end of the file none."""
        while not self._ready and not self._ended:
            self._fill()
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def _fill(self) -> None:
        before = len(self._decoder.getstate()[0])
        try:
            chunk = self._stream.read(CHUNK_BYTES)
            decoded = self._decoder.decode(chunk, final=not chunk).encode()
            self._ready += decoded
            self.tail = (self.tail + decoded[-TAIL_BYTES:])[-TAIL_BYTES:]
        except UnicodeDecodeError as error:
            place, bad = self._offset - before + error.start, error.object[error.start : error.start + 1].hex()
            self._fail(f"byte {place} (0x{bad}) is not {self._encoding}. Save the file as UTF-8, or set data.encoding to what it is (often cp1252).", error)
        except (OSError, UnicodeError, EOFError, ValueError) as error:
            said = (str(error).splitlines() or [type(error).__name__])[0][:200]
            self._fail(f"can't be read after byte {self._offset} ({said}). Is it whole, and compressed and encoded as it says?", error)
        self._offset += len(chunk)
        self._ended = not chunk

    def _fail(self, said: str, error: Exception) -> None:
        self._error = BadInput(f"{self._name}: {said}")
        raise self._error from error
