"""Machines for tests of checks: engines over a fake runner, honest with noise or another model, and their receipts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np

from shoal.core.chunk import Usage
from shoal.core.clock import VirtualClock
from shoal.core.receipt import ModelIdentity, Opening, Receipt
from shoal.core.request import Request, Sampling
from shoal.crypto.keys import PrivateKey
from shoal.engine.engine import Engine, EngineConfig
from shoal.engine.fakes import FakeRunner
from shoal.engine.language import Language
from shoal.engine.plan import SchedulerConfig
from shoal.models.batch import Batch
from shoal.models.tiny import tiny_checkpoint
from shoal.models.tokenizer import load_tokenizer
from shoal.trust.check import Subject
from shoal.trust.check_rerun import Rerunner, sampler_state
from shoal.trust.fingerprint import fingerprint
from shoal.trust.gather import Gathered
from shoal.trust.receipt import sign
from shoal.trust.seal import draft

WEIGHTS = bytes(range(32))
BLOCKS = 256


class NoisyRunner:
    """A runner whose numbers are off by `noise`, as another arithmetic's are, and drawn anew for another `model`."""

    def __init__(self, noise: float = 0.0, model: int = 0) -> None:
        self._inner = FakeRunner(num_blocks=BLOCKS, block_size=4, hidden_size=64)
        self.num_blocks, self.block_size = BLOCKS, 4
        self.vocab_size, self.hidden_size, self.max_adapters = 259, 64, 2
        self._noise, self._model = noise, model
        self.num_rows = 0

    def run(self, batch: Batch) -> np.ndarray:
        self.num_rows += len(batch.tokens)
        return self._changed(self._inner.run(batch))

    def taps(self) -> np.ndarray:
        return self._changed(self._inner.taps())

    def _changed(self, rows: np.ndarray) -> np.ndarray:
        """The noise of a row follows from the row, so that it does not depend on who shares its batch."""
        if self._model:
            rows = np.roll(rows, self._model, axis=1)
        noise = [np.random.default_rng(abs(int(row[0] * 1e6))).standard_normal(len(row)) for row in rows]
        return np.asarray(rows + self._noise * np.array(noise).reshape(rows.shape), np.float32)

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)


@cache
def language() -> Language:
    return Language(load_tokenizer(tiny_checkpoint("llama").tokenizer), None)


@dataclass(frozen=True, slots=True)
class Machine:
    engine: Engine
    rerunner: Rerunner
    key: PrivateKey
    runner: NoisyRunner

    async def find(self, request: Request) -> Rerunner:
        return self.rerunner

    async def answer(self, request: Request) -> Subject:
        """The answer's receipt and opening, signed here."""
        gathered = Gathered(request)
        async for chunk in self.engine.generate(replace(request, receipt=True)):
            gathered.add(chunk)
        return self.signed(*draft(request, gathered, Usage(), bytes(range(1, 33))))

    def signed(self, receipt: Receipt, opening: Opening) -> Subject:
        whole = replace(receipt, model=self.rerunner.identity, sequence=1, previous=bytes(32), created=1)
        return Subject(sign(whole, self.key), opening)


@asynccontextmanager
async def machine(number: int = 0, noise: float = 0.0, model: int = 0) -> AsyncIterator[Machine]:
    runner = NoisyRunner(noise, model)
    scheduler = SchedulerConfig(block_size=4, num_blocks=BLOCKS, prefill_chunk=64, max_outputs=64)
    clock = VirtualClock()
    engine = Engine(EngineConfig("tiny", 512, 2, scheduler), runner, language(), clock, take=fingerprint)
    identity = ModelIdentity("tiny", WEIGHTS, "F32", device="cpu", kernels=f"fake-{number}", kv="f32")
    tokenizer = language().tokenizer
    state = partial(sampler_state, tokenizer.vocab_size, tokenizer.eos_ids)
    rerunner = Rerunner(identity, 2, partial(engine.session, None, 9), language().prompt, state)
    try:
        yield Machine(engine, rerunner, PrivateKey(bytes([number] * 32)), runner)
    finally:
        await engine.stop()


def asked(number: int = 0, length: int = 40, temperature: float = 1.0, n: int = 1) -> Request:
    sampling = Sampling(temperature=temperature, seed=number, max_tokens=length, ignore_eos=True)
    return Request(f"r{number}", "tiny", f"question number {number}", sampling, n=n, receipt=True)


def with_opening(subject: Subject, tokens: Sequence[int]) -> Opening:
    """The opening with other tokens of its first choice."""
    first, *rest = subject.opening.outputs
    return replace(subject.opening, outputs=(replace(first, tokens=tuple(tokens)), *rest))
