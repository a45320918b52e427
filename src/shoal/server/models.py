"""Which model a name means: a served id, an adapter's id, or an alias."""

from __future__ import annotations

from dataclasses import dataclass

from shoal.core.errors import InvalidRequest, ModelNotFound, Unavailable
from shoal.core.service import ModelCard
from shoal.server.context import Context


@dataclass(frozen=True, slots=True)
class Target:
    """`model` computes, with `adapter` if there is one; `card` is what was asked for."""

    card: ModelCard
    model: str
    adapter: str | None


def resolve(context: Context, name: str) -> Target:
    """ModelNotFound lists what there is."""
    cards = context.service.models()
    wanted = context.config.model_aliases.get(name, name)
    for card in cards:
        if card.id == wanted:
            return Target(card, card.parent or card.id, card.id if card.parent else None)
    if (made := context.service.composed(wanted)) is not None:
        return Target(made, made.id, None)
    raise ModelNotFound(name[:128], tuple(card.id for card in cards))


def resolve_for(context: Context, name: str, capability: str) -> Target:
    """Unavailable while nothing is served; InvalidRequest for a model that says it lacks `capability`."""
    if (reason := context.service.not_ready()) is not None:
        raise Unavailable(reason)
    target = resolve(context, name)
    if target.card.capabilities and capability not in target.card.capabilities:
        have = ", ".join(target.card.capabilities)
        raise InvalidRequest(f"{name} cannot do {capability}; it can do: {have}", "model", "model_not_capable")
    return target
