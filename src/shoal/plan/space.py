"""The engine's knobs that a machine can be tuned by, and the values that are tried.

No value computes less precisely than the engine's default does, so a profile never buys speed with quality, except by
`model`, whose other files (quantisations) only the user can name, and by a KV type that the user adds.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from shoal.core.errors import BadConfig

Value = int | str | bool
Settings = Mapping[str, Value]


TUNABLE = ("threads", "block_size", "max_batch_tokens", "max_running", "kv_type", "activation_bits", "prefix_cache",
           "draft", "model")  # fmt: skip
"""Names of the knobs, as the node calls them: all that a profile may set."""


@dataclass(frozen=True, slots=True)
class Knob:
    """One option of the node, the values tried, and the value it has where nobody says anything."""

    name: str
    values: tuple[Value, ...]
    default: Value


def knobs(
    cores: int, models: Sequence[str], fixed: Collection[str] = (), kv_types: Sequence[str] = ()
) -> tuple[Knob, ...]:
    """Every knob but the `fixed` ones, and those that leave no choice here.

    models    files of one network in several quantisations, the one to compare with first.
    kv_types  to try beside those that lose nothing.
    Raises BadConfig when nothing is left to choose.
    """
    every = (
        Knob("threads", thread_counts(cores), cores),
        Knob("block_size", (16, 32, 64, 128), 16),
        Knob("max_batch_tokens", (64, 128, 256, 512, 1024, 2048), 512),
        Knob("max_running", (4, 8, 16, 32, 64), 32),
        Knob("kv_type", ("f16", "f32", *kv_types), "f16"),
        Knob("activation_bits", (8, 16), 8),
        Knob("prefix_cache", (True, False), True),
        Knob("draft", ("auto", "lookup", "off"), "auto"),
        Knob("model", tuple(models), models[0]),
    )
    free = tuple(knob for knob in every if knob.name not in fixed and len(knob.values) > 1)
    if not free:
        raise BadConfig("tune", "expected at least one option left to choose; configuration and flags fix them all")
    return free


def thread_counts(cores: int) -> tuple[int, ...]:
    """Powers of two below the number of cores, and that number."""
    return (*(1 << power for power in range(cores.bit_length()) if 1 << power < cores), cores)


def defaults(space: Sequence[Knob]) -> dict[str, Value]:
    return {knob.name: knob.default for knob in space}


def changed(space: Sequence[Knob], settings: Settings) -> dict[str, Value]:
    """What differs from the defaults: all that a profile has to say."""
    return {knob.name: settings[knob.name] for knob in space if settings[knob.name] != knob.default}


def describe(settings: Settings) -> str:
    """In one line; nothing to say means the defaults."""
    return " ".join(f"{name}={value}" for name, value in settings.items()) or "the defaults"
