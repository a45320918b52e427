"""Calls of the library's streams without its generated coroutines: no turn of the event loop where the answer is there.

The generated coroutine polls the library's future and learns every answer, also one given at once, by a wake-up of the
event loop: two turns for each read and one for each write. Here an answer given while polling is taken where it is;
only a wake-up from a thread of the library costs a turn, and the data is copied once.

    start -> poll -> there                     done() at once
                  -> not yet ... (library's thread) wake-up -> (event loop) poll -> there -> the callback

The glue is private, so nothing is taken on trust: `speak` checks its shape and uses the coroutines where it
is not what we know.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import itertools
import struct
from collections.abc import Callable
from dataclasses import dataclass
from threading import get_ident
from typing import Any, Protocol

import numpy as np

from shoal.mesh.carrier import Bytes

READY = 0
PENDING = -1
PREFIX = struct.Struct(">i")
"""Before bytes in a buffer of the library: how many."""

NAMES = (
    "_UniffiRustBuffer", "_UniffiRustCallStatus", "_uniffi_check_call_status",
    "_UniffiFfiConverterTypeIrohError__as_error", "_UNIFFI_RUST_FUTURE_CONTINUATION_CALLBACK",
    "_UNIFFI_RUST_FUTURE_POLL_READY",
)  # fmt: skip
FUNCTIONS = (
    "rustbuffer_alloc", "rustbuffer_free", "rust_future_poll_rust_buffer", "rust_future_complete_rust_buffer",
    "rust_future_free_rust_buffer", "rust_future_poll_void", "rust_future_complete_void", "rust_future_free_void",
)  # fmt: skip
METHODS = ("clone_recvstream", "clone_sendstream", "method_recvstream_read", "method_sendstream_write_all")


class Underway(Protocol):
    """What `asyncio.Future` and `Call` have in common."""

    def done(self) -> bool: ...

    def result(self) -> Any: ...

    def add_done_callback(self, fn: Callable[[Any], object], /) -> None: ...

    def cancel(self) -> object: ...


@dataclass(frozen=True, slots=True)
class Kind:
    """The library's functions for futures with one type of result. `lift` makes it ours."""

    poll: Any
    complete: Any
    free: Any
    lift: Callable[[Any], Any]


class Call:
    """One call of the library, used from one event loop. At most one callback; a call that is done calls none."""

    __slots__ = ("_code", "_error", "_future", "_is_over", "_is_polling", "_kind", "_loop", "_speech", "_then",
                 "_thread", "_value", "key")  # fmt: skip

    def __init__(self, speech: Speech, kind: Kind, future: int) -> None:
        self._speech, self._kind, self._future = speech, kind, future
        self._loop, self._thread = asyncio.get_running_loop(), get_ident()
        self._then: Callable[[Any], object] | None = None
        self._value: Any = None
        self._error: Exception | None = None
        self._code = PENDING
        self._is_over = self._is_polling = False
        self.key = 0
        self._step()

    def done(self) -> bool:
        return self._is_over

    def result(self) -> Any:
        if self._error is not None:
            raise self._error
        return self._value

    def add_done_callback(self, fn: Callable[[Any], object], /) -> None:
        self._then = fn

    def cancel(self) -> None:
        """Give it up: the library forgets it, no callback comes."""
        if not self._is_over:
            self._is_over, self._error = True, asyncio.InvalidStateError("this call was given up")
            self._speech.forget(self.key)
            self._kind.free(self._future)

    def woken(self, code: int) -> None:
        """In any thread. Inside our own poll the answer is taken there; a closed loop has nobody left to tell."""
        if self._is_polling and get_ident() == self._thread:
            self._code = code
        else:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._step)

    def _step(self) -> None:
        if self._is_over:
            return
        code = READY + 1
        while code != READY:
            self._code, self._is_polling = PENDING, True
            self._kind.poll(self._future, self._speech.callback, self._speech.expect(self))
            self._is_polling, code = False, self._code
            if code == PENDING:
                return
        self._take()

    def _take(self) -> None:
        status = self._speech.new_status()
        value = self._kind.complete(self._future, ctypes.byref(status))
        self._kind.free(self._future)
        self._is_over = True
        try:
            self._speech.check(status)
            self._value = self._kind.lift(value)
        except Exception as error:
            self._error = error
        if self._then is not None:
            self._then(self)


