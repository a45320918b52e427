"""The page itself: hostile answers, small screens, the keyboard, screen readers, both themes."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

pytestmark = pytest.mark.real

HOSTILE = """
<script>window.pwned = 1</script>
<img src=x onerror="window.pwned = 1"> <svg onload="window.pwned = 1"><animate onbegin="window.pwned = 1"/></svg>
<iframe src="https://evil.test/"></iframe><style>@import url(https://evil.test/a.css);</style>
<a href="javascript:window.pwned = 1">raw anchor</a> <details open ontoggle="window.pwned = 1">x</details>

[plain](javascript:window.pwned=1) [upper](JaVaScRiPt:window.pwned=1) [tab](java\tscript:window.pwned=1)
[data](data:text/html,<script>window.pwned=1</script>) [vb](vbscript:x) [file](file:///etc/passwd) [rel](/v1/stats)
[blob](blob:https://evil.test/1) [quote](https://ok.test/"onmouseover="window.pwned=1)
[nest [in](javascript:1)](javascript:2)
![image](https://evil.test/beacon.png) ![script](javascript:window.pwned=1) [![both](https://evil.test/b.png)](javascript:3)
<javascript:window.pwned=1> <https://ok.test/?a=<script>> https://ok.test/"><script>window.pwned=1</script>
**<img src=x onerror=window.pwned=1>** `<script>window.pwned=1</script>` [ref]: javascript:window.pwned=1
&lt;script&gt; &#106;avascript:1 [entity](&#106;avascript:window.pwned=1) [colon](javascript&colon;window.pwned=1)

```html"><img src=x onerror=window.pwned=1>
</code></pre><script>window.pwned = 1</script>
```

| <script>window.pwned=1</script> | [cell](javascript:window.pwned=1) |
|---|---|
| <img src=x onerror=window.pwned=1> | <br onclick=window.pwned=1> |

1. <script>window.pwned=1</script>
   > <svg/onload=window.pwned=1>
# <img src=x onerror=window.pwned=1>
[ok](https://ok.test/path) [mail](mailto:a@ok.test)
"""
ALLOWED = {"P", "H3", "H4", "H5", "H6", "UL", "OL", "LI", "BLOCKQUOTE", "HR", "BR", "STRONG", "EM", "DEL", "CODE",
           "PRE", "A", "DIV", "SPAN", "TABLE", "THEAD", "TBODY", "TR", "TH", "TD", "BUTTON", "svg", "path"}  # fmt: skip
ATTRIBUTES = {"class", "href", "rel", "target", "title", "start", "tabindex", "role", "aria-label", "aria-hidden",
              "type", "scope", "viewBox", "focusable", "d"}  # fmt: skip


def ask(page: Page, text: str) -> None:
    page.get_by_label("Message", exact=True).fill(text)
    page.keyboard.press("Enter")
    expect(page.locator(".turn.assistant[aria-busy=false] .meta").last).to_be_visible()


@pytest.mark.parametrize("in_pieces", [False, True])
def test_script_in_an_answer_never_runs(chromium: Browser, console: Any, answer: Any, in_pieces: bool) -> None:
    """With the content security policy switched off, so that the page's own care is what is tested."""
    console.script = answer(*(HOSTILE if in_pieces else [HOSTILE]))
    with chromium.new_context(bypass_csp=True) as context:
        page = context.new_page()
        asked: list[str] = []
        context.on("request", lambda request: asked.append(request.url))
        page.on("dialog", lambda dialog: asked.append(f"dialog {dialog.message}"))
        page.goto(console.url)
        page.locator("#status[data-state=online]").wait_for()
        ask(page, "<img src=x onerror=window.pwned=1>")
        page.reload()
        expect(page.locator(".answer a", has_text="ok").last).to_be_visible()

        made = page.evaluate("""() => [...document.querySelectorAll(".answer *")].map((node) =>
          [node.nodeName, node.getAttributeNames(), node.getAttribute("href")])""")
        assert {name for name, _, _ in made} <= ALLOWED
        assert {attribute for _, attributes, _ in made for attribute in attributes} <= ATTRIBUTES
        links = [href for name, _, href in made if name == "A"]
        assert "https://ok.test/path" in links
        assert all(href.startswith(("http://", "https://", "mailto:")) for href in links)
        assert page.locator(".answer a").first.get_attribute("rel") == "noopener noreferrer nofollow"
        assert page.evaluate("window.pwned") is None
        assert [url for url in asked if not url.startswith(console.url)] == []

        page.evaluate(
            "() => { document.body.innerHTML = '<img src=x onerror=\"window.pwned = 1; this.id = `ran`\">'; }"
        )
        page.locator("#ran").wait_for(state="attached")  # the same text, parsed as HTML, does run: the test can fail
        assert page.evaluate("window.pwned") == 1


def test_the_page_works_in_plain_text_when_markdown_does_not(
    context: BrowserContext, console: Any, answer: Any
) -> None:
    context.route("**/markdown.js", lambda route: route.abort())
    console.script = answer("**bold**", " <b>text</b>")
    page = context.new_page()
    page.goto(console.url)
    ask(page, "Hi")
    expect(page.locator(".answer")).to_have_text("**bold** <b>text</b>")


LONG = (
    "# "
    + "Heading" * 20
    + "\n\n"
    + "x" * 400
    + "\n\n```\n"
    + "code " * 80
    + "\n```\n\n"
    + "| wide " * 30
    + "|\n"
    + "|--" * 30
    + "|\n"
)


@pytest.mark.parametrize("width", [360, 720, 1000])
def test_nothing_scrolls_sideways(page: Page, console: Any, answer: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 640})
    console.script = answer(LONG)

    def overflow() -> int:
        return int(page.evaluate("document.documentElement.scrollWidth - innerWidth"))

    assert overflow() <= 0
    ask(page, "y" * 300)
    assert overflow() <= 0
    assert page.evaluate("(n => n.scrollWidth - n.clientWidth)(document.getElementById('scroll'))") <= 0
    page.get_by_role("button", name="Engine and settings", exact=True).click()
    expect(page.get_by_label("Temperature")).to_be_visible()
    assert overflow() <= 0


def test_a_drawer_takes_the_focus_and_gives_it_back(page: Page) -> None:
    page.set_viewport_size({"width": 360, "height": 640})
    expect(page.locator("#open-sidebar")).to_be_visible()  # the narrow layout is there: before, it takes no focus
    page.locator("#open-sidebar").focus()
    expect(page.locator("#open-sidebar")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Close conversations")).to_be_focused()
    expect(page.locator("#stage")).to_have_attribute("inert", "")
    page.keyboard.press("Escape")
    expect(page.locator("#open-sidebar")).to_be_focused()
    expect(page.locator("#sidebar")).to_be_hidden()


def test_everything_can_be_done_from_the_keyboard(page: Page, console: Any) -> None:
    page.locator("body").focus()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the message box")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_label("Message", exact=True)).to_be_focused()
    page.keyboard.type("Line one")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("line two")
    page.keyboard.press("Enter")
    expect(page.locator(".bubble")).to_have_text("Line one\nline two")
    expect(page.locator(".answer")).to_have_text("Hello there.")
    reached = [focused(page)]
    while len(reached) < 60 and "Regenerate" not in reached[-1]:
        page.keyboard.press("Shift+Tab")
        reached.append(focused(page))
    page.keyboard.press("Enter")
    expect(page.locator(".answer")).to_have_text("Hello there.")
    console.wait_ended()
    console.wait_ended()
    assert len(console.generate.seen) == 2


def focused(page: Page) -> str:
    return str(page.evaluate("document.activeElement.ariaLabel || document.activeElement.textContent || ''"))


def test_every_control_has_a_name_and_every_part_a_landmark(page: Page, console: Any, answer: Any) -> None:
    console.script = answer("Hi\n\n```py\nx = 1\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |\n")
    ask(page, "Hello")
    nameless = page.evaluate("""() => {
      const named = (node) => (node.ariaLabel || node.labels?.[0]?.textContent || node.textContent || "").trim();
      const referred = (node) => document.getElementById(node.getAttribute("aria-labelledby") ?? "")?.textContent;
      const kinds = "button, a, input, select, textarea, aside, dialog, [tabindex], [role=region]";
      const all = document.querySelectorAll(kinds);
      return [...all].filter((node) => !named(node) && !referred(node)).map((node) => node.outerHTML);
    }""")
    assert nameless == []
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((node) => node.id)")
    assert len(ids) == len(set(ids))
    assert page.locator("main").count() == page.locator("h1").count() == 1
    tree = page.locator("body").aria_snapshot()
    for expected in (
        *('button "Send"', 'textbox "Message"', 'combobox "Model"', 'spinbutton "Temperature"', 'heading "Engine"'),
        *('complementary "Conversations"', 'button "Copy code"', "main"),
    ):
        assert expected in tree, f"{expected} is not in the accessibility tree:\n{tree}"


CONTRAST = """() => {
  const channel = (value) => (value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
  const paint = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgb = (color) => {
    paint.clearRect(0, 0, 1, 1);
    paint.fillStyle = color;
    paint.fillRect(0, 0, 1, 1);
    return paint.getImageData(0, 0, 1, 1).data;
  };
  const light = (color) => {
    const [r, g, b] = [...rgb(color)].map((value) => channel(value / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (node) => {
    const color = getComputedStyle(node).backgroundColor;
    return rgb(color)[3] === 255 ? color : ground(node.parentElement);
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const found = [];
  for (let text = texts.nextNode(); text; text = texts.nextNode()) {
    const node = text.parentElement;
    if (!text.data.trim() || !node.checkVisibility({ opacityProperty: true }) || node.closest(":disabled")) continue;
    const [a, b] = [light(getComputedStyle(node).color), light(ground(node))].sort((x, y) => y - x);
    found.push([(a + 0.05) / (b + 0.05), `${node.tagName}.${node.className}: ${text.data.trim().slice(0, 40)}`]);
  }
  return found.sort((x, y) => x[0] - y[0]);
}"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_is_legible_in_both_themes(
    context: BrowserContext, page: Page, console: Any, answer: Any, theme: Any
) -> None:
    page.emulate_media(color_scheme=theme, reduced_motion="reduce")
    console.script = answer(
        "Text with `code`, a [link](https://ok.test/).\n\n> quote\n\n```py\nx\n```\n\n| a |\n|---|\n| 1 |\n"
    )
    ask(page, "Hello")
    contrasts = page.evaluate(CONTRAST)
    assert len(contrasts) > 40
    assert contrasts[0][0] >= 4.5, contrasts[0]


def test_the_theme_follows_the_system_until_one_is_chosen(page: Page) -> None:
    def background() -> str:
        return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))

    light = background()
    page.emulate_media(color_scheme="dark")
    dark = background()
    assert light != dark
    switch = page.get_by_role("button", name="Dark theme")
    expect(switch).to_have_attribute("aria-pressed", "true")
    switch.click()
    assert background() == light
    page.reload()
    assert background() == light
    switch.click()
    assert background() == dark
