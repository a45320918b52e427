"""The suffix tree of csrc/suffix_tree.c: counts every run of up to `depth` tokens in some sequences, and looks ahead.

Section 3 of SuffixDecoding (Oliaro et al. 2025, arXiv 2411.04975). Its slow twin is the naive trie of
tests/engine/naive_trie.py. Calls take microseconds, so they keep the interpreter lock (PyDLL).
"""

from __future__ import annotations

import ctypes as c
import weakref
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from shoal.kernels import build

MAX_TOKENS = 256
"""Of one look ahead."""

MAX_BYTES_PER_TOKEN = 336
"""Two nodes of 48 bytes and two slots of 16 for each token at most, arrays up to half (slots: three quarters) empty."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Of a look ahead: at most `cap` tokens and `factor` * match length + `offset`, each at least `least` likely."""

    cap: int = 32
    factor: float = 1.0
    offset: float = 0.0
    least: float = 0.1


@dataclass(frozen=True, slots=True)
class Found:
    """What may follow: token i is reached with probability `probs[i]` and follows token `parents[i]`.

    Parent -1 is the context. A path has parents -1, 0, 1, ... `match` tokens of the context were matched; `score` is
    the sum of probs: the tokens expected to be right.
    """

    tokens: tuple[int, ...] = ()
    probs: tuple[float, ...] = ()
    parents: tuple[int, ...] = ()
    match: int = 0
    score: float = 0.0


class _Limits(c.Structure):
    _fields_ = (
        ("cap", c.c_int32), ("factor", c.c_float), ("offset", c.c_float), ("least", c.c_double), ("is_tree", c.c_int32),
    )  # fmt: skip


class _Found(c.Structure):
    _fields_ = (("match", c.c_int32), ("count", c.c_int32), ("score", c.c_double))


class SuffixTree:
    """Sequences are added one after another and dropped oldest first. Not thread-safe.

    Unsupported where the C kernels cannot be built. Memory: see MAX_BYTES_PER_TOKEN.
    """

    def __init__(self, depth: int = 64, kernel_cache: Path | None = None) -> None:
        assert 2 <= depth <= MAX_TOKENS, f"expected a depth of 2 .. {MAX_TOKENS}, found {depth}"
        self.depth = depth
        self._lib = _library(kernel_cache)
        self._tree = c.c_void_p(self._lib.shoal_tree_create(depth))
        self._tokens, self._probs = (c.c_int32 * MAX_TOKENS)(), (c.c_double * MAX_TOKENS)()
        self._parents, self._own, self._found = (c.c_int32 * MAX_TOKENS)(), _Limits(), _Found()
        self._arguments = (c.byref(self._own), self._tokens, self._probs, self._parents, c.byref(self._found))
        self._limits: Limits | None = None
        self._destroy = weakref.finalize(self, self._lib.shoal_tree_destroy, self._tree)

    def extend(self, tokens: Sequence[int], start: int = 0) -> None:
        """The open sequence goes on with `tokens[start:]`, or a new one begins."""
        values = _as_array(tokens)
        self._lib.shoal_tree_extend(self._tree, values.buffer_info()[0] + 4 * start, len(values) - start)

    def close(self) -> None:
        """The open sequence is complete."""
        self._lib.shoal_tree_close(self._tree)

    def drop_oldest(self) -> int:
        """Forget the oldest complete sequence; how many tokens it had, 0 if there is none."""
        return int(self._lib.shoal_tree_drop(self._tree))

    def look(self, limits: Limits, context: Sequence[int] | None = None, *, is_tree: bool = False) -> Found:
        """The likeliest continuation of `context`'s tail over every match length; None: of the open sequence.

        A path along the most frequent children, or with `is_tree` the likeliest tokens of the whole subtree.
        """
        if limits is not self._limits:
            self._set(limits)
        self._own.is_tree = is_tree
        address, length = None, 0
        if context is not None:
            values = _as_array(context)
            length = min(len(values), self.depth)
            address = values.buffer_info()[0] + 4 * (len(values) - length)
        self._lib.shoal_tree_look(self._tree, address, length, *self._arguments)
        count = self._found.count
        if not count:
            return _NOTHING
        parents = tuple(self._parents[:count]) if is_tree else tuple(range(-1, count - 1))
        return Found(
            tuple(self._tokens[:count]), tuple(self._probs[:count]), parents, self._found.match, self._found.score
        )

    def sequences(self) -> list[array[int]]:
        """Copies of what was added, oldest first."""
        return [self._sequence(index) for index in range(self.num_sequences)]

    @property
    def size_bytes(self) -> int:
        """Memory allocated; it stays when sequences are dropped, for those that come."""
        return self._figure(0)

    @property
    def num_nodes(self) -> int:
        return self._figure(1)

    @property
    def num_sequences(self) -> int:
        return self._figure(2)

    @property
    def num_tokens(self) -> int:
        return self._figure(3)

    def _set(self, limits: Limits) -> None:
        own, self._limits = self._own, limits
        own.cap, own.factor, own.offset = min(limits.cap, MAX_TOKENS), limits.factor, limits.offset
        own.least = max(limits.least, 1e-2)

    def _figure(self, which: int) -> int:
        return int(self._lib.shoal_tree_figure(self._tree, which))

    def _sequence(self, index: int) -> array[int]:
        length = int(self._lib.shoal_tree_sequence(self._tree, index, None))
        values = array("i", bytes(4 * length))
        self._lib.shoal_tree_sequence(self._tree, index, values.buffer_info()[0])
        return values


_NOTHING = Found()


def _as_array(tokens: Sequence[int]) -> array[int]:
    """int32 memory C can read: sequences of the engine are such arrays already."""
    return tokens if isinstance(tokens, array) else array("i", tokens)


@cache
def _library(kernel_cache: Path | None) -> c.PyDLL:
    lib = c.PyDLL(str(build.library_path(cache_dir=kernel_cache)))
    lib.shoal_tree_create.restype = c.c_void_p
    lib.shoal_tree_create.argtypes = (c.c_int,)
    lib.shoal_tree_destroy.argtypes = lib.shoal_tree_close.argtypes = lib.shoal_tree_drop.argtypes = (c.c_void_p,)
    lib.shoal_tree_extend.argtypes = (c.c_void_p, c.c_void_p, c.c_int)
    lib.shoal_tree_figure.restype = lib.shoal_tree_sequence.restype = c.c_int64
    lib.shoal_tree_figure.argtypes = (c.c_void_p, c.c_int)
    lib.shoal_tree_sequence.argtypes = (c.c_void_p, c.c_int64, c.c_void_p)
    lib.shoal_tree_look.argtypes = (
        c.c_void_p, c.c_void_p, c.c_int, c.POINTER(_Limits), c.c_void_p, c.c_void_p, c.c_void_p, c.POINTER(_Found),
    )  # fmt: skip
    return lib
