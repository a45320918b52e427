"""The recorder and `lower`: residuals, shared quantisation, experts and adapters compute what the program says."""

from __future__ import annotations

from dataclasses import replace

import native_harness as harness
import numpy as np
import pytest

from shoal.kernels import native
from shoal.kernels.executor import CacheShape, Executor, ExpertShape, pack_adapter
from shoal.kernels.program import Code, Node, Recorder, lower


def _embed(recorder: Recorder, weights: harness.Weights, x: np.ndarray) -> int:
    value = recorder.value(x.shape[1])
    recorder.add(Node(Code.EMBED, (), (value,), x.shape[1], weights=(weights.floats(x),), f=1.0))
    return value


def _linear(recorder: Recorder, weights: harness.Weights, x: int, w: np.ndarray, target: int = 0) -> int:
    out = recorder.value(len(w))
    recorder.add(Node(Code.PRODUCTS, (x,), (out,), w.shape[1], count=1, adds=(False,), targets=(target,),
                      weights=(weights.floats(w),), biases=(0,)))  # fmt: skip
    return out


def _one(recorder: Recorder, code: Code, reads: tuple[int, ...], columns: int, **fields: object) -> int:
    out = recorder.value(columns)
    recorder.add(Node(code, reads, (out,), columns, **fields))  # type: ignore[arg-type]
    return out


def test_residual_blocks_fold_into_their_products_and_reuse_buffers() -> None:
    rng = np.random.default_rng(0)
    library = native.load()
    weights, recorder = harness.Weights(library), Recorder()
    x = rng.standard_normal((13, 64)).astype(np.float32)
    stream, expected = _embed(recorder, weights, x), x.astype(np.float64)
    for _ in range(4):
        gain, w = rng.standard_normal(64), rng.standard_normal((64, 64)) / 8
        normed = _one(recorder, Code.NORM, (stream,), 64, p=weights.vector(gain), f=1e-5)
        stream = _one(recorder, Code.ADD, (stream, _linear(recorder, weights, normed, w)), 64)
        plain = expected / np.sqrt((expected**2).mean(1, keepdims=True) + 1e-5) * gain.astype(np.float32)
        expected = expected + plain @ w.astype(np.float32).T
    lowered = lower(recorder, stream)
    assert not any(op.code == Code.ADD for op in lowered.ops)
    assert len(lowered.columns) == 2
    runner = harness.executor(library, recorder, stream)
    assert np.abs(runner.run(harness.rows_step(13)) - expected).max() < 1e-4
    runner.close()


def test_an_addition_whose_operand_lives_on_is_not_folded() -> None:
    """x + W x is needed, and x again after it: folding would have overwritten x."""
    rng = np.random.default_rng(1)
    library = native.load()
    weights, recorder = harness.Weights(library), Recorder()
    x, w = rng.standard_normal((5, 32)).astype(np.float32), rng.standard_normal((32, 32)).astype(np.float32)
    value = _embed(recorder, weights, x)
    total = _one(recorder, Code.ADD, (value, _linear(recorder, weights, value, w)), 32)
    again = _one(recorder, Code.ADD, (total, value), 32)
    runner = harness.executor(library, recorder, again)
    assert np.abs(runner.run(harness.rows_step(5)) - (2 * x + x @ w.T)).max() < 1e-4
    runner.close()


def test_rows_are_quantised_once_for_every_product_that_shares_them() -> None:
    rng = np.random.default_rng(2)
    library = native.load()
    weights, recorder = harness.Weights(library), Recorder()
    x = rng.standard_normal((3, 64)).astype(np.float32)
    normed = _one(recorder, Code.NORM, (_embed(recorder, weights, x),), 64, p=weights.vector(np.ones(64)), f=1e-5)
    outs = [recorder.value(32) for _ in range(2)]
    for out in outs:
        data = harness.random_weights("Q4_0", 32, 64, rng)
        recorder.add(Node(Code.PRODUCTS, (normed,), (out,), 64, count=1, is_quantized=True, adds=(False,), targets=(0,),
                          weights=(weights.matrix("Q4_0", data, 32, 64),), biases=(0,)))  # fmt: skip
    total = _one(recorder, Code.ADD, (outs[0], outs[1]), 32)
    codes = [op.code for op in lower(recorder, total).ops]
    assert codes == [Code.EMBED, Code.NORM, Code.PRODUCTS, Code.PRODUCTS]  # no QUANTIZE; the sum is in the product


