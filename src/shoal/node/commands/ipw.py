"""`shoal ipw`: how much is right per watt and per joule, over settings of this machine."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Annotated

import typer

from shoal.core.errors import BadConfig, InvalidRequest, LocalError
from shoal.core.request import Message, Request, Sampling
from shoal.node.answering import Answerer, Place, answering, prepare
from shoal.node.config import OPTIONS, NodeConfig
from shoal.node.config_sources import Loaded
from shoal.node.flags import ENGINE, configured
from shoal.node.terminal import say, write_json, write_table

if TYPE_CHECKING:
    from shoal.meter.ipw import Interval, Score, Tried
    from shoal.node.tasks import Task

FAMILIES = "chain_sum,basic_arithmetic,gcd,letter_counting"
HINT = "Answer with the result alone."


@dataclass(frozen=True, slots=True)
class Row:
    """What one setting reached; source: where its joules came from."""

    setting: str
    score: Score
    source: str


@configured(*ENGINE, "core_watts", "idle_watts")
def ipw(
    loaded: Loaded,
    settings: Annotated[
        list[str] | None, typer.Option("--setting", help="Options to try, as threads=1,kv_type=int8; may be repeated.")
    ] = None,
    families: Annotated[str, typer.Option("--tasks", help="Families of reasoning-gym, by comma.")] = FAMILIES,
    count: Annotated[int, typer.Option("--count", min=4, max=10_000, help="Questions for each setting.")] = 40,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1, help="Longest answer, in tokens.")] = 24,
    seed: Annotated[int, typer.Option("--seed", help="Same seed, same questions.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Intelligence per watt (arXiv 2511.07885): accuracy over power and energy, one question at a time, greedy.

    Intervals are 95 %, by bootstrap. Without counters the joules are modelled, and the table says so.
    """
    from shoal.node.tasks import tasks

    try:
        questions = tasks([name.strip() for name in families.split(",")], count, seed)
    except InvalidRequest as error:
        raise BadConfig("--tasks", str(error).removeprefix("--tasks: ")) from None
    configs = [(text or "as configured", _changed(loaded.config, text)) for text in settings or [""]]
    rows = [asyncio.run(_measured(name, config, questions, max_tokens)) for name, config in configs]
    if as_json:
        write_json({"model": loaded.config.model, "tasks": families, "count": count, "rows": [asdict(r) for r in rows]})
        return
    cells = [(row.setting, _shown(row.score.accuracy, 3), _shown(row.score.apw, 5), _shown(row.score.apj, 5),
              f"{row.score.watts:.2f}", f"{row.score.joules:.2f}") for row in rows]  # fmt: skip
    write_table(("setting", "accuracy", "accuracy / W", "accuracy / J", "W", "J a question"), cells)
    say(f"energy: {'; '.join(dict.fromkeys(row.source for row in rows))}")


def _changed(config: NodeConfig, text: str) -> NodeConfig:
    """`config` with the options that `text` names. BadConfig."""
    parsers = {option.name: option.parse for option in OPTIONS if option.name in ENGINE}
    changes = {}
    for part in filter(None, text.split(",")):
        name, mark, value = part.partition("=")
        if not mark or name not in parsers:
            raise BadConfig("--setting", f"expected OPTION=VALUE of {', '.join(ENGINE)}; found {part!r}")
        try:
            changes[name] = parsers[name](value)
        except ValueError as error:
            raise BadConfig(f"--setting {name}", str(error)) from None
    return replace(config, **changes)


async def _measured(name: str, config: NodeConfig, questions: Sequence[Task], max_tokens: int) -> Row:
    from shoal.meter.ipw import score
    from shoal.node.tasks import Task

    prepare(config, Place())
    async with answering(config, Place()) as answerer:
        say(f"{name}: {len(questions)} questions")
        await _try(answerer, Task("2+2?", "4"), 1, -1)  # pages are touched, kernels loaded
        tried = [await _try(answerer, task, max_tokens, number) for number, task in enumerate(questions)]
    return Row(name, score([one for one, _ in tried]), tried[0][1])


async def _try(answerer: Answerer, task: Task, max_tokens: int, number: int) -> tuple[Tried, str]:
    """One question, and where its joules came from."""
    from shoal.meter.ipw import Tried

    prompt = (Message("user", f"{task.question}\n{HINT}"),) if answerer.can_chat else f"{task.question}\n{HINT}\n"
    request = Request(f"ipw-{number}", answerer.model, prompt, Sampling(temperature=0.0, max_tokens=max_tokens))
    text, usage = "", None
    async for chunk in answerer.generate(request):
        text, usage = text + chunk.text, chunk.usage or usage
    if usage is None or usage.energy_j is None or usage.duration_s is None:
        raise LocalError("expected joules with every answer, found none")
    return Tried(task.is_right(text), usage.energy_j.value, usage.duration_s), usage.energy_j.source


def _shown(interval: Interval, digits: int) -> str:
    return f"{interval.value:.{digits}f} ({interval.low:.{digits}f} to {interval.high:.{digits}f})"
