"""`swarm:NAME[,NAME...]` as a model: who takes part, each with its own temperature, as often as it says.

    swarm:smollm2-135m@0.2,smollm2-135m@1.0,tutor*3
    vote:smollm2-135m*5                  (and believed, weighted, likely, judge, robin, moa)
    cascade:smollm2-135m,larger;-0.4

`@T` is the member's temperature (else the request's), `*N` makes it N members with seeds of their own. A name that
itself holds one of , @ * ; is written with %2C, %40, %2A, %3B. A cascade asks one after the other; behind `;` the
confidence, in nats per token, that ends it.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from urllib.parse import unquote

from shoal.core.errors import InvalidRequest
from shoal.core.text import is_plain

CASCADE = "cascade:"
STRATEGIES = ("swarm", "believed", "vote", "weighted", "likely", "judge", "robin", "moa")
"""What may stand before the colon; `strategies` says what each does."""
MOST_MEMBERS = 32
_MEMBER = re.compile(r"(?P<name>[^@*]+)(?:@(?P<temperature>[0-9]*\.?[0-9]+))?(?:\*(?P<count>[0-9]{1,3}))?")


@dataclass(frozen=True, slots=True)
class Named:
    """One member: the model it asks for; temperature None: the request's."""

    model: str
    temperature: float | None = None

    def label(self, number: int) -> str:
        heat = "" if self.temperature is None else f"@{self.temperature:g}"
        return f"{self.model}{heat}#{number}"


def strategy_of(model: str) -> str | None:
    """Which way to choose among members a name asks for; None: it is no such name."""
    before, colon, _ = model.partition(":")
    return before if colon and before in STRATEGIES else None


def is_cascade(model: str) -> bool:
    return model.startswith(CASCADE)


def confidence(model: str, default: float) -> float:
    """What a cascade's name says behind `;`. InvalidRequest for anything but a number of 0 or less."""
    _, mark, text = model.partition(";")
    try:
        value = float(text) if mark else default
    except ValueError:
        value = math.nan
    if not value <= 0.0:
        raise InvalidRequest(f"model: expected a confidence of 0 or less behind ;, found {text[:32]!r}", "model")
    return value


def members(model: str) -> tuple[Named, ...]:
    """The members that `model` names, in order. InvalidRequest saying which part is not one."""
    if not is_plain(model):  # receipts and logs name it as it is
        raise InvalidRequest("model: expected a name without control characters", "model")
    found: list[Named] = []
    for part in model.partition(":")[2].partition(";")[0].split(","):
        match = _MEMBER.fullmatch(part.strip())
        if match is None:
            raise InvalidRequest(
                f"model: expected NAME[@TEMPERATURE][*COUNT],... behind the colon, found {part.strip()[:64]!r}", "model"
            )
        temperature = None if match["temperature"] is None else float(match["temperature"])
        if temperature is not None and temperature > 2.0:
            raise InvalidRequest(f"model: expected temperatures of 0 to 2, found {temperature:g}", "model")
        found += [Named(unquote(match["name"].strip()), temperature)] * int(match["count"] or 1)
    if not 1 <= len(found) <= MOST_MEMBERS:
        raise InvalidRequest(f"model: expected 1 to {MOST_MEMBERS} members in a swarm, found {len(found)}", "model")
    return tuple(found)
