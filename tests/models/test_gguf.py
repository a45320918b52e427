"""The GGUF reader against the `gguf` package's writer, and against bytes nobody should have written."""

import struct
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFWriter
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.core.errors import BadWeights
from shoal.kernels.quant import BLOCK, row_bytes
from shoal.models.gguf import GgufFile, read_gguf

METADATA = {
    "u8": 255, "i8": -128, "u16": 65_535, "i16": -32_768, "u32": 2**32 - 1, "i32": -(2**31), "f32": 0.5,
    "u64": 2**64 - 1, "i64": -(2**63), "f64": 1 / 3, "yes": True, "no": False, "text": "höhle 🐟", "empty": "",
    "words": ["a", "", "né"], "numbers": [1, 2, 3], "floats": [0.25, -1.5], "flags": [True, False],
}  # fmt: skip
KINDS = {"u8": "uint8", "i8": "int8", "u16": "uint16", "i16": "int16", "u32": "uint32", "i32": "int32",
         "f32": "float32", "u64": "uint64", "i64": "int64", "f64": "float64", "yes": "bool", "no": "bool",
         "text": "string"}  # fmt: skip


def write(path: Path, tensors: dict[str, tuple[np.ndarray, str]], metadata: dict[str, object] | None = None) -> Path:
    writer = GGUFWriter(path, "llama")
    for key, value in (metadata or {}).items():
        if isinstance(value, list):
            writer.add_array(key, value)
        elif value != "":  # the writer drops empty strings
            getattr(writer, f"add_{KINDS[key]}")(key, value)
    for name, (data, storage) in tensors.items():
        writer.add_tensor(name, data, raw_dtype=GGMLQuantizationType[storage])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def one_of_each() -> dict[str, tuple[np.ndarray, str]]:
    random = np.random.default_rng(0)
    return {
        storage.lower(): (random.integers(0, 256, (3, row_bytes(storage, 256)), dtype=np.uint8), storage)
        for storage in BLOCK
    }


def test_every_storage_type_is_a_view_of_the_right_bytes(tmp_path):
    tensors = one_of_each()
    file = read_gguf(write(tmp_path / "all.gguf", tensors))
    assert list(file.tensors) == list(tensors)
    for name, (data, storage) in tensors.items():
        tensor = file.tensors[name]
        assert (tensor.name, tensor.storage, tensor.shape) == (name, storage, (3, 256))
        assert tensor.data.tobytes() == data.tobytes()
        assert tensor.data.shape == data.shape
        assert not tensor.data.flags.writeable
        assert not tensor.data.flags.owndata


def test_shapes_of_vectors_and_stacks(tmp_path):
    tensors = {"vector": (np.arange(5, dtype=np.float32), "F32"), "stack": (np.ones((2, 3, 4), np.float32), "F32")}
    file = read_gguf(write(tmp_path / "shapes.gguf", tensors))
    assert file.tensors["vector"].shape == (5,)
    assert file.tensors["vector"].data.shape == (1, 20)
    assert file.tensors["stack"].shape == (2, 3, 4)
    assert file.tensors["stack"].data.shape == (6, 16)


def test_every_metadata_type(tmp_path):
    file = read_gguf(write(tmp_path / "metadata.gguf", {}, METADATA))
    expected = {key: value for key, value in METADATA.items() if value != ""}
    assert file.metadata == {"general.architecture": "llama", **expected}
    assert all(type(file.metadata[key]) is type(value) for key, value in expected.items())


def test_the_default_model_reads_as_the_gguf_package_reads_it(default_gguf):
    file = read_gguf(default_gguf)
    reader = gguf.GGUFReader(default_gguf)
    assert file.metadata == {k: f.contents() for k, f in reader.fields.items() if not k.startswith("GGUF.")}
    assert list(file.tensors) == [tensor.name for tensor in reader.tensors]
    for tensor in reader.tensors:
        found = file.tensors[tensor.name]
        assert found.shape == tuple(reversed(tensor.shape.tolist()))
        assert found.storage == tensor.tensor_type.name
        assert np.array_equal(found.data.ravel(), tensor.data.view(np.uint8).ravel())


