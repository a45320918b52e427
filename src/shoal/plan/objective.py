"""What makes one measurement better than another: one number, larger is better."""

from __future__ import annotations

from dataclasses import dataclass

from shoal.core.errors import BadConfig, Unsupported


@dataclass(frozen=True, slots=True)
class Measurement:
    """A workload run once. Rates count generated tokens; percentiles are over its requests.

    energy_j  of the whole machine's processors while it ran, None where nothing counts them.
    """

    tokens: int
    wall_s: float
    ttft_p95_s: float
    tpot_p95_s: float
    energy_j: float | None = None

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.wall_s


@dataclass(frozen=True, slots=True)
class Throughput:
    """Tokens per second with every request there at once."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Tokens per second as long as the 95th percentiles of TTFT and TPOT keep to these limits (seconds)."""

    ttft_s: float
    tpot_s: float


@dataclass(frozen=True, slots=True)
class Joules:
    """Tokens per joule."""


Objective = Throughput | Latency | Joules

FAILED = {"throughput": 0.0, "latency": -1e6, "joules": 0.0}
"""Score of settings with which the engine could not run at all: worse than any that ran."""


def name_of(objective: Objective) -> str:
    return type(objective).__name__.lower()


def unit(objective: Objective) -> str:
    return "tokens/J" if isinstance(objective, Joules) else "tokens/s"


def parse_objective(name: str, ttft_s: float, tpot_s: float, can_count_joules: bool) -> Objective:
    """BadConfig for a name that is none, Unsupported for joules on a machine that does not count them."""
    match name:
        case "throughput":
            return Throughput()
        case "latency":
            return Latency(ttft_s, tpot_s)
        case "joules" if can_count_joules:
            return Joules()
        case "joules":
            raise Unsupported(
                "objective joules: expected energy counters readable under /sys/class/powercap, found none; run as a "
                "user who may read them on a machine that has them, or tune for throughput"
            )
        case _:
            raise BadConfig("--objective", f"expected throughput, latency or joules, found {name!r}")


def score(objective: Objective, found: Measurement | None) -> float:
    """None stands for an engine that could not run. Broken latency limits score below zero, worse the more broken."""
    if found is None:
        return FAILED[name_of(objective)]
    match objective:
        case Throughput():
            return found.tokens_per_s
        case Latency(ttft_s, tpot_s):
            excess = max(found.ttft_p95_s / ttft_s, found.tpot_p95_s / tpot_s)
            return found.tokens_per_s if excess <= 1 else -excess
        case Joules():
            if found.energy_j is None:
                raise Unsupported("objective joules: the measurement has no energy reading")
            return found.tokens / found.energy_j
