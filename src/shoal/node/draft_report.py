"""A draft measured against its target on this machine: two runners, the same threads, questions neither was taught."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from shoal.core.errors import BadConfig
from shoal.core.request import Message
from shoal.engine.load import RunnerOptions, load_runner
from shoal.models.checkpoint import Checkpoint, open_checkpoint
from shoal.models.draft_training.trial import Rules
from shoal.models.draft_training.worth import QUESTIONS, Pair, Worth, measure, parameters
from shoal.models.template import ChatTemplate
from shoal.models.tokenizer import Tokenizer, load_tokenizer
from shoal.node.config import NodeConfig
from shoal.node.progress import step_bar

CLEARLY = 1.05
"""What wall-clock must reach: the best of several noisy figures is above 1 too easily."""

ROOM = 1024
"""Tokens of a question and its answer, at most."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a chooser needs. `rows` hold one line per kind of prompt, temperature and length; "all" sums up a rule."""

    target: str
    draft: str
    draft_bytes: int
    draft_parameters: int
    target_parameters: int
    kernels: str
    rows: list[Worth]

    @property
    def is_worth_it(self) -> bool:
        """Whether some rule made the median prompt clearly faster than no draft."""
        return any(row.wall_clock > CLEARLY for row in self.rows if row.kind == "all")


def measure_draft(config: NodeConfig, target_path: Path, draft_path: Path, rules: Sequence[Rules]) -> Report:
    """BadConfig for a draft whose token ids mean something else; BadWeights and Unsupported as loading raises them."""
    target, draft = open_checkpoint(target_path), open_checkpoint(draft_path)
    tokenizer = load_tokenizer(target.tokenizer)
    _check(target, draft, tokenizer)
    options = RunnerOptions(
        device=config.device, kernels=config.kernels, threads=config.threads, max_running=1,
        context_length=min(ROOM, target.config.context_length, draft.config.context_length),
        kernel_cache=config.home / "kernels",
    )  # fmt: skip
    loaded = [load_runner(checkpoint, options) for checkpoint in (target, draft)]
    try:
        pair = Pair(loaded[0].runner, loaded[1].runner, parameters(target), parameters(draft))
        prompts = _prompts(target, tokenizer)
        rows = _measure(pair, prompts, [replace(rule, ends=tokenizer.eos_ids) for rule in rules])
    finally:
        for item in loaded:
            item.runner.close()
    sizes = pair.draft_parameters, pair.target_parameters
    return Report(str(target_path), str(draft_path), draft.size_bytes, *sizes, loaded[0].kernels, rows)


def _measure(pair: Pair, prompts: dict[str, list[list[int]]], rules: Sequence[Rules]) -> list[Worth]:
    rows: list[Worth] = []
    total, done = len(rules) * sum(map(len, prompts.values())), 0
    with step_bar() as steps:

        def report() -> None:
            nonlocal done
            done += 1
            steps("measure", done, total, "")

        for rule in rules:
            rows += measure(pair, prompts, rule, report)
    return rows


def _check(target: Checkpoint, draft: Checkpoint, tokenizer: Tokenizer) -> None:
    if load_tokenizer(draft.tokenizer).vocabulary.texts != tokenizer.vocabulary.texts:
        raise BadConfig("--draft", f"{draft.path} has another vocabulary than its target")
    if draft.config.vocab_size != target.config.vocab_size:
        expected, found = target.config.vocab_size, draft.config.vocab_size
        raise BadConfig("--draft", f"expected the target's {expected} rows of logits, found {found}")


def _prompts(target: Checkpoint, tokenizer: Tokenizer) -> dict[str, list[list[int]]]:
    template = ChatTemplate(target.chat_template, tokenizer) if target.chat_template else None

    def encode(question: str) -> list[int]:
        if template is None:
            return tokenizer.encode(question, add_special=True)
        return template.encode((Message("user", question),))

    return {kind: [encode(question) for question in group] for kind, group in QUESTIONS.items()}
