"""More threads than cores, and cores taken by others: steps get slower, and never different."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

import numpy as np
import pytest

from shoal.models.forced import forced_logits
from shoal.models.native_runner import NativeRunner
from shoal.models.tiny import tiny_checkpoint

CHUNKS = [(0, 3, 20), (1, 20, 1), (0, 16, 40)]


def sequences(vocab: int) -> list[list[int]]:
    rng = np.random.default_rng(3)
    return [rng.integers(0, vocab, length).tolist() for length in (1, 40, 77)]


@contextmanager
def busy_core() -> Iterator[None]:
    """A process that computes without end, and has begun to."""
    script = "print(flush=True)\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield
        finally:
            process.kill()


@pytest.mark.parametrize("family", ["llama", "qwen3moe"])
def test_logits_are_the_same_bits_with_more_threads_than_cores_beside_a_busy_process(family: str) -> None:
    checkpoint = tiny_checkpoint(family, storage="Q4_1")  # type: ignore[arg-type]
    wanted = sequences(checkpoint.config.vocab_size)
    with closing(NativeRunner(checkpoint, num_blocks=16, threads=1)) as alone:
        expected = forced_logits(alone, wanted, CHUNKS)
    many = max(4, 2 * len(os.sched_getaffinity(0)))
    with busy_core(), closing(NativeRunner(checkpoint, num_blocks=16, threads=many)) as crowded:
        for _ in range(3):
            for got, rows in zip(forced_logits(crowded, wanted, CHUNKS), expected, strict=True):
                assert np.array_equal(got, rows)


def test_runners_in_one_process_share_its_cores_without_disturbing_one_another() -> None:
    checkpoint = tiny_checkpoint("llama", storage="Q8_0")
    wanted = sequences(checkpoint.config.vocab_size)
    same: list[bool] = []

    def work(runner: NativeRunner, expected: list[np.ndarray]) -> None:
        for _ in range(4):
            same.extend(map(np.array_equal, forced_logits(runner, wanted, CHUNKS), expected))

    runners = [NativeRunner(checkpoint, num_blocks=16, threads=threads) for threads in (1, 2, 3)]
    expected = forced_logits(runners[0], wanted, CHUNKS)
    workers = [threading.Thread(target=work, args=(runner, expected)) for runner in runners]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for runner in runners:
        runner.close()
    assert same == [True] * 36
