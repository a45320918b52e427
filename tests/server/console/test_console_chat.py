"""Chatting in the console: what is sent, what is shown while it streams, and how an answer ends."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from shoal.core import Message
from shoal.core.errors import ContextTooLong, InvalidRequest, LocalError, Overloaded
from shoal.core.receipt_view import ReceiptView

pytestmark = pytest.mark.real


def ask(page: Page, text: str) -> None:
    page.get_by_label("Message", exact=True).fill(text)
    page.keyboard.press("Enter")


def test_an_answer_appears_while_it_streams(page: Page, console: Any, answer: Any) -> None:
    first, second = asyncio.Event(), asyncio.Event()
    console.script = answer("The **sea", first, "** is", second, " wide.")
    ask(page, "What is the sea?")
    shown = page.locator(".answer")
    expect(shown).to_have_text("The **sea")
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    console.open(first)
    expect(shown.locator("strong")).to_have_text("sea")
    expect(page.locator(".metrics")).to_contain_text("to first")
    console.open(second)
    expect(shown).to_have_text("The sea is wide.")
    expect(page.locator(".metrics")).to_contain_text(re.compile(r"tiny.*tok/s.*5 tokens.*12 in prompt, 4 cached"))
    expect(page.get_by_role("button", name="Stop")).to_be_hidden()
    expect(page.locator("#announcer")).to_have_text("The sea is wide.")


def test_stop_cancels_on_the_server_and_continue_goes_on(page: Page, console: Any, answer: Any) -> None:
    console.script = answer("One, two,", asyncio.Event())
    ask(page, "Count")
    expect(page.locator(".answer")).to_have_text("One, two,")
    page.keyboard.press("Escape")
    assert console.wait_ended() == console.last_request.request_id
    assert console.generate.cancelled == [console.last_request.request_id]
    expect(page.locator(".note")).to_contain_text("Stopped")

    console.script = answer(" three.")
    page.get_by_role("button", name="Continue").click()
    expect(page.locator(".answer")).to_have_text("One, two, three.")
    assert [message.role for message in console.last_request.prompt] == ["user", "assistant", "user"]
    assert console.last_request.prompt[1].content == "One, two,"


def test_regenerate_asks_again_with_the_same_messages(page: Page, console: Any, answer: Any) -> None:
    ask(page, "Hi")
    expect(page.locator(".answer")).to_have_text("Hello there.")
    console.script = answer("Good day.")
    page.get_by_role("button", name="Regenerate").click()
    expect(page.locator(".answer")).to_have_text("Good day.")
    assert console.last_request.prompt == (Message("user", "Hi"),)


def test_an_edited_message_replaces_what_followed(page: Page, console: Any) -> None:
    for text in ("first", "second"):
        ask(page, text)
        expect(page.locator(".turn.assistant[aria-busy=false]")).to_have_count(1 if text == "first" else 2)
    page.locator(".turn.user").first.hover()
    page.get_by_role("button", name="Edit and send again").first.click()
    page.get_by_label("Edit message").fill("changed")
    page.keyboard.press("Enter")
    expect(page.locator(".turn")).to_have_count(2)
    expect(page.locator(".answer")).to_have_text("Hello there.")
    assert console.last_request.prompt == (Message("user", "changed"),)


def test_sampling_controls_reach_the_request_and_only_when_set(page: Page, console: Any) -> None:
    ask(page, "plain")
    console.wait_ended()
    plain = console.last_request.sampling
    assert (plain.temperature, plain.top_k, plain.seed, plain.max_tokens, plain.stop) == (1.0, 0, None, None, ())

    controls = {"Temperature": "0.3", "Top-p": "0.9", "Top-k": "40", "Min-p": "0.05", "Max tokens": "77", "Seed": "0",
                "Repetition penalty": "1.1", "System prompt": "Be brief.", "Stop at": "END\n\\n\\n"}  # fmt: skip
    for label, value in controls.items():
        page.get_by_label(label).fill(value)
    ask(page, "tuned")
    console.wait_ended()
    tuned = console.last_request.sampling
    assert (tuned.temperature, tuned.top_p, tuned.top_k, tuned.min_p) == (0.3, 0.9, 40, 0.05)
    assert (tuned.max_tokens, tuned.seed, tuned.repetition_penalty, tuned.stop) == (77, 0, 1.1, ("END", "\n\n"))
    assert console.last_request.prompt[0] == Message("system", "Be brief.")


def test_a_value_out_of_range_is_named_and_not_sent(page: Page, console: Any) -> None:
    page.get_by_label("Temperature").fill("9")
    expect(page.locator("#about-temperature")).to_contain_text("Not sent")
    ask(page, "Hi")
    console.wait_ended()
    assert console.last_request.sampling.temperature == 1.0


def test_models_and_adapters_can_be_chosen(page: Page, console: Any) -> None:
    choice = page.get_by_role("combobox", name="Model")
    expect(choice).to_have_value("tiny")
    choice.select_option("pirate")
    ask(page, "Ahoy")
    console.wait_ended()
    assert (console.last_request.model, console.last_request.adapter) == ("tiny", "pirate")
    page.reload()
    expect(choice).to_have_value("pirate")


def test_errors_are_said_in_plain_words(page: Page, console: Any, answer: Any) -> None:
    cases = [
        (Overloaded("queue full", 7.0), "The server is busy", "in 7 s"),
        (ContextTooLong("4096 tokens, got 9000"), "too long for the model", "Start a new chat"),
        (InvalidRequest("temperature must be 2 at most", "temperature"), "refused", "temperature must be 2 at most"),
        (LocalError("out of memory"), "Something went wrong", "Try again"),
    ]
    for error, title, text in cases:
        console.script = answer(error)
        page.get_by_role("button", name="New chat").click()
        ask(page, "Hi")
        note = page.get_by_role("alert").filter(has_text=title)
        expect(note).to_contain_text(text)
    console.script = answer("Better.")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".answer")).to_have_text("Better.")


def test_an_error_in_the_middle_keeps_what_had_arrived(page: Page, console: Any, answer: Any) -> None:
    console.script = answer("Half an", LocalError("the engine stopped"))
    ask(page, "Hi")
    expect(page.locator(".note.failed")).to_contain_text("Something went wrong")
    expect(page.locator(".answer")).to_have_text("Half an")


def test_conversations_are_listed_exported_deleted_and_restored(page: Page, console: Any) -> None:
    for text in ("About whales", "About herring"):
        page.get_by_role("button", name="New chat").click()
        ask(page, text)
        expect(page.locator(".turn.assistant[aria-busy=false]")).to_have_count(1)
    rows = page.locator("#conversations a")
    expect(rows).to_have_text(["About herring", "About whales"])
    rows.nth(1).click()
    expect(page.locator(".bubble")).to_have_text("About whales")

    page.locator("#conversations li").nth(1).hover()
    with page.expect_download() as download:
        page.get_by_role("button", name="Export “About whales”").click()
    exported = json.loads(download.value.path().read_text())
    assert [turn["content"] for turn in exported["conversations"][0]["turns"]] == ["About whales", "Hello there."]

    page.get_by_role("button", name="Delete “About whales”").click()
    expect(rows).to_have_text(["About herring"])
    expect(page.locator(".turn")).to_have_count(0)
    page.get_by_role("button", name="Undo").click()
    expect(rows).to_have_text(["About herring", "About whales"])
    expect(page.locator(".bubble")).to_have_text("About whales")


def test_the_list_is_bounded_and_foreign_entries_are_left_alone(page: Page) -> None:
    page.evaluate("""() => {
      for (let n = 0; n < 130; n += 1) localStorage.setItem(`shoal.chat.old${n}`, JSON.stringify({ id: `old${n}`,
        title: `Old ${n}`, updated: n, settings: { model: "", system: "", sampling: {} }, turns: [] }));
      localStorage.setItem("shoal.chat.broken", "{ not json");
    }""")
    ask(page, "New")
    expect(page.locator(".turn.assistant[aria-busy=false]")).to_have_count(1)
    expect(page.locator("#conversations a")).to_have_count(100)
    expect(page.locator("#conversations a").nth(1)).to_have_text("Old 129")


def test_a_signed_answer_has_a_badge_that_tells_what_it_shows(page: Page, console: Any, answer: Any) -> None:
    console.receipt = ReceiptView(
        "signer/7",
        "r",
        "signer",
        7,
        0,
        "tiny",
        "ab" * 32,
        True,
        ("signed by signer as its number 7",),
        (),
        (),
        ("pass: fingerprint",),
    )
    console.script = answer("Signed words.")
    ask(page, "Hi")
    assert console.wait_ended()
    assert console.last_request.receipt
    badge = page.locator(".receipt")
    expect(badge.locator("summary")).to_have_text("Signed")
    badge.locator("summary").click()
    expect(badge.locator("summary")).to_have_text("Signed and audited")
    expect(badge.locator(".evidence")).to_contain_text("signed by signer as its number 7")
    expect(badge.locator(".evidence")).to_contain_text("weights abababababababab…")
    expect(badge).to_contain_text("A signature alone does not show that the model named is the one that ran")
    page.reload()
    expect(page.locator(".receipt summary")).to_have_text("Signed")


def test_a_server_that_signs_nothing_is_asked_once_and_then_without(page: Page, console: Any, answer: Any) -> None:
    def refusing(request: Any) -> Any:
        if request.receipt:
            raise InvalidRequest("receipt: this node signs none", "receipt", "receipts_off")
        return answer("Plain words.")(request)

    console.script = refusing
    ask(page, "Hi")
    expect(page.locator(".answer")).to_have_text("Plain words.")
    expect(page.locator(".receipt")).to_have_count(0)
    ask(page, "Again")
    expect(page.locator(".answer").nth(1)).to_have_text("Plain words.")
    assert [request.receipt for request in console.generate.seen] == [True, False, False]
