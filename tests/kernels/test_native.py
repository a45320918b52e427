"""The C kernels against numpy: every storage type, every instruction set here, odd shapes, special values."""

from __future__ import annotations

import threading
from pathlib import Path

import native_harness as harness
import numpy as np
import pytest
from native_harness import BLOCKS, ISAS

from shoal.core.errors import Unsupported
from shoal.kernels import build, native
from shoal.kernels.quant import dequantize

QUANTIZED = [storage for storage, (block, _) in BLOCKS.items() if block > 1]
ODD_ROWS = (1, 7, 16, 17, 45)


@pytest.fixture(params=ISAS)
def library(request: pytest.FixtureRequest) -> native.Library:
    return native.load(request.param)


@pytest.mark.parametrize("storage", QUANTIZED)
def test_a_quantised_product_equals_float64_over_the_same_codes(library: native.Library, storage: str) -> None:
    rng = np.random.default_rng(1)
    for rows, m in zip(ODD_ROWS, (1, 2, 3, 9, 13), strict=True):
        columns = BLOCKS[storage][0] * 3
        data = harness.random_weights(storage, rows, columns, rng)
        x = (rng.standard_normal((m, columns)) * 3).astype(np.float32)
        got = harness.product(library, storage, data, x, rows)
        exact = harness.quantized(x) @ dequantize(storage, data, columns).astype(np.float64).T
        size = np.abs(harness.quantized(x)) @ np.abs(dequantize(storage, data, columns).astype(np.float64)).T
        assert (
            np.abs(got - exact) <= 2e-3 * size if storage.endswith("K") else np.abs(got - exact) <= 1e-5 * size
        ).all()


@pytest.mark.parametrize("storage", ["F32", "F16", "BF16"])
def test_a_float_product_equals_float64(library: native.Library, storage: str) -> None:
    rng = np.random.default_rng(2)
    for rows, m, columns in ((1, 1, 5), (19, 7, 33), (32, 11, 64)):
        data = harness.random_weights(storage, rows, columns, rng)
        x = rng.standard_normal((m, columns)).astype(np.float32)
        exact = x.astype(np.float64) @ dequantize(storage, data, columns).astype(np.float64).T
        assert np.abs(harness.product(library, storage, data, x, rows) - exact).max() < 2e-5


@pytest.mark.parametrize("storage", list(BLOCKS))
def test_a_row_does_not_depend_on_the_rows_beside_it_nor_on_threads(library: native.Library, storage: str) -> None:
    rng = np.random.default_rng(3)
    columns = max(BLOCKS[storage][0], 32) * 2
    data = harness.random_weights(storage, 40, columns, rng)
    x = rng.standard_normal((101, columns)).astype(np.float32)
    together = harness.product(library, storage, data, x, 40)
    for rows in (1, 2, 5, 8, 33):
        assert np.array_equal(harness.product(library, storage, data, x[:rows], 40, threads=1), together[:rows])


@pytest.mark.parametrize("storage", list(BLOCKS))
def test_an_embedding_row_is_the_dequantised_row(library: native.Library, storage: str) -> None:
    columns = max(BLOCKS[storage][0], 32) * 2
    data = harness.random_weights(storage, 21, columns, np.random.default_rng(4))
    matrix, _memory = native.pack(library, storage, data, 21, columns)
    exact = dequantize(storage, data, columns)
    got = np.zeros((21, columns), np.float32)
    for row in range(21):
        library.c.shoal_unpack_row(matrix, row, got[row].ctypes.data)
    if storage.endswith("_K"):  # two scales become one half: 2^-11 of each term, and terms of a block cancel
        assert np.abs(got - exact).max() <= 2**-10 * np.abs(exact).max()
    else:
        assert np.array_equal(got, exact)


def test_activations_are_quantised_to_nearest_even(library: native.Library) -> None:
    rng = np.random.default_rng(5)
    x = (rng.standard_normal((9, 96)) * 10.0 ** rng.integers(-30, 30, (9, 1))).astype(np.float32)
    x[0, :32] = 0
    x[1, :32] = np.float32(1e-42)  # subnormal: the inverse of its scale would be infinite
    codes, scales = np.zeros((9, 96), np.int8), np.zeros((9, 3), np.float32)
    library.c.shoal_quantize_rows(x.ctypes.data, 9, 96, codes.ctypes.data, scales.ctypes.data)
    back = codes.astype(np.float64) * np.repeat(scales, 32, 1)
    expected = harness.quantized(x)
    assert np.array_equal(back == 0, expected == 0)
    assert np.allclose(back, expected, rtol=1e-6, atol=0)
    largest = np.repeat(np.abs(x).reshape(9, 3, 32).max(2), 32, 1)
    assert (np.abs(back - x) <= largest / 253 + 2.0**-119).all()


def test_products_of_zero_and_of_tiny_activations_are_finite(library: native.Library) -> None:
    data = harness.random_weights("Q4_1", 16, 64, np.random.default_rng(6))
    x = np.zeros((3, 64), np.float32)
    x[1] = 1e-42
    x[2] = 1e30
    assert np.isfinite(harness.product(library, "Q4_1", data, x, 16)).all()


def test_a_shape_the_storage_cannot_have_is_refused(library: native.Library) -> None:
    with pytest.raises(Unsupported, match="whole blocks"):
        native.pack(library, "Q4_K", np.zeros((4, 144), np.uint8), 4, 128)


def test_two_pools_in_two_threads_do_not_disturb_one_another(library: native.Library) -> None:
    rng = np.random.default_rng(7)
    data = harness.random_weights("Q8_0", 64, 128, rng)
    x = rng.standard_normal((64, 128)).astype(np.float32)
    expected = harness.product(library, "Q8_0", data, x, 64)
    same: list[bool] = []

    def work() -> None:
        same.extend(np.array_equal(harness.product(library, "Q8_0", data, x, 64), expected) for _ in range(20))

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert same == [True] * 60


def test_an_instruction_set_this_cpu_lacks_is_refused_by_name() -> None:
    with pytest.raises(Unsupported, match="neon9"):
        build.library_path("neon9")


def test_without_a_compiler_the_status_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setattr(build, "find_compiler", lambda: None)
    found = build.status(cache_dir=tmp_path)  # type: ignore[arg-type]
    assert found.kind == "none"
    assert "install gcc or clang" in found.detail


def test_a_compiler_that_fails_is_quoted(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setattr(build, "find_compiler", lambda: ("/bin/sh", "-c", "echo no such luck >&2; exit 3"))
    with pytest.raises(Unsupported, match="no such luck"):
        build.library_path(cache_dir=tmp_path)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []  # type: ignore[attr-defined]


def test_sources_edited_during_a_build_do_not_get_into_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A library once held the new files under the old files' name, and every later process loaded it."""
    sources, seen = tmp_path / "csrc", tmp_path / "seen"
    sources.mkdir()
    (sources / "shoal.c").write_text("old")
    compiler = (
        "/bin/sh",
        "-c",
        f'echo new > {sources}/shoal.c; for a; do case $a in *.c) cat "$a" > {seen};; esac; done',
        "x",
    )
    monkeypatch.setattr(build, "SOURCES", sources)
    monkeypatch.setattr(build, "find_compiler", lambda: compiler)
    before = build.library_path(cache_dir=tmp_path)
    assert seen.read_text() == "old"
    assert build.library_path(cache_dir=tmp_path) != before
