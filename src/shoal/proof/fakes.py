"""Small circuits with numbers that satisfy them: one for each thing a circuit can say. For tests and attacks."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from shoal.proof.circuit import Circuit, Expr, Identity, Index, Lookup, Read, Source, Table

Arrays = dict[str, npt.NDArray[np.signedinteger]]


@dataclass(frozen=True, slots=True)
class Example:
    """A circuit and all its numbers but constants."""

    circuit: Circuit
    weights: Arrays
    public: Arrays
    witness: Arrays

    @property
    def values(self) -> Arrays:
        return {**self.weights, **self.public, **self.witness}


def along(*axes: int | tuple[int, int]) -> tuple[Index, ...]:
    """An index for each axis of a source: the space's axis, or (axis, stride)."""
    return tuple(Index(((axis, 1),) if isinstance(axis, int) else (axis,)) for axis in axes)


def read(source: str, *axes: int, times: int = 1, constant: int = 0) -> Expr:
    return Expr((Read(source, along(*axes), times),), constant)


def dense(tokens: int = 3, inputs: int = 5, outputs: int = 6, seed: int = 0) -> Example:
    """y = relu((x w) >> 4): a product with public weights, a remainder in range, a table of two columns."""
    random = np.random.default_rng(seed)
    x, w = random.integers(-8, 8, (tokens, inputs)), random.integers(-8, 8, (inputs, outputs)).astype(np.int8)
    total = x @ w.astype(np.int64)
    quotient, rest = total >> 4, total & 15
    reach = 4 * inputs + 1
    rows = np.arange(-reach, reach)
    shape, whole = (tokens, outputs), Expr((Read("q", along(0, 1), 16), Read("r", along(0, 1))))
    circuit = Circuit(
        (
            Source("x", x.shape, "public"),
            Source("w", w.shape, "weight", (-8, 7)),
            Source("q", shape, "witness"),
            Source("r", shape, "witness"),
            Source("y", shape, "public"),
        ),
        (Table("rest", (np.arange(16),)), Table("relu", (rows, np.maximum(rows, 0)))),
        (
            Lookup("rest in range", shape, "rest", (read("r", 0, 1),)),
            Lookup("relu", shape, "relu", (read("q", 0, 1), read("y", 0, 1))),
        ),
        (Identity("x w", shape, (inputs,), ((read("x", 0, 2), read("w", 2, 1)),), whole),),
    )
    return Example(circuit, {"w": w}, {"x": x, "y": np.maximum(quotient, 0)}, {"q": quotient, "r": rest})


