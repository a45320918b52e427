"""LoRA adapters of the default model, served beside it: by name, in one batch, loaded and dropped while it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from peft_folder import write_adapter
from served import Served, assert_idle, served, until

pytestmark = pytest.mark.real

QUESTIONS = ["Tell me a story about the sea.", "What is the capital of France?", "Count from one to ten."]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("adapters")
    attention = ("self_attn.q_proj", "self_attn.v_proj")
    return {
        "pirate": write_adapter(root / "pirate", seed=1),
        "poet": write_adapter(root / "poet", seed=2, rank=8, modules=attention),
        "guest": write_adapter(root / "guest", seed=3),
    }


@pytest.fixture(scope="module")
def server(default_gguf: Path, home: Path, folders: dict[str, Path]) -> Iterator[Served]:
    flags = [f"--adapter={name}={folders[name]}" for name in ("pirate", "poet")]
    with served(default_gguf, home, *flags, "--adapter-loading") as running:
        yield running


def chat(server: Served, model: str, question: str, **options: Any) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": 16}
    return server.post("/v1/chat/completions", body | options)


def said(server: Served, model: str, question: str, **options: Any) -> str:
    answer = chat(server, model, question, **options).raise_for_status().json()
    assert answer["model"] == model
    text: str = answer["choices"][0]["message"]["content"]
    return text


def load(server: Served, name: str, folder: Path) -> httpx.Response:
    return server.post("/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(folder)})


def unload(server: Served, name: str) -> httpx.Response:
    return server.post("/v1/unload_lora_adapter", {"lora_name": name})


def test_adapters_are_listed_under_their_base(server: Served) -> None:
    cards = {card.id: card.model_dump() for card in server.client().models.list().data}
    assert list(cards) == [server.model, "pirate", "poet"]
    assert cards["pirate"]["parent"] == cards["poet"]["parent"] == server.model


def test_each_adapter_says_something_of_its_own(server: Served) -> None:
    assert len({said(server, model, QUESTIONS[0]) for model in (server.model, "pirate", "poet")}) == 3


def test_a_mixed_burst_says_what_each_says_alone(server: Served) -> None:
    """In one batch, behind one prefix cache: neither weights nor cached keys and values may leak between them."""
    wanted = [(model, question) for model in ("pirate", server.model, "poet") for question in QUESTIONS]
    alone = [said(server, model, question) for model, question in wanted]

    async def go() -> list[str]:
        async with server.async_client() as asker:
            burst = [
                asker.chat.completions.create(
                    model=model, messages=[{"role": "user", "content": question}], temperature=0, max_tokens=16
                )
                for model, question in wanted
            ]  # fmt: skip
            return [done.choices[0].message.content or "" for done in await asyncio.gather(*burst)]

    assert asyncio.run(go()) == alone


def test_an_unknown_adapter_is_404_and_names_what_there_is(server: Served) -> None:
    with pytest.raises(openai.NotFoundError, match="poet") as refused:
        server.client().chat.completions.create(model="nobody", messages=[{"role": "user", "content": "hi"}])
    assert refused.value.code == "model_not_found"
    assert unload(server, "nobody").status_code == 404


def test_an_adapter_comes_and_goes_while_the_server_runs(server: Served, folders: dict[str, Path]) -> None:
    before = said(server, server.model, QUESTIONS[0])
    assert chat(server, "guest", QUESTIONS[0]).status_code == 404
    assert load(server, "guest", folders["guest"]).status_code == 200
    guest = said(server, "guest", QUESTIONS[0])
    assert guest != before
    assert load(server, "guest", folders["guest"]).status_code == 400  # the name is taken
    assert unload(server, "guest").status_code == 200
    assert chat(server, "guest", QUESTIONS[0]).status_code == 404
    assert load(server, "guest", folders["pirate"]).status_code == 200
    assert said(server, "guest", QUESTIONS[0]) == said(server, "pirate", QUESTIONS[0])  # not from the old one's cache
    assert unload(server, "guest").status_code == 200
    assert said(server, server.model, QUESTIONS[0]) == before


def test_unloading_waits_for_the_answer_that_uses_it(server: Served, folders: dict[str, Path]) -> None:
    assert load(server, "guest", folders["guest"]).status_code == 200
    expected = said(server, "guest", QUESTIONS[0], max_tokens=48, ignore_eos=True)

    async def go() -> tuple[str, int]:
        async with httpx.AsyncClient(base_url=server.url, timeout=120) as client:
            messages = [{"role": "user", "content": QUESTIONS[0]}]
            body = {"model": "guest", "messages": messages, "temperature": 0, "max_tokens": 48, "ignore_eos": True}
            asked = asyncio.create_task(client.post("/v1/chat/completions", json=body))
            await asyncio.to_thread(until, lambda: server.stats()["num_running"] == 1)
            dropped = await client.post("/v1/unload_lora_adapter", json={"lora_name": "guest"})
            answer = await asked
            return answer.json()["choices"][0]["message"]["content"], dropped.status_code

    assert asyncio.run(go()) == (expected, 200)


def test_a_broken_folder_is_the_client_s_fault_and_changes_nothing(server: Served, tmp_path: Path) -> None:
    broken = write_adapter(tmp_path / "broken", seed=4)
    weights = (broken / "adapter_model.safetensors").read_bytes()
    (broken / "adapter_model.safetensors").write_bytes(weights[: len(weights) // 2])
    for folder in (broken, tmp_path / "nothing here", tmp_path):
        answer = load(server, "broken", folder)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "lora_path")
    assert chat(server, "broken", "hi").status_code == 404
    assert len(server.client().models.list().data) == 3


def test_loading_is_refused_unless_the_owner_allows_it(
    default_gguf: Path, home: Path, folders: dict[str, Path]
) -> None:
    with served(default_gguf, home) as closed:
        assert load(closed, "guest", folders["guest"]).status_code == 403
        assert unload(closed, "guest").status_code == 403


def test_nothing_is_left_behind(server: Served) -> None:
    assert_idle(server)
    assert "Traceback" not in server.printed()
