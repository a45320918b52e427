"""Swarms as models of this node: members are whatever the node can ask, judges score where the weights are here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace

from shoal.core.chunk import Chunk
from shoal.core.errors import InvalidRequest, ModelNotFound
from shoal.core.request import Message, Request, Sampling
from shoal.core.seams import Generate, Session, closing
from shoal.core.service import ModelCard, Service
from shoal.engine.engine import Engine
from shoal.engine.language import Language
from shoal.node.reputation import Judges
from shoal.think.answers import Member
from shoal.think.cascade import DEFAULT_CONFIDENCE, Memory, cascade
from shoal.think.judging import Judge, Score, likelihood_judge, scoring_judge, writing_judge
from shoal.think.naming import Named, confidence, is_cascade, members, strategy_of
from shoal.think.round import Rules
from shoal.think.strategies import strategy

JUDGES_LAST = 1
"""Priority of judging: behind everybody who waits for words."""


@dataclass(frozen=True, slots=True)
class Here:
    """What judges by scores need: the engine of this node and its language."""

    engine: Engine
    language: Language
    model: str


def with_swarms(
    service: Service, here: Here | None, rules: Rules | None = None, memory: Memory | None = None
) -> Service:
    """`service`, which also serves models named `swarm:...` made of those it has. `memory` is of whoever asks here."""
    inner = service.generate
    ground = _Ground(service, here, inner, Judges())

    async def generate(request: Request) -> AsyncIterator[Chunk]:
        if strategy_of(request.model) is not None:
            answers = _swarm(ground, rules or Rules())(request)
        elif is_cascade(request.model):
            answers = _cascade(ground, memory)(request)
        else:
            answers = inner(request)
        async with closing(answers) as chunks:
            async for chunk in chunks:
                yield chunk

    return replace(service, generate=generate, composed=lambda name: _card(service, name))


def _card(service: Service, name: str) -> ModelCard | None:
    """The card of a swarm or cascade: what all of its members can do. ModelNotFound, InvalidRequest."""
    if is_cascade(name):
        confidence(name, DEFAULT_CONFIDENCE)
    elif strategy_of(name) is None:
        return None
    cards = [_find(service, member.model) for member in members(name)]
    known = [card.context_length for card in cards if card.context_length is not None]
    length = min(known) if known else None
    return replace(cards[0], id=name, parent=None, context_length=length, capabilities=("chat",))


def _find(service: Service, name: str) -> ModelCard:
    cards = service.models()
    for card in cards:
        if card.id == name:
            return card
    raise ModelNotFound(name[:128], tuple(card.id for card in cards))


@dataclass(frozen=True, slots=True)
class _Ground:
    """What the members of a swarm stand on."""

    service: Service
    here: Here | None
    inner: Generate
    judges: Judges
    by_likelihood: bool = False


def _swarm(ground: _Ground, rules: Rules) -> Generate:
    async def generate(request: Request) -> AsyncIterator[Chunk]:
        named, kind = members(request.model), strategy_of(request.model) or "swarm"
        own = replace(ground, by_likelihood=kind == "believed")
        plain = [_member(own, member, number) for number, member in enumerate(named)]
        models = {member.name: one.model for member, one in zip(plain, named, strict=True)}
        asked = [_watched(ground.judges, member, models[member.name]) for member in plain]
        weighed = replace(rules, weight=lambda name: rules.weight(name) * ground.judges.weight(models[name]))
        chosen = strategy(kind, asked, weighed)
        async with closing(chosen(replace(request, receipt=False))) as chunks:
            async for chunk in chunks:
                yield chunk

    return generate


def _watched(judges: Judges, member: Member, model: str) -> Member:
    """The member, whose judging counts towards the reputation of `model`."""
    judge = member.judge
    if judge is None:
        return member
    return replace(member, judge=lambda own: judges.watched(model, judge(own)))


def _cascade(ground: _Ground, memory: Memory | None) -> Generate:
    async def generate(request: Request) -> AsyncIterator[Chunk]:
        named = members(request.model)
        asked = [_member(ground, member, number) for number, member in enumerate(named)]
        is_steady = all(_is_steady(ground.service, member, request) for member in named)
        whole = cascade(asked, confidence(request.model, DEFAULT_CONFIDENCE), memory if is_steady else None)
        async with closing(whole(replace(request, receipt=False))) as chunks:
            async for chunk in chunks:
                yield chunk

    return generate


def _is_steady(service: Service, named: Named, request: Request) -> bool:
    """Whether this member's answer cannot differ next time: not by its own temperature, nor by an adapter reloaded."""
    return _find(service, named.model).parent is None and not (named.temperature and request.sampling.seed is None)


def _member(ground: _Ground, named: Named, number: int) -> Member:
    card, here = _find(ground.service, named.model), ground.here
    model, adapter = card.parent or card.id, card.id if card.parent else None

    def ask(request: Request) -> Request:
        sampling = request.sampling
        if named.temperature is not None:
            sampling = replace(sampling, temperature=named.temperature)
        if sampling.seed is not None:
            sampling = replace(sampling, seed=(sampling.seed + number) % 2**63)
        return replace(request, model=model, adapter=adapter, sampling=sampling)

    return Member(named.label(number), ground.inner, ask, _judge(ground, here, model, adapter))


def _judge(ground: _Ground, here: Here | None, model: str, adapter: str | None) -> Callable[[Request], Judge] | None:
    """By scores where the weights are here, else in words; by likelihood only the first can."""
    if here is None or model != here.model:
        return None if ground.by_likelihood else _writing(ground.inner)
    if ground.by_likelihood:
        return lambda own: likelihood_judge(likelihoods(here, adapter))
    return _scoring(here, adapter)


def _writing(inner: Generate) -> Callable[[Request], Judge]:
    return lambda own: writing_judge(inner, own)


def _scoring(here: Here, adapter: str | None) -> Callable[[Request], Judge]:
    return lambda own: scoring_judge(scorer(here, adapter))


def scorer(here: Here, adapter: str | None) -> Score:
    """Log-likelihood of short texts as the answer to messages. Prompts that begin alike share the engine's cache."""

    async def score(messages: tuple[Message, ...], texts: tuple[str, ...]) -> tuple[float, ...]:
        prompt = here.language.prompt(Request("judge", here.model, messages, Sampling()))
        session: Session = await here.engine.session(adapter, JUDGES_LAST)
        try:
            await session.append(prompt)
            return tuple([_mean(await session.score(_tokens(here, text))) for text in texts])
        finally:
            await session.drop()

    return score


def likelihoods(here: Here, adapter: str | None) -> Score:
    """Total log-likelihood of short texts, each as the whole answer: its tokens and the end."""

    async def score(messages: tuple[Message, ...], texts: tuple[str, ...]) -> tuple[float, ...]:
        prompt = here.language.prompt(Request("likely", here.model, messages, Sampling()))
        end = min(here.language.tokenizer.eos_ids)
        session: Session = await here.engine.session(adapter, JUDGES_LAST)
        try:
            await session.append(prompt)
            return tuple([sum(await session.score([*_tokens(here, text), end])) for text in texts])
        finally:
            await session.drop()

    return score


def _tokens(here: Here, text: str) -> Sequence[int]:
    tokens = here.language.tokenizer.encode(text, add_special=False)
    if not tokens:
        raise InvalidRequest(f"expected a text to score, found {text!r}", "prompt")
    return tokens


def _mean(scores: Sequence[float]) -> float:
    """Per token, so that a longer word is not less likely for its length."""
    return sum(scores) / len(scores)
