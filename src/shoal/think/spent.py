"""The bill of several answers as one: tokens and readings add up, whoever's answer was taken."""

from __future__ import annotations

from dataclasses import dataclass, replace

from shoal.core.usage import Measured, Usage


@dataclass(slots=True)
class Spent:
    """A running sum. A reading is known only while every answer so far had it."""

    usage: Usage | None = None

    def add(self, usage: Usage) -> None:
        self.usage = usage if self.usage is None else _sum(self.usage, usage)

    @property
    def usd(self) -> float:
        """Dollars known to have been spent."""
        cost = self.usage.cost_usd if self.usage is not None else None
        return cost.value if cost is not None else 0.0

    def total(self, ttft_s: float | None, duration_s: float) -> Usage:
        """The sum, with the times of the whole: they overlapped, so they do not add up."""
        return replace(self.usage or Usage(), queue_s=None, ttft_s=ttft_s, duration_s=duration_s)


def _sum(a: Usage, b: Usage) -> Usage:
    return Usage(
        prompt_tokens=a.prompt_tokens + b.prompt_tokens,
        completion_tokens=a.completion_tokens + b.completion_tokens,
        cached_tokens=a.cached_tokens + b.cached_tokens,
        energy_j=_add(a.energy_j, b.energy_j),
        water_l=_add(a.water_l, b.water_l),
        carbon_g=_add(a.carbon_g, b.carbon_g),
        cost_usd=_add(a.cost_usd, b.cost_usd),
        providers=tuple(dict.fromkeys((*a.providers, *b.providers))),
    )


def _add(a: Measured | None, b: Measured | None) -> Measured | None:
    if a is None or b is None:
        return None
    spread = None if a.uncertainty is None or b.uncertainty is None else a.uncertainty + b.uncertainty
    return Measured(a.value + b.value, a.source if a.source == b.source else f"{a.source} + {b.source}", spread)
