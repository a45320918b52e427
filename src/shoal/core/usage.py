"""What an answer cost, and why it ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FinishReason = Literal["stop", "length", "tool_calls"]


@dataclass(frozen=True, slots=True)
class Measured:
    """A quantity and where it came from ("rapl", "modelled", ...). Absent readings are None, never zero."""

    value: float
    source: str
    uncertainty: float | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """What the whole request cost. Tokens are counts; times are seconds; costs are None where not measured.

    providers  who computed the answer, in order: "local", a peer's id, "upstream:NAME". Filled by whoever asked them,
               never taken from their word; empty where there was nobody to choose from.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    queue_s: float | None = None
    ttft_s: float | None = None
    duration_s: float | None = None
    energy_j: Measured | None = None
    water_l: Measured | None = None
    carbon_g: Measured | None = None
    cost_usd: Measured | None = None
    providers: tuple[str, ...] = ()
