"""Every operator's circuit: the interpreter's values satisfy it, no column or output can change alone."""

from __future__ import annotations

import numpy as np
import pytest
from circuit_checks import faults, holds, values_of
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.core.errors import InvalidRequest
from shoal.proof.circuit import Index
from shoal.proof.graph import attention, operators
from shoal.proof.graph.attention import Norm, SoftmaxScale
from shoal.proof.graph.builder import Builder, Sum, axis, identity
from shoal.proof.graph.ir import Requantize
from shoal.proof.graph.operators import Rounded, Windows
from shoal.proof.graph.ranges import Range
from shoal.proof.lower.lower import lower
from shoal.proof.satisfy import satisfies

BYTE = Range(-128, 127)


def entries(*shape: int, low: int = -128, high: int = 127, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, high + 1, shape)


def product(b: Builder, rows: int = 3, inner: int = 6, columns: int = 5) -> str:
    x = b.input("x", (rows, inner), BYTE)
    w = b.weight("w", entries(columns, inner, seed=1))
    return b.contract("sums", x, w, Sum((rows, columns), (inner,), (axis(0), axis(2)), (axis(1), axis(2))))


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("shift", [0, 1, 7, 12])
def test_rounding_and_rectifying(relu: bool, shift: int) -> None:
    b = Builder()
    power = 1 << max(17 - shift, 1)
    y = b.requantize("y", product(b), Requantize(shift, -power, power - 1, relu))
    holds(b.finish((y,)), {"x": entries(3, 6)})


@pytest.mark.parametrize(("relu", "kernel"), [(False, (2, 2)), (True, (2, 2)), (True, (3, 3)), (False, (1, 2))])
def test_pooling_what_is_rounded(relu: bool, kernel: tuple[int, int]) -> None:
    """3x3 windows have too many candidates for a product below 2^62: the indicators are held too."""
    b = Builder()
    x = b.input("x", (1, 2, 8, 8), BYTE)
    w = b.weight("w", entries(3, 2, 3, 3, seed=1))
    ones = (1, 1)
    c = operators.conv(b, "c", x, w, Windows((3, 3), ones, ((1, 1), (1, 1)), ones))
    windows = Windows(kernel, kernel, ((0, 0), (0, 0)), ones)
    operators.max_pool(b, "y", c, windows, Rounded(-9, Range(-4096, 4095), relu))
    lowered = holds(b.finish(("y",)), {"x": entries(1, 2, 8, 8)})
    assert any(source.name == "y.chosen" for source in lowered.circuit.sources) == (kernel == (3, 3))


def test_pooling_flattened_then_multiplied_reads_channels_first() -> None:
    """A flattened (channels, rows, columns) is read as three axes: no copy is committed, and the order is CHW."""
    b = Builder()
    x = b.input("x", (1, 3, 4, 4), BYTE)
    windows = Windows((2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1))
    pooled = operators.max_pool(b, "pooled", x, windows, Rounded(0, BYTE))
    flat = b.reshape("flat", pooled, (1, 12))
    w = b.weight("w", entries(5, 12, seed=1))
    y = b.contract("y", flat, w, Sum((1, 5), (12,), (axis(0), axis(2)), (axis(1), axis(2))))
    lowered = holds(b.finish((y,)), {"x": entries(1, 3, 4, 4)})
    assert not [source.name for source in lowered.circuit.sources if "copy" in source.name or "flat" in source.name]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.sampled_from(["reshape", "transpose", "slice", "shift", "double", "concat"]), max_size=5),
    st.integers(0, 999),
)
def test_chains_of_views(steps: list[str], seed: int) -> None:
    """Whatever is done to indices, the product at the end reads the right entries."""
    rng = np.random.default_rng(seed)
    b = Builder()
    x = b.requantize("start", b.input("x", (4, 6), BYTE), Requantize(1, -64, 64))
    for number, step in enumerate(steps):
        x = view(b, f"{step}{number}", step, x, rng)
    rows, columns = b.tensors[x].shape
    w = b.weight("w", entries(columns, seed=seed))
    y = b.contract("y", x, w, Sum((rows,), (columns,), (axis(0), axis(1)), (axis(1),)))
    holds(b.finish((y,)), {"x": entries(4, 6, seed=seed)})