def convolution(size: int = 7, channels: int = 3, seed: int = 0) -> Example:
    """A convolution of 3 x 3 with stride 2 and padding 1, then the greatest of each 2 x 2 by differences in range."""
    random, half = np.random.default_rng(seed), (size + 1) // 2
    pooled = half // 2
    x, w = random.integers(-4, 5, (2, size, size)), random.integers(-3, 4, (channels, 2, 3, 3)).astype(np.int16)
    padded, y = np.pad(x, ((0, 0), (1, 1), (1, 1))), np.zeros((channels, half, half), np.int64)
    for i, j in np.ndindex(half, half):
        y[:, i, j] = np.tensordot(w.astype(np.int64), padded[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3], 3)
    blocks = y[:, : 2 * pooled, : 2 * pooled].reshape(channels, pooled, 2, pooled, 2).transpose(0, 1, 3, 2, 4)
    best = blocks.max(axis=(3, 4))
    hit = np.zeros((channels, pooled, pooled, 4), np.int64)
    np.put_along_axis(hit, blocks.reshape(channels, pooled, pooled, 4).argmax(3)[..., None], 1, 3)
    hit = hit.reshape(channels, pooled, pooled, 2, 2)
    # axes of the pooling: channel, row, column, row in the block, column in the block
    inside = (Index(((0, 1),)), Index(((1, 2), (3, 1))), Index(((2, 2), (4, 1))))
    gap = Expr((Read("best", along(0, 1, 2)), Read("y", inside, -1)))
    box, reach = (channels, pooled, pooled, 2, 2), 2 * 4 * 3 * 18 + 1
    summed_hit = Expr((Read("hit", along(0, 1, 2, 3, 4)),))
    circuit = Circuit(
        (
            Source("x", x.shape, "public"),
            Source("w", w.shape, "weight", (-3, 3)),
            Source("y", y.shape, "witness"),
            Source("best", best.shape, "public"),
            Source("hit", hit.shape, "witness"),
        ),
        (Table("gap", (np.arange(reach),)), Table("bit", (np.arange(2),))),
        (Lookup("no greater one", box, "gap", (gap,)), Lookup("a bit", box, "bit", (summed_hit,))),
        (
            Identity(
                "convolution",
                y.shape,
                (2, 3, 3),
                (
                    (
                        Expr((Read("x", (Index(((3, 1),)), *(Index(((a, 2), (a + 3, 1)), -1) for a in (1, 2)))),)),
                        read("w", 0, 3, 4, 5),
                    ),
                ),
                read("y", 0, 1, 2),
            ),
            Identity("one is met", best.shape, (2, 2), ((summed_hit, gap),), Expr()),
            Identity("one hit", best.shape, (2, 2), ((summed_hit, Expr((), 1)),), Expr((), 1)),
        ),
    )
    return Example(circuit, {"w": w}, {"x": x, "best": best}, {"y": y, "hit": hit})


def attention(heads: int = 3, tokens: int = 5, width: int = 4, seed: int = 0) -> Example:
    """Products batched over heads (scores, then their sums with values), a mask in constants, a mean broadcast back."""
    random = np.random.default_rng(seed)
    q, k, v = (random.integers(-4, 5, (heads, tokens, width)) for _ in range(3))
    mask = np.tril(np.ones((tokens, tokens), np.int64))
    scores = np.einsum("hid,hjd->hij", q, k) * mask
    out = np.einsum("hij,hjd->hid", scores, v)
    total = scores.sum(axis=2)
    spread = scores * tokens - total[:, :, None]
    masked = ((Expr((Read("q", along(0, 1, 3)),)), Expr((Read("k", along(0, 2, 3)),))),)  # heads, i, j; summed: width
    both = np.stack([q, k])
    circuit = Circuit(
        (
            Source("q", q.shape, "public"),
            Source("k", k.shape, "public"),
            Source("v", v.shape, "public"),
            Source("raw", scores.shape, "witness"),
            Source("s", scores.shape, "witness"),
            Source("mask", mask.shape, "constant"),
            Source("spread", spread.shape, "witness"),
            Source("out", out.shape, "public"),
        ),
        (),
        (),
        (
            Identity("raw scores", scores.shape, (width,), masked, read("raw", 0, 1, 2)),
            Identity("masked", scores.shape, (), ((read("raw", 0, 1, 2), read("mask", 1, 2)),), read("s", 0, 1, 2)),
            Identity(
                "spread",
                scores.shape,
                (),
                (),
                Expr(
                    (
                        Read("s", along(0, 1, 2), tokens),
                        Read("s", (*along(0, 1), Index(summed=True)), -1),
                        Read("spread", along(0, 1, 2), -1),
                    )
                ),
            ),
            Identity("sums", out.shape, (tokens,), ((read("s", 0, 1, 3), read("v", 0, 3, 2)),), read("out", 0, 1, 2)),
        ),
        {"mask": mask},
    )
    raw = np.einsum("hid,hjd->hij", both[0], both[1])
    return Example(circuit, {}, {"q": q, "k": k, "v": v, "out": out}, {"raw": raw, "s": scores, "spread": spread})


