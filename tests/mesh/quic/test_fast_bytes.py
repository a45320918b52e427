import logging
import types

import iroh.iroh_ffi as glue
import pytest

from shoal.mesh.quic import fast_bytes


def test_the_mended_glue_keeps_every_byte() -> None:
    assert fast_bytes.speed_up(glue)
    key = glue.SecretKey.from_bytes(bytes(range(32)))
    assert key.to_bytes() == bytes(range(32))
    assert glue.SecretKey.from_bytes(bytearray(range(32))).to_bytes() == bytes(range(32))


def test_mending_twice_is_harmless() -> None:
    assert fast_bytes.speed_up(glue)
    assert fast_bytes.speed_up(glue)


def test_unknown_glue_stays_as_shipped(caplog: pytest.LogCaptureFixture) -> None:
    class Builder:
        def write(self, value: bytes) -> None: ...

    changed = types.SimpleNamespace(_UniffiRustBuffer=glue._UniffiRustBuffer, _UniffiRustBufferBuilder=Builder)
    shipped = Builder.write
    with caplog.at_level(logging.WARNING):
        assert not fast_bytes.speed_up(changed)
    assert Builder.write is shipped
    assert "slowly" in caplog.text


def test_a_failed_round_trip_puts_the_shipped_loops_back(caplog: pytest.LogCaptureFixture) -> None:
    class Buffer:
        _fields_ = (("capacity", int), ("len", int), ("data", int))

        @staticmethod
        def reserve(buffer: object, size: int) -> object:
            return buffer

    class Builder:
        def write(self, value: bytes) -> None: ...
        def _pack_into(self, size: int, layout: str, value: int) -> None: ...
        def _reserve(self, size: int) -> None: ...
        def finalize(self) -> None: ...

    shipped = Builder.write, Builder._pack_into
    other = types.SimpleNamespace(_UniffiRustBuffer=Buffer, _UniffiRustBufferBuilder=Builder)
    with caplog.at_level(logging.WARNING):
        assert not fast_bytes.speed_up(other)
    assert (Builder.write, Builder._pack_into) == shipped
    assert "own test" in caplog.text