def view(b: Builder, name: str, step: str, x: str, rng: np.random.Generator) -> str:
    rows, columns = b.tensors[x].shape
    match step:
        case "reshape":
            sizes = [n for n in range(1, rows * columns + 1) if rows * columns % n == 0]
            first = int(rng.choice(sizes))
            return b.reshape(name, x, (first, rows * columns // first))
        case "transpose":
            return operators.transpose(b, name, x, (1, 0))
        case "slice":
            return b.affine(name, [(1, x, (axis(0), axis(1, -1, columns - 1)))], (rows, max(columns - 1, 1)))
        case "shift":
            return b.affine(name, [(1, x, (axis(0, 1, -1), axis(1)))], (rows + 1, columns), 3)
        case "double":
            return operators.add(b, name, [(2, x), (-1, x)])
        case _:
            return operators.concat(b, name, [x, x], int(rng.integers(2)))


def test_sums_of_products_over_different_axes() -> None:
    b = Builder()
    first = product(b)
    left = b.input("left", (3, 2), BYTE)
    right = b.input("right", (2, 5), BYTE)
    second = operators.matmul(b, "second", left, right)
    total = operators.add(b, "total", [(3, first), (-2, second)])
    y = b.requantize("y", total, Requantize(6, -4096, 4095))
    holds(b.finish((y,)), {"x": entries(3, 6), "left": entries(3, 2), "right": entries(2, 5)})


def test_tables() -> None:
    b = Builder()
    x = b.requantize("small", product(b), Requantize(9, -256, 255))
    y = b.table("y", x, np.arange(-256, 256) ** 2 % 1000, -256, 0)
    holds(b.finish((y,)), {"x": entries(3, 6)})


@pytest.mark.parametrize("raw", [False, True])
def test_softmax(raw: bool) -> None:
    """Of rounded numbers (the differences need no column) and of sums of products."""
    b = Builder()
    x = product(b) if raw else b.requantize("small", product(b), Requantize(9, -256, 255))
    b.tensors[x] = type(b.tensors[x])(b.tensors[x].shape, b.tensors[x].low, b.tensors[x].high, 15 if raw else 6)
    attention.softmax(b, "p", x, SoftmaxScale(6, 8, 1 << 10))
    holds(b.finish(("p",)), {"x": entries(3, 6)})


@pytest.mark.parametrize("centred", [False, True])
def test_norms(centred: bool) -> None:
    b = Builder()
    x = b.input("x", (3, 8), Range(-2000, 2000), 6)
    attention.normalise(b, "unit", x, Norm(1e-5, centred, 8, 7, rounded=9))
    holds(b.finish(("unit",)), {"x": entries(3, 8, low=-2000, high=2000)})


def test_embeddings_are_gathered_by_public_tokens() -> None:
    b = Builder()
    tokens = b.input("tokens", (4,), Range(0, 9))
    x = operators.embedding(b, "x", tokens, b.weight("table", entries(10, 6)))
    moved = b.affine("moved", [(1, x, (axis(0, -1, 3), axis(1)))], (4, 6))
    w = b.weight("w", entries(6, 5))
    b.contract("y", moved, w, Sum((4, 5), (6,), (axis(0), axis(2)), (axis(2), axis(1))))
    holds(b.finish(("y",)), {"tokens": np.array([3, 9, 0, 3])})


def test_clips_and_sums_over_an_axis() -> None:
    b = Builder()
    x = b.input("x", (3, 5), BYTE)
    clipped = operators.clip(b, "clipped", x, -20, 63)
    b.affine("y", [(1, clipped, (axis(0), Index(summed=True))), (1, b.constant("c", entries(3)), (axis(0),))], (3,))
    holds(b.finish(("y",)), {"x": entries(3, 5)})


def test_the_plain_checker_agrees() -> None:
    """The proof system's own oracle, in Python integers, accepts and rejects the same."""
    b = Builder()
    y = b.requantize("y", product(b), Requantize(7, -1024, 1023, True))
    lowered = lower(b.finish((y,)))
    values = values_of(lowered, lowered.assign({"x": entries(3, 6)}))
    own = {name: value for name, value in values.items() if name not in lowered.circuit.constants}
    assert satisfies(lowered.circuit, own) is None
    for name in lowered.fills:
        forged = values[name].copy()
        forged.reshape(-1)[0] += 1
        assert (satisfies(lowered.circuit, {**own, name: forged}) is None) == (
            not faults(lowered.circuit, {**values, name: forged})
        )


def test_the_same_graph_gives_the_same_circuit() -> None:
    def made() -> str:
        b = Builder()
        y = b.requantize("y", product(b), Requantize(7, -1024, 1023, True))
        return repr(lower(b.finish((y,))).circuit)

    assert made() == made()
    assert identity(2) == (axis(0), axis(1))


def test_a_graph_whose_sums_could_wrap_is_refused() -> None:
    b = Builder()
    wide = Range(-(1 << 31), 1 << 31)
    b.contract("y", b.input("x", (4,), wide), b.input("z", (4,), wide), Sum((), (4,), (axis(0),), (axis(0),)))
    with pytest.raises(InvalidRequest, match="half the field"):
        lower(b.finish(("y",)))