# ---- handmade files --------------------------------------------------------------------------------------------


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def pair(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def description(name: str = "t", dims: tuple[int, ...] = (8,), kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


def handmade(pairs: list[bytes], tensors: list[bytes], data: bytes = b"", version: int = 3, magic: bytes = b"GGUF"):
    head = magic + struct.pack("<IQQ", version, len(tensors), len(pairs)) + b"".join(pairs) + b"".join(tensors)
    return head + b"\0" * (-len(head) % 32) + data


def read_bytes(path: Path, data: bytes) -> GgufFile:
    path.write_bytes(data)
    return read_gguf(path)


GOOD = handmade([pair("a", 4, struct.pack("<I", 7)), pair("b", 8, text("x"))], [description()], b"\1" * 32)
NESTED = struct.pack("<IQ", 9, 1) * 5 + struct.pack("<IQ", 4, 0)

BROKEN = {
    "empty": (b"", "file", "weights"),
    "foreign": (b"PK\3\4" + GOOD[4:], "magic", "b'GGUF'"),
    "version 1": (handmade([], [], version=1), "version", "2 or 3"),
    "version 4": (handmade([], [], version=4), "version", "2 or 3"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0) + bytes(64), "version", "little-endian"),
    "too many pairs": (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**60) + bytes(64), "metadata count", "at most"),
    "too many tensors": (b"GGUF" + struct.pack("<IQQ", 3, 2**60, 0) + bytes(64), "tensor count", "at most"),
    "long key": (handmade([struct.pack("<Q", 2**63) + bytes(16)], []), "metadata key 0", "more bytes"),
    "not UTF-8": (handmade([pair("k", 8, struct.pack("<Q", 1) + b"\xff")], []), "metadata k", "UTF-8"),
    "value type": (handmade([pair("k", 13, bytes(8))], []), "metadata k type", "0 to 12"),
    "boolean": (handmade([pair("k", 7, b"\2")], []), "metadata k", "0 or 1"),
    "long array": (handmade([pair("k", 9, struct.pack("<IQ", 4, 2**61))], []), "metadata k", "more bytes"),
    "long strings": (handmade([pair("k", 9, struct.pack("<IQ", 8, 2**61))], []), "metadata k length", "fit the file"),
    "nested arrays": (handmade([pair("k", 9, NESTED)], []), "metadata k", "nested"),
    "a key twice": (handmade([pair("k", 0, b"\1")] * 2, []), "metadata k", "once"),
    "alignment": (handmade([pair("general.alignment", 4, b"\3\0\0\0")], []), "general.alignment", "power of two"),
    "no dimensions": (handmade([], [description(dims=())], bytes(32)), "tensor t dimensions", "1 to 4"),
    "five dimensions": (handmade([], [description(dims=(1,) * 5)], bytes(32)), "tensor t dimensions", "1 to 4"),
    "zero dimension": (handmade([], [description(dims=(0, 8))], bytes(32)), "tensor t shape", "1 to"),
    "overflow": (handmade([], [description(dims=(2**62, 4))], bytes(32)), "tensor t shape", "1 to"),
    "Q2_K": (handmade([], [description(dims=(256,), kind=10)], bytes(99)), "tensor t type", "Q2_K"),
    "unknown type": (handmade([], [description(kind=99)], bytes(32)), "tensor t type", "type 99"),
    "part of a block": (handmade([], [description(dims=(33,), kind=2)], bytes(99)), "tensor t columns", "of 32"),
    "misaligned": (handmade([], [description(offset=4)], bytes(64)), "tensor t offset", "multiple of 32"),
    "out of range": (handmade([], [description(offset=2**63)], bytes(64)), "tensor t offset", "end before"),
    "cut short": (handmade([], [description()], bytes(31)), "tensor t offset", "cut short"),
    "overlap": (
        handmade([], [description("a", (16,)), description("t", (8,), offset=32)], bytes(64)), "tensor t offset", "64",
    ),
    "a name twice": (
        handmade([], [description(), description(offset=32)], bytes(64)), "tensor t", "once",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files_are_refused_by_field(tmp_path, case):
    data, field, words = BROKEN[case]
    with pytest.raises(BadWeights) as caught:
        read_bytes(tmp_path / "broken.gguf", data)
    assert caught.value.file == str(tmp_path / "broken.gguf")
    assert caught.value.field.startswith(field)
    assert words in str(caught.value)


def test_version_2_reads_like_version_3(tmp_path):
    second = read_bytes(tmp_path / "2.gguf", GOOD[:4] + b"\2" + GOOD[5:])
    third = read_bytes(tmp_path / "3.gguf", GOOD)
    assert second.metadata == third.metadata == {"a": 7, "b": "x"}
    assert second.tensors["t"].data.tobytes() == third.tensors["t"].data.tobytes() == b"\1" * 32


@pytest.mark.parametrize("path", ["missing.gguf", "", "\0"])
def test_what_is_not_a_file_is_refused(tmp_path, path):
    with pytest.raises(BadWeights):
        read_gguf(f"{tmp_path}/{path}")


# ---- fuzz ------------------------------------------------------------------------------------------------------

SEED = handmade(
    [
        pair("a", 4, struct.pack("<I", 7)),
        pair("b", 8, text("xyz")),
        pair("c", 9, struct.pack("<IQ", 8, 2) + text("q") * 2),
        pair("d", 9, struct.pack("<IQ", 9, 1) + struct.pack("<IQ", 7, 2) + b"\0\1"),
    ],
    [description("t", (32, 2), 2), description("u", (8,), 0, 64)],
    bytes(range(96)),
)


def reads_or_refuses(path: Path, data: bytes) -> bool:
    try:
        file = read_bytes(path, data)
    except BadWeights:
        return False
    return sum(tensor.data.sum() for tensor in file.tensors.values()) >= 0  # every byte it promises is there


def test_cut_at_every_length(tmp_path):
    assert reads_or_refuses(tmp_path / "whole.gguf", SEED)
    assert [n for n in range(len(SEED)) if reads_or_refuses(tmp_path / "cut.gguf", SEED[:n])] == []


def test_every_byte_changed(tmp_path):
    head = SEED[: len(SEED) - 96]
    outcomes = [
        reads_or_refuses(tmp_path / "byte.gguf", SEED[:at] + bytes([value]) + SEED[at + 1 :])
        for at in range(len(head))
        for value in {0, 1, 0x7F, 0x80, 0xFF, SEED[at] ^ 1} - {SEED[at]}
    ]
    assert True in outcomes
    assert False in outcomes


@settings(max_examples=300, deadline=2000, derandomize=True, database=None)
@given(cuts=st.lists(st.tuples(st.integers(0, len(SEED)), st.integers(0, 16), st.binary(max_size=16)), max_size=4))
def test_spliced_bytes(tmp_path_factory, cuts):
    data = SEED
    for at, drop, insert in cuts:
        data = data[:at] + insert + data[at + drop :]
    reads_or_refuses(tmp_path_factory.getbasetemp() / "spliced.gguf", data)  # any other exception fails the test
