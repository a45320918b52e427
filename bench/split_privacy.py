"""What a peer reads of a prompt from the hidden states of a split model, and what a split costs.

Claim: none of privacy. The table says, for each depth, what share of tokens three attacks recover; what noise costs the
answer and the attacker; whether a secret rotation helps; and speed and bytes of a split model against the whole one.

Text to fit attacks on: Python's own language reference (pydoc). Text attacked: the prompts below, which hold what
people would not want read, and the beginning of a novel. The attacker knows how a chat's turn begins; those tokens are
not counted. No peer is compared: there is no claim to be faster.

    python bench/split_privacy.py [--quick] [--model FILE] [--threads N]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import pydoc_data.topics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.inversion import (
    CROWD,
    LENGTH,
    SUGGESTED,
    Checker,
    Embeddings,
    States,
    first_matrices,
    fit_ridge,
    matrix,
    nearest,
    sequences_batch,
    undo_rotation,
)
from common.report import finish, machine, table
from shoal.core.clock import SystemClock
from shoal.core.request import Request, Sampling
from shoal.engine.load import RunnerOptions
from shoal.mesh.fakes import LocalMesh
from shoal.models.catalogue import DEFAULT_MODEL
from shoal.models.checkpoint import Checkpoint, open_checkpoint
from shoal.models.config import Part
from shoal.models.native_runner import NativeRunner
from shoal.models.part import part_of
from shoal.models.store import Store
from shoal.models.tokenizer import load_tokenizer
from shoal.node.compose import language_of
from shoal.node.home import home
from shoal.parallel.host import StageHost
from shoal.parallel.private import PrivateModel
from shoal.parallel.split import Place, Split, ask_offers, connected, open_stage

DEPTHS = (1, 2, 4, 8, 12, 16, 20, 24, 29)
QUICK_DEPTHS = (1, 4, 8, 16, 29)
CHECKED = (1, 8, 16, 29)
NOISES = (0.02, 0.05, 0.1, 0.2, 0.5)
QUICK_NOISES = (0.05, 0.2)
NOISE_DEPTH = 8
PROMPTS = (
    "My name is Ingrid Halvorsen, I was born on 14 March 1987, and my doctor found a lump in my left breast.",
    "Please draft a letter to Mr. Okafor: we will sell the Rotterdam warehouse for 4.2 million euros before June.",
    "My password for the hospital portal is maple-Tiger-4471, can you turn it into a rhyme I will remember?",
    "I owe my brother Tomasz 12,000 dollars and I lied to my wife about the casino. How do I tell her?",
    "The patient, a 43-year-old HIV-positive man from Leeds, refuses treatment. Summarise his legal position.",
    "Our unreleased chip, code name Basalt, taped out on Tuesday and draws 61 watts. Write the press release.",
    "Ich habe mein Kind im Auto vergessen, nur zehn Minuten. Muss ich das dem Jugendamt melden?",
    "def transfer(iban='DE89370400440532013000', amount=950): # why does this fail for user kessler?",
)


TURN = "<|im_start|>user\n"


def corpus(checkpoint: Checkpoint, count: int) -> list[list[int]]:
    """Sequences of `LENGTH` tokens of reference text."""
    text = "\n".join(pydoc_data.topics.topics[name] for name in sorted(pydoc_data.topics.topics))
    tokenizer = load_tokenizer(checkpoint.tokenizer)
    turn = tokenizer.encode(TURN, parse_special=True)
    tokens, size = tokenizer.encode(text[: 6 * LENGTH * count]), LENGTH - len(turn)
    return [turn + tokens[first : first + size] for first in range(0, size * count, size)]


def attacked(checkpoint: Checkpoint) -> list[list[int]]:
    """PROMPTS, then pieces of the novel."""
    tokenizer = load_tokenizer(checkpoint.tokenizer)
    turn = tokenizer.encode(TURN, parse_special=True)
    novel = (Path(__file__).parents[1] / "tests" / "data" / "teacher_forced.txt").read_text()
    tokens, size = tokenizer.encode(novel), LENGTH - len(turn)
    pieces = [tokens[first : first + size] for first in range(0, 3 * size, size)]
    return [turn + item for item in (*map(tokenizer.encode, PROMPTS), *pieces)]


def noisy(states: Sequence[np.ndarray], strength: float, seed: int) -> list[np.ndarray]:
    chance = np.random.default_rng(seed)
    scale = [strength * np.sqrt(np.mean(np.square(item), axis=1, keepdims=True)) for item in states]
    return [item + (s * chance.standard_normal(item.shape)).astype(np.float32)
            for item, s in zip(states, scale, strict=True)]  # fmt: skip


class Bench:
    def __init__(self, checkpoint: Checkpoint, threads: int, is_quick: bool) -> None:
        self.checkpoint, self.threads = checkpoint, threads
        depths = QUICK_DEPTHS if is_quick else DEPTHS
        self.depths = tuple(depth for depth in depths if depth < checkpoint.config.num_layers)
        self.own = corpus(checkpoint, 60 if is_quick else 240)
        self.truth = attacked(checkpoint)
        self.num_checked = 2 if is_quick else len(PROMPTS)
        self.embeddings = Embeddings(matrix(checkpoint.weights["token_embd.weight"]))
        self.turn = load_tokenizer(checkpoint.tokenizer).encode(TURN, parse_special=True)
        states = States(checkpoint, self.depths, threads)
        self.learned, self.seen = states.of(self.own), states.of(self.truth)
        states.close()

    def share(self, guesses: Sequence[np.ndarray]) -> float:
        """Of the tokens behind the turn's beginning, those that were recovered."""
        known = len(self.turn)
        pairs = zip(guesses, self.truth, strict=False)
        return float(
            np.concatenate([np.asarray(guess)[known:] == np.array(item)[known:] for guess, item in pairs]).mean()
        )

    def attacks(self, depth: int, strength: float = 0.0, is_checked: bool = True) -> dict[str, Any]:
        """Shares of recovered tokens at one depth, under noise."""
        seen = noisy(self.seen[depth], strength, 1) if strength else self.seen[depth]
        learned = noisy(self.learned[depth], strength, 2) if strength else self.learned[depth]
        ridge = fit_ridge(learned, self.own, self.embeddings)
        ranked = [self.embeddings.ranked(ridge(item), SUGGESTED) for item in seen]
        row: dict[str, Any] = {
            "depth": depth,
            "noise": strength,
            "nearest": self.share([nearest(item, np.concatenate(learned), self.embeddings) for item in seen]),
            "ridge": self.share([item[:, 0] for item in ranked]),
            "ridge_prompts": self.share([item[:, 0] for item in ranked[: len(PROMPTS)]]),
        }
        if is_checked:
            row |= self.check(depth, seen, ranked, CROWD if strength else 2 * SUGGESTED)
        return row

    def check(self, depth: int, seen: Sequence[np.ndarray], ranked: Sequence[np.ndarray], most: int) -> dict[str, Any]:
        checker = Checker(self.checkpoint, depth, self.threads, most)
        began, count = time.process_time(), self.num_checked
        pairs = zip(seen[:count], ranked[:count], strict=True)
        found = [checker.recover(self.turn, state, guess) for state, guess in pairs]
        checker.close()
        tokens = sum(len(item) - len(self.turn) for item in self.truth[:count])
        return {
            "check": self.share([np.array(item) for item, _ in found]),
            "tries_per_token": sum(tries for _, tries in found) / tokens,
            "cpu_s_per_token": (time.process_time() - began) / tokens,
        }

    def output_change(self, depth: int, strength: float) -> dict[str, float]:
        """KL(whole || noisy) in nats and agreement of the likeliest next token, over the attacked text."""
        rest = part_of(self.checkpoint, Part(depth, self.checkpoint.config.num_layers, has_head=True))
        runner = NativeRunner(rest, num_blocks=64, block_size=16, threads=self.threads)
        losses, agreed = [], []
        for tokens, clean, loud in zip(self.truth, self.seen[depth], noisy(self.seen[depth], strength, 3), strict=True):
            one, other = (_log_softmax(self._run(runner, tokens, item)) for item in (clean, loud))
            losses.append((np.exp(one) * (one - other)).sum(axis=1))
            agreed.append(one.argmax(axis=1) == other.argmax(axis=1))
        runner.close()
        return {"kl": float(np.concatenate(losses).mean()), "top1": float(np.concatenate(agreed).mean())}

    def _run(self, runner: NativeRunner, tokens: Sequence[int], stream: np.ndarray) -> np.ndarray:
        batch = sequences_batch([tokens])
        batch.inputs = stream
        return runner.run(batch).copy()

    def rotation(self, depth: int) -> dict[str, float]:
        """A secret rotation Q of the stream: the peer computes with W Q, knows W, and so knows Q."""
        size = self.checkpoint.config.hidden_size
        secret, _ = np.linalg.qr(np.random.default_rng(4).standard_normal((size, size)))
        secret = secret.astype(np.float32)
        hidden = [item @ secret for item in self.seen[depth]]
        known = first_matrices(self.checkpoint, depth)
        rotated = known @ secret
        rotated += 0.01 * rotated.std() * np.random.default_rng(5).standard_normal(rotated.shape).astype(np.float32)
        guess = undo_rotation(known, rotated)
        ridge = fit_ridge(self.learned[depth], self.own, self.embeddings)
        undone = [self.embeddings.ranked(ridge(item @ guess.T), 1)[:, 0] for item in hidden]
        return {
            "nearest_rotated": self.share([nearest(item, np.concatenate(hidden), self.embeddings) for item in hidden]),
            "rotation_error": float(np.linalg.norm(guess - secret) / np.linalg.norm(secret)),
            "ridge_undone": self.share(undone),
        }


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


