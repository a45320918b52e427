"""Acts on paused sequences between two steps, and runs the rows that cannot share a batch with everybody's.

    prompt_budget   the draft has read the prompt: keep the tokens it looked at, and start over with those
    core_neurons    the prompt is computed: pack a slice of every feed-forward
    kv_budget       the prompt is computed: copy the keys that stay into blocks of the sequence's own

Rules that stay true in this file:
- a sequence is acted on whole or not at all: without room it queues again, and nothing of it is lost or shared;
- blocks that others may refer to are read, never written.
"""

from __future__ import annotations

import itertools

import numpy as np

from shoal.engine.approximate import selection
from shoal.engine.approximate.core_neurons import MAX_ROWS, count_core, most_frequent
from shoal.engine.approximate.lookahead import DRAFT_LAYERS, LOOKAHEAD, draft, follow
from shoal.engine.approximate.passes import View, blocks_for
from shoal.engine.approximate.runner import Approximation
from shoal.engine.approximate.stage import Stage
from shoal.engine.batching import build_batch
from shoal.engine.plan import Entry, Plan
from shoal.engine.runner import Runner
from shoal.engine.scheduler import Scheduler
from shoal.engine.sequence import Sequence, Status, int_array


class Approximator:
    """Of the worker's thread alone. `approximation` is the runner's."""

    def __init__(self, runner: Runner, approximation: Approximation, scheduler: Scheduler) -> None:
        self._runner, self._network, self._scheduler = runner, approximation, scheduler
        self._size = scheduler.config.block_size
        self._slots = itertools.count()
        self._slices: dict[int, Stage] = {}

    @property
    def has_slices(self) -> bool:
        """Whether core neurons of some sequence are packed."""
        return bool(self._slices)

    def act(self) -> None:
        """On every paused sequence; those that find no room queue again."""
        paused, self._scheduler.paused = self._scheduler.paused, []
        for seq in paused:
            if seq.is_paused and seq.status is Status.RUNNING and not self._act(seq):
                self._scheduler.restart(seq)

    def sweep(self) -> None:
        """Free the core neurons of sequences that are over or lost their blocks."""
        for slot in [slot for slot, stage in self._slices.items() if stage.slot != slot]:
            del self._slices[slot]
            self._network.drop_neurons(slot)

    def run(self, plan: Plan) -> tuple[np.ndarray, np.ndarray]:
        """A split plan, part by part: logits and taps of its output rows, in the plan's order."""
        num_outputs = sum(entry.num_outputs for entry in plan.entries)
        logits = np.zeros((num_outputs, self._runner.vocab_size), np.float32)
        taps = np.zeros((num_outputs if plan.tap >= 0 else 0, self._runner.hidden_size), np.float32)
        rows = np.split(np.arange(num_outputs), np.cumsum([entry.num_outputs for entry in plan.entries])[:-1])
        for (depth, slot), members in _parts(plan.entries).items():
            part = Plan([plan.entries[index] for index in members], tap=plan.tap)
            batch, at = build_batch(part, self._size), np.concatenate([rows[index] for index in members])
            whole = depth == 0 and slot < 0
            logits[at] = self._runner.run(batch) if whole else self._network.run(batch, depth, slot)
            if plan.tap >= 0:
                taps[at] = self._runner.taps()
        return logits, taps

    # ---- acting on one sequence; False: no room ------------------------------------------------------------

    def _act(self, seq: Sequence) -> bool:
        stage = _stage_of(seq)
        if stage.depth:
            return self._shorten(seq, stage)
        return self._slice(seq, stage) and self._compress(seq, stage)

    def _shorten(self, seq: Sequence, stage: Stage) -> bool:
        """Replace the prompt by a shorter one; the sequence is then computed like any other."""
        tokens, budget = np.array(seq.tokens, np.int32), stage.wanted.prompt_budget or len(seq.tokens)
        match stage.wanted.prompt_method:
            case "specpc":
                scores = self._read(seq, stage, tokens)
                chosen = None if scores is None else selection.choose_tokens(scores, budget)
            case "streaming":
                chosen = selection.end_tokens(len(tokens), budget)
            case "random":
                chosen = selection.random_tokens(len(tokens), budget, seed=len(tokens))
        if chosen is None:
            return False
        self._scheduler.restart(seq)
        seq.tokens, seq.outputs_from = int_array(tokens[chosen].tolist()), budget - 1
        seq.stage = after_prompt(stage, budget)
        return True

    def _read(self, seq: Sequence, stage: Stage, tokens: np.ndarray) -> np.ndarray | None:
        """How much the draft's last queries attend to each token: float32 (tokens,). None: no room."""
        rows = min(selection.PROMPT_WINDOW, len(tokens))
        spare = self._scheduler.borrow(seq, blocks_for(rows, self._size))
        if spare is None:
            return None
        view = View(list(seq.blocks), spare, seq.num_computed, seq.adapter, self._size)
        weights = np.linspace(0, 1, rows, dtype=np.float32)
        batch = view.batch(tokens[-rows:], len(tokens) - rows)
        scores = self._network.importance(batch, weights, False, stage.depth)
        self._scheduler.give_back(spare)
        most: np.ndarray = scores[stage.depth // 3 :].max(axis=(0, 1))  # the first layers look at neighbours only
        return most

    def _slice(self, seq: Sequence, stage: Stage) -> bool:
        """Pack the core neurons of the prompt."""
        share = stage.wanted.core_neurons
        if share is None:
            return True
        if stage.neurons is None:
            rows = min(MAX_ROWS, stage.at)
            spare = self._scheduler.borrow(seq, blocks_for(rows, self._size))
            if spare is None:
                return False
            view = View(list(seq.blocks), spare, seq.num_computed, seq.adapter, self._size)
            batch = view.batch(np.array(seq.tokens[stage.at - rows : stage.at], np.int32), stage.at - rows)
            stage.neurons = most_frequent(count_core(self._network.activations(batch)), share)
            self._scheduler.give_back(spare)
        stage.slot, stage.is_done = next(self._slots), True
        self._slices[stage.slot] = stage
        self._network.set_neurons(stage.slot, stage.neurons)
        return True

    def _compress(self, seq: Sequence, stage: Stage) -> bool:
        """Keep the chosen keys alone, in blocks of the sequence's own."""
        budget = stage.wanted.kv_budget
        if budget is None or budget >= stage.at:
            return True
        target = self._scheduler.borrow(seq, blocks_for(budget, self._size))
        if target is None:
            return False
        if stage.kept is None:
            stage.kept = self._choose(seq, stage, budget, target)
        if stage.kept is None:
            self._scheduler.give_back(target)
            return False
        self._network.keep_positions(seq.blocks, target, stage.kept)
        self._scheduler.tables.replace(seq, target, stage.at - budget)
        stage.is_done = True
        return True

    def _choose(self, seq: Sequence, stage: Stage, budget: int, spare: list[int]) -> np.ndarray | None:
        """What stays; `spare` blocks hold what is computed once more. None: no room for a lookahead."""
        shape = (self._network.num_layers, self._network.num_kv_heads)
        match stage.wanted.kv_method:
            case "streaming":
                return selection.keep_ends(shape, stage.at, budget)
            case "random":
                return selection.keep_random(shape, stage.at, budget, seed=stage.at)
            case "snapkv":
                return self._by_importance(seq, stage, budget, spare, num_ahead=0)
            case "speckv" | "oracle":
                return self._by_importance(seq, stage, budget, spare, num_ahead=LOOKAHEAD)

    def _by_importance(
        self, seq: Sequence, stage: Stage, budget: int, spare: list[int], num_ahead: int
    ) -> np.ndarray | None:
        """The keys that the prompt's last queries, and those of a lookahead, attend to."""
        extra = self._scheduler.borrow(seq, num_lookahead_blocks(stage.at, num_ahead, self._size))
        if extra is None:
            return None
        view = self._with_room(seq, stage, spare, extra)
        tokens = np.array(seq.tokens[: stage.at + 1], np.int32)  # the prompt and the first token of the answer
        if num_ahead:
            tokens = np.concatenate([tokens, self._look_ahead(view, stage, tokens, num_ahead - 1)])
        start = stage.at - selection.window_of(budget)
        rows = tokens[start : stage.at + num_ahead]
        is_mean = stage.wanted.kv_method == "snapkv"
        scores = self._network.importance(view.batch(rows, start), np.ones(len(rows), np.float32), is_mean)
        self._scheduler.give_back(extra)
        return selection.keep_by_score(scores, stage.at, budget)

    def _with_room(self, seq: Sequence, stage: Stage, spare: list[int], extra: list[int]) -> View:
        """The sequence's table with `extra` behind it; its last block is copied, for others may continue it too."""
        table, rest = list(seq.blocks), extra
        if stage.at % self._size and extra:
            self._runner.copy_blocks([(table[-1], extra[0])])
            table, rest = [*table[:-1], extra[0]], extra[1:]
        return View([*table, *rest], spare, stage.at, seq.adapter, self._size)

    def _look_ahead(self, view: View, stage: Stage, tokens: np.ndarray, count: int) -> np.ndarray:
        is_oracle = stage.wanted.kv_method == "oracle"
        part, whole = DRAFT_LAYERS
        layers = 0 if is_oracle else self._network.num_layers * part // whole
        position = itertools.count(stage.at)

        def next_token(token: int) -> int:
            batch = view.batch(np.array([token], np.int32), next(position), wants_logits=True)
            return int(self._network.run(batch, layers)[0].argmax())

        return (follow if is_oracle else draft)(tokens, count, next_token)


def after_prompt(stage: Stage, num_tokens: int) -> Stage | None:
    """What is left to do once a prompt of `num_tokens` is computed whole."""
    wanted = stage.wanted
    drops_keys = wanted.kv_budget is not None and wanted.kv_budget < num_tokens
    return Stage(wanted, num_tokens) if drops_keys or wanted.core_neurons is not None else None


def num_lookahead_blocks(num_tokens: int, num_ahead: int, block_size: int) -> int:
    """Blocks that `num_ahead` positions behind `num_tokens` take, with a copy of a partly filled last block."""
    if not num_ahead:
        return 0
    return blocks_for(num_tokens + num_ahead, block_size) - num_tokens // block_size


def _stage_of(seq: Sequence) -> Stage:
    assert seq.stage is not None, "only an approximated sequence pauses"
    return seq.stage


def _parts(entries: list[Entry]) -> dict[tuple[int, int], list[int]]:
    """Entries that may share a batch, by (layers or 0, core neurons or -1)."""
    parts: dict[tuple[int, int], list[int]] = {}
    for index, entry in enumerate(entries):
        stage = entry.seq.stage
        if stage is None or not stage.is_apart:
            key = (0, -1)
        else:
            key = (0, stage.slot) if stage.is_done else (stage.depth, -1)
        parts.setdefault(key, []).append(index)
    return parts