class Speech:
    """What is said to one loaded library. Made by `speak`."""

    def __init__(self, glue: Any) -> None:
        lib = glue._UniffiLib
        self._glue, self._lib = glue, lib
        self._waiting: dict[int, Call] = {}
        self._keys = itertools.count(1)
        self._error_of = glue._UniffiFfiConverterTypeIrohError__as_error
        self.new_status = glue._UniffiRustCallStatus
        self.callback = glue._UNIFFI_RUST_FUTURE_CONTINUATION_CALLBACK(self._woken)
        self._bytes = Kind(lib.ffi_iroh_ffi_rust_future_poll_rust_buffer,
                           lib.ffi_iroh_ffi_rust_future_complete_rust_buffer,
                           lib.ffi_iroh_ffi_rust_future_free_rust_buffer, self._lift)  # fmt: skip
        self._nothing = Kind(lib.ffi_iroh_ffi_rust_future_poll_void, lib.ffi_iroh_ffi_rust_future_complete_void,
                             lib.ffi_iroh_ffi_rust_future_free_void, lambda value: None)  # fmt: skip

    def read(self, stream: Any, limit: int) -> Call:
        """`stream.read(limit)`: 1 to `limit` bytes, b"" at the end."""
        handle = self._call(self._lib.uniffi_iroh_ffi_fn_clone_recvstream, stream._handle)
        return Call(self, self._bytes, self._lib.uniffi_iroh_ffi_fn_method_recvstream_read(handle, limit))

    def write_all(self, stream: Any, data: Bytes) -> Call:
        """`stream.write_all(data)`; `data` is copied before this returns."""
        handle = self._call(self._lib.uniffi_iroh_ffi_fn_clone_sendstream, stream._handle)
        buffer = self._lower(data)
        return Call(self, self._nothing, self._lib.uniffi_iroh_ffi_fn_method_sendstream_write_all(handle, buffer))

    # ---- what calls use

    def expect(self, call: Call) -> int:
        call.key = key = next(self._keys)
        self._waiting[key] = call
        return key

    def forget(self, key: int) -> None:
        self._waiting.pop(key, None)

    def check(self, status: Any) -> None:
        """IrohError where the library failed."""
        if status.code:
            self._glue._uniffi_check_call_status(self._error_of, status)

    def _woken(self, key: int, code: int) -> None:
        call = self._waiting.pop(key, None)
        if call is not None:
            call.woken(code)

    # ---- bytes

    def _lower(self, data: Bytes) -> Any:
        size = len(data)
        buffer = self._call(self._lib.ffi_iroh_ffi_rustbuffer_alloc, PREFIX.size + size)
        at = ctypes.addressof(buffer.data.contents)
        ctypes.memmove(at, PREFIX.pack(size), PREFIX.size)
        source = data if isinstance(data, bytes) else np.frombuffer(data, np.uint8).ctypes.data
        ctypes.memmove(at + PREFIX.size, source, size)
        buffer.len = PREFIX.size + size
        return buffer

    def _lift(self, buffer: Any) -> bytes:
        at = ctypes.addressof(buffer.data.contents)
        data = ctypes.string_at(at + PREFIX.size, buffer.len - PREFIX.size)
        self._call(self._lib.ffi_iroh_ffi_rustbuffer_free, buffer)
        return data

    def _call(self, function: Any, argument: Any) -> Any:
        status = self.new_status()
        answer = function(argument, ctypes.byref(status))
        self.check(status)
        return answer


class Generated:
    """The same by the generated coroutines, slower."""

    def read(self, stream: Any, limit: int) -> Underway:
        reading: asyncio.Future[bytes] = asyncio.ensure_future(stream.read(limit))
        return reading

    def write_all(self, stream: Any, data: Bytes) -> Underway:
        writing: asyncio.Future[None] = asyncio.ensure_future(stream.write_all(bytes(data)))
        return writing


def speak(glue: Any) -> Speech | Generated:
    """For the library's glue; by its own coroutines where its shape is not what is used here."""
    lib = getattr(glue, "_UniffiLib", None)
    names = [f"ffi_iroh_ffi_{name}" for name in FUNCTIONS] + [f"uniffi_iroh_ffi_fn_{name}" for name in METHODS]
    known = all(hasattr(glue, name) for name in NAMES) and all(hasattr(lib, name) for name in names)
    return Speech(glue) if known and glue._UNIFFI_RUST_FUTURE_POLL_READY == READY else Generated()