async def cost(checkpoint: Checkpoint, threads: int, kept: int, tokens: int) -> dict[str, float]:
    """Tokens a second of a split model (one peer, in this process, no network) and of the whole one, and bytes."""
    clock = SystemClock()
    mesh = LocalMesh(clock)
    me, peer = mesh.join(), mesh.join()
    options = RunnerOptions(device="cpu", kernels="native", threads=threads, max_running=4, context_length=2048)
    layers = checkpoint.config.num_layers
    digest = bytes(32)
    host = StageHost([open_stage(checkpoint, "m", digest, (kept, layers - 1), options)], lambda peer: None, clock)
    host.register(peer)
    place = Place(me, lambda: ask_offers(me, [peer.peer]), clock, options)
    split = Split("private:m", checkpoint, digest, kept, 1)
    hops: list[Any] = []

    def connect() -> Any:
        return _noted(connected(split, place, language_of(checkpoint)), hops)

    private = PrivateModel(connect, clock)
    await _timed(private, 4)
    before = hops[0].sent_bytes + hops[0].received_bytes
    rate, cpu = await _timed(private, tokens)
    moved = hops[0].sent_bytes + hops[0].received_bytes - before
    await private.close()
    await host.close()
    return {"split_tps": rate, "split_cpu_ms": cpu, "bytes_per_token": moved / (tokens + PROMPT_TOKENS)}


