"""`shoal run`: one prompt in, one answer out."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from shoal.core.errors import BadConfig
from shoal.core.request import Constraint, Message, Sampling
from shoal.node.answering import Place, Question, answering, ask, prepare
from shoal.node.config_sources import Loaded
from shoal.node.flags import ENGINE, MaxTokens, Seed, System, Temperature, TopP, Url, UrlKey, configured
from shoal.node.terminal import write, write_json


@configured(*ENGINE)
def run(
    loaded: Loaded,
    prompt: Annotated[list[str] | None, typer.Argument(help="The prompt; '-' stands for stdin, as does none.")] = None,
    system: System = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = 0.6,
    top_p: TopP = 0.9,
    seed: Seed = None,
    schema: Annotated[Path | None, typer.Option("--schema", help="JSON Schema file the answer must satisfy.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object with the answer and its cost.")] = False,
    url: Url = None,
    url_key: UrlKey = None,
) -> None:
    """Answer one prompt, from the arguments or from stdin, to stdout."""
    messages = (*((Message("system", system),) if system else ()), Message("user", _prompt(prompt or ["-"])))
    sampling = Sampling(temperature=temperature, top_p=top_p, seed=seed, max_tokens=max_tokens)
    question = Question(messages, sampling, _constraint(schema))
    place = Place(url, url_key, loaded.config.model if loaded.origins["model"] == "--model" else None)
    prepare(loaded.config, place)
    asyncio.run(_run(loaded, place, question, as_json))


async def _run(loaded: Loaded, place: Place, question: Question, as_json: bool) -> None:
    async with answering(loaded.config, place) as answerer:
        answer = await ask(answerer, question, is_shown=not as_json)
    if as_json:
        write_json(asdict(answer))
    elif not answer.text.endswith("\n"):
        write("\n")


def _prompt(words: list[str]) -> str:
    """The words, with `-` replaced by what stdin holds."""
    text = " ".join(sys.stdin.read().rstrip("\n") if word == "-" else word for word in words)
    if not text.strip():
        raise BadConfig("prompt", "expected some text as arguments or on stdin, found none")
    return text


def _constraint(schema: Path | None) -> Constraint | None:
    if schema is None:
        return None
    try:
        text = schema.read_text(encoding="utf-8")
        json.loads(text)
    except (OSError, ValueError) as error:
        raise BadConfig("--schema", f"expected a file with a JSON Schema: {error}") from error
    return Constraint("json_schema", text)
