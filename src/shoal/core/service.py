"""What a server may ask besides `Generate`: plain data and plain callables, so that a fake takes three lines.

`Service` is not a third seam: nothing nests it. The node builds one for its server out of what it composed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shoal.core.request import Message
from shoal.core.seams import Generate

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class ModelCard:
    """One line of `/v1/models`. An adapter is a model whose `parent` is its base model."""

    id: str
    created: int = 0
    owned_by: str = "shoal"
    parent: str | None = None
    context_length: int | None = None
    family: str | None = None
    quantization: str | None = None
    size_bytes: int | None = None
    capabilities: tuple[str, ...] = ()
    """Of "completion", "chat", "tools", "embedding"."""


@dataclass(frozen=True, slots=True)
class EngineStats:
    """A snapshot. Counters (`*_total`) only grow; the rest are gauges."""

    device: str = ""
    kernels: str = ""
    num_running: int = 0
    num_waiting: int = 0
    max_running: int = 0
    max_waiting: int = 0
    blocks_total: int = 0
    blocks_used: int = 0
    blocks_cached: int = 0
    block_size: int = 0
    steps_total: int = 0
    batch_tokens: int = 0
    """Tokens in the last step."""
    batch_sequences: int = 0
    """Sequences in the last step."""
    step_s: float = 0.0
    """Duration of the last step."""
    prompt_tokens_total: int = 0
    cached_tokens_total: int = 0
    generation_tokens_total: int = 0
    preemptions_total: int = 0
    drafter: str = ""
    """What guesses tokens ahead, or nothing."""
    draft_checks_total: int = 0
    """Drafts checked: each made one token more than it had right."""
    draft_tokens_total: int = 0
    draft_accepted_total: int = 0
    choices: Mapping[str, int] = field(default_factory=dict)
    """Where a drafter is chosen for each request: method, and how often it was."""
    choice_why: str = ""
    """The last choice and its reason, in words."""
    is_draining: bool = False


@dataclass(frozen=True, slots=True)
class Service:
    """Everything the HTTP server talks to. Callables raise `ShoalError`s, as `generate` does.

    generate       the composed `Generate`.
    models         served models and loaded adapters, default model first.
    stats          a fresh snapshot.
    not_ready      None when requests are accepted, else the reason in words.
    tokenize       (model, text or messages, add special tokens) -> token ids.
    detokenize     (model, token ids) -> text.
    embed          (model, inputs as text or token ids) -> float32 array (len(inputs), dimensions), L2-normalised,
                   and the number of tokens read.
    load_adapter   (name, path) -> its card; unload_adapter (name).
    """

    generate: Generate
    models: Callable[[], Sequence[ModelCard]]
    stats: Callable[[], EngineStats]
    not_ready: Callable[[], str | None]
    tokenize: Callable[[str, str | tuple[Message, ...], bool], Awaitable[list[int]]]
    detokenize: Callable[[str, Sequence[int]], Awaitable[str]]
    embed: Callable[[str, Sequence[str | tuple[int, ...]]], Awaitable[tuple[np.ndarray, int]]]
    load_adapter: Callable[[str, str], Awaitable[ModelCard]]
    unload_adapter: Callable[[str], Awaitable[None]]