PROMPT_TOKENS = 32


class _noted:
    """A pipeline's context, which says which hops it opened."""

    def __init__(self, inner: Any, hops: list[Any]) -> None:
        self._inner, self._hops = inner, hops

    async def __aenter__(self) -> Any:
        pipeline = await self._inner.__aenter__()
        self._hops[:] = pipeline.hops
        return pipeline

    async def __aexit__(self, *error: Any) -> Any:
        return await self._inner.__aexit__(*error)


async def _timed(model: Any, tokens: int, name: str = "private:m") -> tuple[float, float]:
    """Tokens a second from the first token to the last, and milliseconds of processor time for each."""
    sampling = Sampling(temperature=0.0, ignore_eos=True, max_tokens=tokens)
    prompt = tuple(range(1000 + tokens, 1000 + tokens + PROMPT_TOKENS))
    request = Request(f"t{tokens}", name, prompt, sampling)
    times = [(time.perf_counter(), time.process_time()) async for _ in model.generate(request)]
    wall, cpu = (last - first for first, last in zip(times[0], times[-1], strict=True))
    return (len(times) - 1) / wall, 1e3 * cpu / (len(times) - 1)


async def whole_speed(checkpoint: Checkpoint, threads: int, tokens: int) -> dict[str, float]:
    from shoal.engine.engine import Engine, EngineConfig
    from shoal.engine.load import load_runner
    from shoal.engine.plan import SchedulerConfig

    options = RunnerOptions(device="cpu", kernels="native", threads=threads, num_blocks=256)
    loaded = load_runner(checkpoint, options)
    config = EngineConfig("m", 2048, checkpoint.config.num_layers, SchedulerConfig(block_size=16, num_blocks=256))
    engine = Engine(config, loaded.runner, language_of(checkpoint))
    await _timed(engine, 4, "m")
    rate, cpu = await _timed(engine, tokens, "m")
    await engine.stop()
    return {"whole_tps": rate, "whole_cpu_ms": cpu}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    checkpoint = open_checkpoint(options.model or Store(home(os.environ)).resolve(DEFAULT_MODEL))
    bench = Bench(checkpoint, options.threads, options.quick)
    rows = [bench.attacks(depth, is_checked=depth in CHECKED) for depth in bench.depths]
    show(rows, ("depth", "nearest", "ridge", "ridge_prompts", "check", "tries_per_token", "cpu_s_per_token"))
    noises = QUICK_NOISES if options.quick else NOISES
    loud = [bench.attacks(NOISE_DEPTH, strength) | bench.output_change(NOISE_DEPTH, strength) for strength in noises]
    show(loud, ("depth", "noise", "nearest", "ridge", "check", "kl", "top1"))
    turned = bench.rotation(NOISE_DEPTH)
    show([turned], tuple(turned))
    tokens = 48 if options.quick else 128
    whole = asyncio.run(whole_speed(checkpoint, options.threads, tokens))
    costs = [{"kept": kept, **whole, **asyncio.run(cost(checkpoint, options.threads, kept, tokens))}
             for kept in (1, 8, 16)]  # fmt: skip
    show(costs, ("kept", "whole_tps", "split_tps", "whole_cpu_ms", "split_cpu_ms", "bytes_per_token"))
    ratios = {f"split_speed_{row['kept']}": row["split_tps"] / row["whole_tps"] for row in costs}
    finish("split_privacy", [*rows, *loud, turned, *costs], ratios, machine())


def show(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> None:
    def cell(value: Any) -> str:
        return "-" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)

    table(columns, [[cell(row.get(column)) for column in columns] for row in rows])
    print()


if __name__ == "__main__":
    main()
