"""`shoal swarm`: one question to several members, who judges what, and the winner."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Annotated

import typer

from shoal.core.chunk import Chunk
from shoal.core.errors import BadConfig
from shoal.core.ranking import Ranking
from shoal.core.request import Message, Request, Sampling
from shoal.node.config import NO_MODEL, NodeConfig
from shoal.node.config_sources import Loaded
from shoal.node.flags import ENGINE, MESH, MaxTokens, Seed, Temperature, configured
from shoal.node.terminal import say, write, write_json, write_table

HEATS = ("0", "0.6", "1.0")
"""Temperatures of the members where none is named."""


@configured(*ENGINE, "upstreams", "upstream_keys", *MESH)
def swarm(
    loaded: Loaded,
    question: Annotated[str, typer.Argument(help="What to ask.")],
    member: Annotated[
        list[str] | None, typer.Option("--member", help="MODEL[@TEMPERATURE][*COUNT]; may be repeated.")
    ] = None,
    strategy: Annotated[
        str, typer.Option("--strategy", help="swarm, believed, vote, weighted, likely, judge, robin or moa.")
    ] = "swarm",
    max_tokens: MaxTokens = 256,
    temperature: Temperature = 0.6,
    seed: Seed = None,
    as_json: Annotated[bool, typer.Option("--json", help="The answer, the ballot and the cost, for scripts.")] = False,
) -> None:
    """Ask several members, let them judge each other's answers in pairs, and show the winner and the ballot."""
    from shoal.node.fetch import ensure_model
    from shoal.think.naming import STRATEGIES

    if strategy not in STRATEGIES:
        raise BadConfig("--strategy", f"expected one of {', '.join(STRATEGIES)}, found {strategy!r}")
    if loaded.config.model != NO_MODEL:
        ensure_model(loaded.config)
    sampling = Sampling(temperature=temperature, seed=seed, max_tokens=max_tokens)
    name = f"{strategy}:{','.join(member or default_members(loaded.config))}"
    last, text = asyncio.run(_asked(loaded.config, Request("swarm", name, (Message("user", question),), sampling)))
    if as_json:
        write_json({"text": text, "ranking": None if last.ranking is None else _plain(last.ranking),
                    "usage": None if last.usage is None else asdict(last.usage)})  # fmt: skip
        return
    if last.ranking is not None:
        write_table(("answer of", "score", "good", "won", "lost"), ballot(last.ranking))
    write(text if text.endswith("\n") else f"{text}\n")


def default_members(config: NodeConfig) -> list[str]:
    """This node's own model in three temperatures. BadConfig where it has none."""
    if config.model == NO_MODEL:
        raise BadConfig("--member", "this node has no model of its own: name who takes part")
    from shoal.node.compose import model_name

    return [f"{_escaped(model_name(config.model))}@{heat}" for heat in HEATS]


def ballot(ranking: Ranking) -> list[tuple[str, ...]]:
    """A row an answer, the winner first: score with its interval, weighed verdicts won and lost."""
    rows: list[tuple[str, ...]] = []
    order = sorted(range(len(ranking.candidates)), key=lambda n: (n != ranking.winner, -ranking.candidates[n].score))
    for number in order:
        one = ranking.candidates[number]
        won = sum(v.for_first for v in ranking.verdicts if v.first == number)
        won += sum(1 - v.for_first for v in ranking.verdicts if v.second == number)
        count = sum(number in (v.first, v.second) for v in ranking.verdicts)
        score = f"{one.score:+.2f} +- {one.half_width:.2f}" if count else "-"
        rows.append((one.member, score, "yes" if one.is_good else "no", f"{won:.1f}", f"{count - won:.1f}"))
    return rows


async def _asked(config: NodeConfig, request: Request) -> tuple[Chunk, str]:
    from shoal.node.serving import serving

    text, last = "", Chunk()
    async with serving(config) as service:
        service.composed(request.model)  # a name nobody serves is said before anybody is asked
        async for chunk in service.generate(request):
            if chunk.progress:
                say(chunk.progress)
            text += chunk.text
            if chunk.usage is not None:
                last = chunk
    return last, text


def _plain(ranking: Ranking) -> dict[str, object]:
    plain = asdict(ranking)
    for candidate in plain["candidates"]:
        candidate["text_sha256"] = candidate["text_sha256"].hex()
    return plain


def _escaped(name: str) -> str:
    return "".join(f"%{ord(char):02X}" if char in ",@*;%" else char for char in name)
