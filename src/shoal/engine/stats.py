"""Counters of one engine. Written by the worker thread alone, read from any: each is one integer or float."""

from __future__ import annotations

from dataclasses import dataclass

from shoal.core.service import EngineStats
from shoal.engine.drafts.chosen import ChosenDrafter
from shoal.engine.drafts.speculator import DraftCounters, Speculator
from shoal.engine.plan import Plan
from shoal.engine.scheduler import Scheduler
from shoal.engine.sequence import Sequence


@dataclass(slots=True)
class Counters:
    steps: int = 0
    batch_tokens: int = 0
    batch_sequences: int = 0
    step_s: float = 0.0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generation_tokens: int = 0

    def add_step(self, plan: Plan, step_s: float) -> None:
        self.steps += 1
        self.batch_tokens = plan.num_tokens
        self.batch_sequences = len(plan.entries)
        self.step_s = step_s

    def add_prompt(self, seq: Sequence, num_tokens: int) -> None:
        self.prompt_tokens += num_tokens
        self.cached_tokens += max(0, seq.num_cached)

    def snapshot(
        self, scheduler: Scheduler, device: str, kernels: str, is_draining: bool, drafting: Speculator | None = None
    ) -> EngineStats:
        drafts = DraftCounters() if drafting is None else drafting.counters
        drafter = None if drafting is None else drafting.drafter
        judge = drafter.judge if isinstance(drafter, ChosenDrafter) else None
        config, pool = scheduler.config, scheduler.tables.pool
        return EngineStats(
            device=device,
            kernels=kernels,
            num_running=scheduler.num_running,
            num_waiting=scheduler.num_waiting,
            max_running=config.max_running,
            max_waiting=config.max_waiting,
            blocks_total=pool.num_blocks,
            blocks_used=pool.num_used,
            blocks_cached=pool.num_cached,
            block_size=config.block_size,
            steps_total=self.steps,
            batch_tokens=self.batch_tokens,
            batch_sequences=self.batch_sequences,
            step_s=self.step_s,
            prompt_tokens_total=self.prompt_tokens,
            cached_tokens_total=self.cached_tokens,
            generation_tokens_total=self.generation_tokens,
            preemptions_total=scheduler.num_preemptions,
            is_draining=is_draining,
            drafter="" if drafter is None else drafter.name,
            draft_checks_total=drafts.checks,
            draft_tokens_total=drafts.tokens,
            draft_accepted_total=drafts.accepted,
            choices={} if judge is None else dict(judge.choices()),
            choice_why="" if judge is None else judge.why(),
        )
