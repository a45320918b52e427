"""What the console keeps when something ends: the page, the server, or the right to ask."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from shoal.server.config import ServerConfig

pytestmark = pytest.mark.real


def ask(page: Page, text: str) -> None:
    page.get_by_label("Message", exact=True).fill(text)
    page.keyboard.press("Enter")


def test_a_reload_in_the_middle_of_an_answer_keeps_what_had_arrived(page: Page, console: Any, answer: Any) -> None:
    console.script = answer("Once upon", asyncio.Event())
    ask(page, "A story")
    expect(page.locator(".answer")).to_have_text("Once upon")
    page.reload()
    console.wait_ended()
    assert console.generate.cancelled == [console.last_request.request_id]
    expect(page.locator(".answer")).to_have_text("Once upon")
    expect(page.locator(".note.interrupted")).to_contain_text("What had arrived is kept")

    console.script = answer(" a time.")
    page.get_by_role("button", name="Continue").click()
    expect(page.locator(".answer")).to_have_text("Once upon a time.")
    expect(page.locator(".note")).to_have_count(0)


def test_an_answer_goes_on_while_another_conversation_is_read(page: Page, console: Any, answer: Any) -> None:
    gate = asyncio.Event()
    console.script = answer("Slow", gate, " and steady.")
    ask(page, "Tortoise")
    expect(page.locator(".answer")).to_have_text("Slow")
    page.get_by_role("button", name="New chat").click()
    expect(page.locator(".turn")).to_have_count(0)
    console.open(gate)
    console.wait_ended()
    page.get_by_role("link", name="Tortoise").click()
    expect(page.locator(".answer")).to_have_text("Slow and steady.")


def test_a_draft_survives_a_reload(page: Page) -> None:
    page.get_by_label("Message", exact=True).fill("not sent yet")
    page.reload()
    expect(page.get_by_label("Message", exact=True)).to_have_value("not sent yet")


def test_a_server_restart_is_noticed_and_survived_without_a_reload(page: Page, console: Any, answer: Any) -> None:
    console.script = answer("Half of", asyncio.Event())
    ask(page, "Hi")
    expect(page.locator(".answer")).to_have_text("Half of")
    console.stop()
    expect(page.locator(".note.interrupted")).to_contain_text("What had arrived is kept")
    expect(page.locator("#status")).to_have_attribute("data-state", "offline")
    expect(page.locator("#banner")).to_contain_text("does not answer")

    console.start()
    expect(page.locator("#status")).to_have_attribute("data-state", "online")
    expect(page.locator("#banner")).to_be_hidden()
    console.script = answer(" a whole.")
    page.get_by_role("button", name="Continue").click()
    expect(page.locator(".answer")).to_have_text("Half of a whole.")


def test_a_server_that_still_loads_says_why(context: BrowserContext, console: Any) -> None:
    console.not_ready = "loading the model"
    page = context.new_page()
    page.goto(console.url)
    expect(page.locator("#banner")).to_contain_text("loading the model")
    console.not_ready = None
    expect(page.locator("#status")).to_have_attribute("data-state", "online")
    expect(page.locator("#banner")).to_be_hidden()


@pytest.mark.parametrize("remember", [False, True])
def test_a_server_with_keys_asks_for_one(context: BrowserContext, console: Any, remember: bool) -> None:
    console.stop()
    console.config = replace(ServerConfig(), api_keys=("sesame",))
    console.start()
    page = context.new_page()
    page.goto(console.url)
    dialog = page.get_by_role("dialog", name="This server asks for an API key")
    for key in ("wrong", "sesame"):
        dialog.get_by_label("API key").fill(key)
        dialog.get_by_label("Remember it").set_checked(remember)
        dialog.get_by_role("button", name="Use this key").click()
        if key == "wrong":
            expect(dialog).to_contain_text("was not accepted")
    expect(page.locator("#status")).to_have_attribute("data-state", "online")
    expect(dialog).to_be_hidden()
    ask(page, "Hi")
    expect(page.locator(".answer")).to_have_text("Hello there.")
    assert page.evaluate("localStorage.getItem('shoal.key')") == ("sesame" if remember else None)


def test_the_engine_view_shows_what_the_engine_does(page: Page, console: Any) -> None:
    console.stats = replace(
        console.stats, num_running=3, num_waiting=7, batch_tokens=96, step_s=0.0125, blocks_used=40, blocks_cached=25
    )
    figures = page.locator("#engine .figures")
    expect(figures).to_contain_text("3 / 8")
    expect(figures).to_contain_text("7 / 64")
    expect(figures).to_contain_text("96 tok")
    expect(figures).to_contain_text("12.5 ms")
    expect(page.locator("#status-text")).to_have_text("3 running, 7 waiting")
    expect(page.locator(".school .used")).to_have_count(32)  # 40 % of 80 fish
    expect(page.locator(".school .cached")).to_have_count(20)
    console.stats = replace(console.stats, generation_tokens_total=500)
    expect(page.locator("#engine .spark .line")).to_have_attribute("points", re.compile(r"^\d"))


def test_the_engine_view_says_what_drafts_and_why(page: Page, console: Any) -> None:
    line = page.locator("#engine .device").nth(1)
    expect(line).to_be_hidden()
    console.stats = replace(
        console.stats, drafter="learned", draft_checks_total=10, draft_accepted_total=25, choice_why="off: <b>it is</b>"
    )
    expect(line).to_have_text("Drafts: learned, 3.5 tokens per check (last off: <b>it is</b>)")
