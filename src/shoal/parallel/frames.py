"""Messages between the machine that asks and a stage. Each is parsed in one function, or is a `PeerFault`.

open   ["open", digest, first, last, blocks]            answered with the stage's `StageInfo`
step   u32 length, ["step", [[start, count, blocks]..]], tensor (rows, hidden)   answered with a tensor of that shape
copy   u32 length, ["copy", [[source, target]..]], nothing                       not answered
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from shoal.core.decoding import compact
from shoal.core.decoding import parse as parse_plain
from shoal.core.encoding import encode
from shoal.core.errors import PeerFault, RemoteError
from shoal.mesh import parse
from shoal.mesh.carrier import Bytes
from shoal.mesh.tensors import Tensor, parse_tensor, tensor_message

METHOD = "parallel.stage"
OFFERS = "parallel.offers"

MAX_ROWS = 2048
"""Of one step: four default prefill chunks; 4.7 MB of float32 at a hidden size of 576."""
MAX_SEQS = 256
MAX_BLOCKS = 1 << 16
MAX_CONTROL = 1 << 20
MAX_VALUES = 1 << 18
"""In the control of one message: 256 sequences of 1000 blocks each."""
MAX_OFFERS = 64
MAX_STATE = 1e8
"""Hidden states of real networks stay below 1e5. Larger ones, squared and summed in float32, would not stay finite."""
PREFIX = 4


@dataclass(frozen=True, slots=True)
class StageInfo:
    """What a stage is. `digest` of the weights file (SHA-256); layers [first, last) of num_layers; lengths in tokens.

    kernels  in words, with the precision of activations and cache: answers are the whole model's to the bit only where
             these are alike everywhere.
    """

    model: str
    digest: bytes
    first: int
    last: int
    num_layers: int
    hidden_size: int
    block_size: int
    context_length: int
    kernels: str = ""


@dataclass(frozen=True, slots=True)
class Open:
    """The wish to use layers [first, last) of this model with `num_blocks` of cache."""

    digest: bytes
    first: int
    last: int
    num_blocks: int


@dataclass(frozen=True, slots=True)
class Rows:
    """`count` rows of a sequence from position `start`, whose cache is `blocks`, in order."""

    start: int
    count: int
    blocks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class StepFrame:
    seqs: tuple[Rows, ...]
    stream: np.ndarray
    """float32 (rows, hidden): the residual stream that enters."""


@dataclass(frozen=True, slots=True)
class CopyFrame:
    pairs: tuple[tuple[int, int], ...]


def write_open(wish: Open) -> bytes:
    return encode(["open", wish.digest, wish.first, wish.last, wish.num_blocks])


def read_open(data: Bytes) -> Open:
    kind, digest, first, last, blocks = parse.row(parse.message(memoryview(data), 256), 5)
    if kind != "open":
        raise PeerFault('expected "open" first')
    layers = [parse.integer(value, 0, 4096) for value in (first, last)]
    return Open(parse.octets(digest, 32, 32), layers[0], layers[1], parse.integer(blocks, 1, MAX_BLOCKS))


def write_step(seqs: Sequence[Rows], stream: np.ndarray) -> list[Bytes]:
    control = encode(["step", [[item.start, item.count, list(item.blocks)] for item in seqs]])
    return [len(control).to_bytes(PREFIX, "little"), control, *write_stream(stream)]


def write_copy(pairs: Sequence[tuple[int, int]]) -> list[Bytes]:
    control = encode(["copy", [list(pair) for pair in pairs]])
    return [len(control).to_bytes(PREFIX, "little"), control]


def read_frame(data: Bytes, hidden_size: int) -> StepFrame | CopyFrame:
    """Shapes and bounds hold; whether blocks are the sender's own is `stage`'s business."""
    view = memoryview(data).cast("B")
    size = int.from_bytes(view[:PREFIX], "little")
    if size > view.nbytes - PREFIX:
        raise PeerFault(f"expected {size} bytes of control, found {view.nbytes}")
    kind, items = parse.row(parse.message(view[PREFIX : PREFIX + size], MAX_CONTROL, MAX_VALUES), 2)
    rest = view[PREFIX + size :]
    if kind == "copy" and not rest.nbytes:
        pairs = (parse.row(pair, 2) for pair in parse.many(items, MAX_BLOCKS))
        return CopyFrame(tuple((parse.integer(a, 0, MAX_BLOCKS), parse.integer(b, 0, MAX_BLOCKS)) for a, b in pairs))
    if kind != "step":
        raise PeerFault('expected "step" or "copy"')
    seqs = tuple(_rows(item) for item in parse.many(items, MAX_SEQS))
    num_rows = sum(item.count for item in seqs)
    if not 1 <= num_rows <= MAX_ROWS:
        raise PeerFault(f"expected 1 to {MAX_ROWS} rows, found {num_rows}")
    return StepFrame(seqs, read_stream(rest, num_rows, hidden_size))


def _rows(value: object) -> Rows:
    start, count, blocks = parse.row(value, 3)
    numbers = tuple(parse.integer(block, 0, MAX_BLOCKS) for block in parse.many(blocks, MAX_BLOCKS))
    return Rows(parse.integer(start, 0, 1 << 24), parse.integer(count, 1, MAX_ROWS), numbers)


def write_stream(stream: np.ndarray) -> list[Bytes]:
    return tensor_message(Tensor("float32", np.ascontiguousarray(stream, np.float32)))


def read_stream(data: Bytes, num_rows: int, hidden_size: int) -> np.ndarray:
    """float32 (num_rows, hidden_size), none beyond `MAX_STATE`: kernels are not asked what they make of the rest."""
    tensor = parse_tensor(data, 4 * num_rows * hidden_size)
    if tensor.dtype != "float32" or tensor.values.shape != (num_rows, hidden_size):
        raise PeerFault(f"expected float32 {(num_rows, hidden_size)}, found {tensor.dtype} {tensor.values.shape}")
    if not (np.abs(tensor.values) <= MAX_STATE).all():  # nor is a NaN
        raise PeerFault(f"expected hidden states that are finite and at most {MAX_STATE:g}")
    return tensor.values


def write_info(info: StageInfo) -> bytes:
    return encode(compact(info))


def read_info(data: Bytes) -> StageInfo:
    return _info(parse.message(memoryview(data), 4096))


def write_offers(infos: Sequence[StageInfo]) -> bytes:
    return encode([compact(info) for info in infos])


def read_offers(data: Bytes) -> tuple[StageInfo, ...]:
    """PeerFault for anything but at most `MAX_OFFERS` stages that could be."""
    return tuple(_info(item) for item in parse.many(parse.message(memoryview(data), 1 << 17), MAX_OFFERS))


def _info(value: object) -> StageInfo:
    try:
        info = parse_plain(StageInfo, value)
    except RemoteError as error:
        raise PeerFault(f"expected a stage, {error}") from error
    parse.text(info.model, 200)
    parse.text(info.kernels, 100)
    parse.octets(info.digest, 32, 32)
    if not 0 <= info.first <= info.last <= info.num_layers <= 4096:
        raise PeerFault(f"expected layers in order, found {info.first} to {info.last} of {info.num_layers}")
    if not (0 < info.hidden_size <= 1 << 17 and 0 < info.block_size <= 1024 and 0 < info.context_length <= 1 << 24):
        raise PeerFault("expected sizes that a network has")
    return info