def embedding(vocabulary: int = 11, width: int = 3, tokens: int = 6, seed: int = 0) -> Example:
    """Rows of a weight matrix picked by public tokens, halves of a number by a coefficient 1 / 4 modulo p, a scalar."""
    random = np.random.default_rng(seed)
    w, t = random.integers(-9, 10, (vocabulary, width)), random.integers(0, vocabulary, tokens)
    rows, scale = w[t], np.array(3)
    low, whole = (rows * scale) & 3, rows * scale
    quarter = pow(4, -1, 0xFFFF_FFFF_0000_0001)
    picked = Expr((Read("w", (Index(((0, 1),), gather="t"), Index(((1, 1),)))),))
    high = Expr((Read("whole", along(0, 1), quarter), Read("low", along(0, 1), -quarter)))
    circuit = Circuit(
        (
            Source("w", w.shape, "weight", (-9, 9)),
            Source("t", t.shape, "public"),
            Source("scale", (), "public"),
            Source("whole", whole.shape, "witness"),
            Source("low", low.shape, "witness"),
            Source("sum", (), "public"),
        ),
        (Table("low", (np.arange(4),)), Table("high", (np.arange(-8, 8),))),
        (
            Lookup("low", whole.shape, "low", (read("low", 0, 1),)),
            Lookup("high", whole.shape, "high", (high,)),
        ),
        (
            Identity("scaled", whole.shape, (), ((picked, Expr((Read("scale", ()),))),), read("whole", 0, 1)),
            Identity("sum", (), (tokens,), ((read_summed("whole"), Expr((), 1)),), Expr((Read("sum", ()),))),
        ),
    )
    public = {"t": t, "scale": scale, "sum": np.array(whole.sum())}
    return Example(circuit, {"w": w}, public, {"whole": whole, "low": low})


def read_summed(source: str) -> Expr:
    """Rows of a matrix along axis 0, each row summed up."""
    return Expr((Read(source, (Index(((0, 1),)), Index(summed=True))),))


def rounds_apart(seed: int = 0) -> Example:
    """Products with 0, 1, 3 and 6 variables under one sumcheck."""
    random = np.random.default_rng(seed)
    x, y = random.integers(-5, 6, (5, 9)), random.integers(-5, 6, (2,))
    circuit = Circuit(
        (Source("x", x.shape, "public"), Source("y", y.shape, "public"), Source("s", (4,), "witness")),
        (Table("any", (np.arange(-1200, 1200),)),),
        (Lookup("in range", (4,), "any", (read("s", 0),)),),
        (
            Identity("squares", (), (5, 9), ((read("x", 0, 1), read("x", 0, 1)),), _entry("s", 0)),
            Identity("pairs", (), (2,), ((read("y", 0), read("y", 0)),), _entry("s", 1)),
            Identity("row", (), (5,), ((_column("x", 2), _column("x", 3)),), _entry("s", 2)),
            Identity("numbers", (), (), ((_entry("y", 0), _entry("y", 1, 7)),), _entry("s", 3)),
        ),
    )
    sums = [(x * x).sum(), (y * y).sum(), (x[:, 2] * x[:, 3]).sum(), y[0] * (y[1] + 7)]
    return Example(circuit, {}, {"x": x, "y": y}, {"s": np.array(sums)})


def with_witness(example: Example, name: str, index: tuple[int, ...], change: int) -> Example:
    """One number of the witness changed."""
    changed = example.witness[name].copy()
    changed[index] += change
    return replace(example, witness={**example.witness, name: changed})


def all_examples() -> dict[str, Example]:
    return {
        "dense": dense(),
        "convolution": convolution(),
        "attention": attention(),
        "embedding": embedding(),
        "rounds apart": rounds_apart(),
    }


def _entry(source: str, position: int, constant: int = 0) -> Expr:
    return Expr((Read(source, (Index(offset=position),)),), constant)


def _column(source: str, position: int) -> Expr:
    return Expr((Read(source, (Index(((0, 1),)), Index(offset=position))),))
