"""What the binary files of programs have in common: header, checksum, reading and writing.

    bits = pack(MAGIC, VERSION, digest, content)
    reader = unpack(bits, MAGIC, VERSION, digest, what="a program of …", machine="tpu")

A file is a magic of 8 bytes, the format's version (2 bytes), the machine's hash (32 bytes), the
content, and the SHA-256 of everything before it. Integers are little-endian; names have two
bytes of length and are UTF-8.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from typing import TypeVar

from nncc.diagnostics import TargetError

_HEADER = struct.Struct("<8sH32s")
_HASH = hashlib.sha256().digest_size
T = TypeVar("T")


def pack(magic: bytes, version: int, machine: bytes, content: bytes) -> bytes:
    """The file.

    Args:
        magic: 8 bytes; `machine`: the hash of what the program is bound to.
    """
    bits = _HEADER.pack(magic, version, machine) + content
    return bits + hashlib.sha256(bits).digest()


def unpack(
    bits: bytes, magic: bytes, version: int, digest: bytes, *, what: str, machine: str
) -> Reader:
    """The content of a file. Raises TargetError if it is damaged or for another machine.

    Args:
        what: the file's kind, such as "a program of a TPU"; `machine`: the name of the machine
            with the hash `digest`.
    """
    if bits[: len(magic)] != magic:
        raise TargetError(f"not {what}: the magic is missing")
    if len(bits) < _HEADER.size + _HASH:
        raise TargetError(f"the program is truncated: {len(bits)} bytes are no whole header")
    _, found, bound_to = _HEADER.unpack_from(bits)
    if found != version:
        raise TargetError(f"the program has format {found}; this nncc reads format {version}")
    content = bits[:-_HASH]
    if hashlib.sha256(content).digest() != bits[-_HASH:]:
        raise TargetError("the program is damaged or truncated: its checksum does not fit")
    if bound_to != digest:
        raise TargetError(
            f"the program was made for another machine than '{machine}'",
            help="compile it again, or give the machine file that it was compiled with",
        )
    return Reader(content, _HEADER.size)


def guarded(read: Callable[[Reader], T], reader: Reader) -> T:
    """What `read` makes of the whole rest of a file.

    Raises TargetError if it cannot: a wrong program under a right checksum.
    """
    try:
        found = read(reader)
        reader.end()
    except (ValueError, IndexError, KeyError, struct.error) as error:
        raise TargetError(f"the program is damaged: {error}") from error
    return found


class Reader:
    """The rest of some bytes. Everything raises ValueError where they do not suffice."""

    def __init__(self, content: bytes, position: int = 0) -> None:
        self.content, self.position = content, position

    def take(self, count: int) -> bytes:
        end = self.position + count
        if end > len(self.content):
            raise ValueError("it ends too early")
        taken = self.content[self.position : end]
        self.position = end
        return taken

    def number(self, size: int = 4, *, signed: bool = False) -> int:
        return int.from_bytes(self.take(size), "little", signed=signed)

    def name(self) -> str:
        return self.take(self.number(2)).decode()

    def end(self) -> None:
        if self.position != len(self.content):
            raise ValueError("bytes follow the last field")


def number(value: int, size: int = 4, *, signed: bool = False) -> bytes:
    """An integer of `size` bytes. Raises TargetError if it does not fit."""
    try:
        return value.to_bytes(size, "little", signed=signed)
    except OverflowError as error:
        raise TargetError(f"{value} does not fit {size} bytes of a program") from error


def name(text: str) -> bytes:
    """A name of up to 65535 bytes. Raises TargetError if it is longer."""
    content = text.encode()
    if len(content) >= 1 << 16:
        raise TargetError(f"a name of {len(content)} bytes is too long")
    return number(len(content), 2) + content
