"""GPT-2's byte alphabet: every byte has a printable character, so that a BPE vocabulary can be written as text.

The table is the one of "Language Models are Unsupervised Multitask Learners" (Radford et al., 2019): printable Latin-1
characters stand for themselves, the other 68 bytes for the characters from U+0100 on, in order.
"""

from __future__ import annotations

_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_OTHERS = [byte for byte in range(256) if byte not in set(_PRINTABLE)]

CHAR_OF_BYTE: dict[int, str] = {byte: chr(byte) for byte in _PRINTABLE} | {
    byte: chr(0x100 + position) for position, byte in enumerate(_OTHERS)
}
_BYTE_OF_CHAR = {ord(char): byte for byte, char in CHAR_OF_BYTE.items()}


def to_bytes(token: str) -> bytes:
    """Raw bytes of a token written in the alphabet. A character outside it stands for its own UTF-8."""
    try:
        return bytes(_BYTE_OF_CHAR[ord(char)] for char in token)
    except KeyError:
        return b"".join(_char_bytes(char) for char in token)


def _char_bytes(char: str) -> bytes:
    byte = _BYTE_OF_CHAR.get(ord(char))
    return char.encode("utf-8", "replace") if byte is None else bytes([byte])