def test_experts_equal_a_loop_over_rows() -> None:
    rng = np.random.default_rng(3)
    library = native.load()
    rows, hidden, ffn, experts, per_token = 37, 64, 96, 5, 2
    weights, recorder = harness.Weights(library), Recorder()
    x, router = (rng.standard_normal((rows, n)).astype(np.float32) for n in (hidden, experts))
    stacks = {"gate": (ffn, hidden), "up": (ffn, hidden), "down": (hidden, ffn)}
    values = {name: (rng.standard_normal((experts, *shape)) / 8).astype(np.float32) for name, shape in stacks.items()}
    addresses, kept = {}, []
    for name, stack in values.items():
        matrices = (native.Matrix * experts)()
        for index, w in enumerate(stack):
            matrices[index], memory = native.pack(library, "F32", w.view(np.uint8), *w.shape)
            kept.append(memory)
        kept.append(matrices)
        addresses[name] = native.c.addressof(matrices)
    node = {"heads": per_token, "count": experts, "flags": 1, "p": addresses["gate"], "p2": addresses["up"]}
    source, routed = _embed(recorder, weights, x), _embed(recorder, weights, router)
    out = _one(recorder, Code.EXPERTS, (source, routed), hidden, weights=(addresses["down"],), **node)
    shape = ExpertShape(experts, per_token, hidden, ffn)
    runner = Executor(library, lower(recorder, out), CacheShape(1, 1, 16, 1, 16, "f32"), threads=2, hidden_size=1,
                      experts=shape)  # fmt: skip
    got = runner.run(harness.rows_step(rows))
    probabilities = np.exp(router.astype(np.float64))
    probabilities /= probabilities.sum(1, keepdims=True)
    for row in range(rows):
        chosen = np.argsort(-probabilities[row])[:per_token]
        expected = np.zeros(hidden)
        for expert in chosen:
            gate, up = values["gate"][expert] @ x[row], values["up"][expert] @ x[row]
            inner = gate / (1 + np.exp(-gate)) * up
            expected += probabilities[row][expert] / probabilities[row][chosen].sum() * (values["down"][expert] @ inner)
        assert np.abs(got[row] - expected).max() < 1e-4
    runner.close()


def test_adapters_of_several_sequences_apply_to_their_own_rows_only() -> None:
    rng = np.random.default_rng(4)
    library = native.load()
    weights, recorder = harness.Weights(library), Recorder()
    x, w = rng.standard_normal((9, 32)).astype(np.float32), rng.standard_normal((48, 32)).astype(np.float32)
    out = _linear(recorder, weights, _embed(recorder, weights, x), w)
    runner = Executor(library, lower(recorder, out), CacheShape(1, 1, 16, 1, 16, "f32"), threads=2, hidden_size=1,
                      num_targets=1, max_adapters=3)  # fmt: skip
    deltas = {}
    for slot, rank in ((0, 3), (2, 5)):
        a, b = rng.standard_normal((rank, 32)).astype(np.float32), rng.standard_normal((48, rank)).astype(np.float32)
        runner.set_adapter(slot, pack_adapter(0.5, {0: (a, b)}))
        deltas[slot] = 0.5 * b @ a
    step = harness.rows_step(9)
    step.query_start, step.adapters = np.array([0, 4, 6, 9], np.int32), np.array([2, -1, 0], np.int32)
    expected = np.concatenate([x[:4] @ (w + deltas[2]).T, x[4:6] @ w.T, x[6:] @ (w + deltas[0]).T])
    assert np.abs(runner.run(step) - expected).max() < 1e-4
    runner.drop_adapter(2)
    assert runner.adapter_slots == {0}
    runner.close()


@pytest.mark.parametrize("isa", harness.ISAS)
@pytest.mark.parametrize("width", [7, 48, 1000])
def test_best_is_the_first_largest_element_of_each_row_or_says_that_the_row_is_odd(isa: str, width: int) -> None:
    rng = np.random.default_rng(width)
    library = native.load(isa)
    weights, recorder = harness.Weights(library), Recorder()
    x = rng.integers(-3, 4, (40, width)).astype(np.float32)  # many equal ones
    for row, odd in enumerate((np.nan, np.inf, -np.inf)):
        x[row, rng.integers(width)] = odd
    source, out = _embed(recorder, weights, x), recorder.value(width)
    recorder.add(Node(Code.GATHER, (source,), (out,), width, on_outputs=True))
    runner = harness.executor(library, recorder, out)
    got = runner.run(harness.rows_step(40))
    assert np.array_equal(got, x, equal_nan=True)
    assert runner.best().tolist() == [-1] * 3 + x[3:].argmax(axis=1).tolist()
    runner.close()


def test_a_result_as_wide_as_another_value_has_room_for_every_row() -> None:
    """The result's buffer had room for the output rows only, and was shared with a value of all rows: memory behind it
    was overwritten wherever a vocabulary was as large as a layer."""
    rng = np.random.default_rng(5)
    library = native.load()
    weights, recorder = harness.Weights(library), Recorder()
    x, w = rng.standard_normal((4096, 32)).astype(np.float32), rng.standard_normal((32, 32)).astype(np.float32)
    value = _embed(recorder, weights, x)
    gain = rng.standard_normal(32)
    normed = _one(recorder, Code.NORM, (value,), 32, p=weights.vector(gain), f=1e-5)
    one, two = _linear(recorder, weights, normed, w), _linear(recorder, weights, normed, w * 2)
    total = _one(recorder, Code.NORM, (_one(recorder, Code.GATED, (one, two), 32),), 32, p=weights.vector(gain), f=1e-5)
    rows = _one(recorder, Code.GATHER, (total,), 32, on_outputs=True)
    result = recorder.value(32)
    recorder.add(Node(Code.PRODUCTS, (rows,), (result,), 32, on_outputs=True, count=1, adds=(False,), targets=(0,),
                      weights=(weights.floats(w),), biases=(0,)))  # fmt: skip
    lowered = lower(recorder, result)
    assert lowered.result not in lowered.narrow, "the buffers are no longer shared: nothing is tested"
    runner = harness.executor(library, recorder, result)
    whole = runner.run(harness.rows_step(4096)).copy()
    runner.close()
    runner = harness.executor(library, recorder, result)
    step = harness.rows_step(4096)
    few = replace(step, output_rows=np.array([0, 77, 4095], np.int32))
    assert np.array_equal(runner.run(few), whole[[0, 77, 4095]])
    assert runner._buffers[lowered.result].size >= 32 * 4096
    runner.close()
