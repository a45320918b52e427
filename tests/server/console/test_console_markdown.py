"""The console's Markdown and event stream, run where they run: in Chromium, as the modules the server hands out."""

from __future__ import annotations

import random
from typing import Any

import pytest
from playwright.sync_api import Page

pytestmark = pytest.mark.real

RENDER = """async (text) => {
  const { renderMarkdown } = await import("/markdown.js");
  const root = document.createElement("div");
  root.append(...renderMarkdown(text));
  for (const head of root.querySelectorAll(".code-head")) head.remove();
  const accessories = ["rel", "target", "title", "tabindex", "aria-label", "role"];
  for (const node of root.querySelectorAll("*")) for (const name of accessories) node.removeAttribute(name);
  return root.innerHTML;
}"""


def a(href: str, text: str) -> str:
    return f'<a href="{href}">{text}</a>'


def code(text: str) -> str:
    return f'<div class="code"><pre><code>{text}</code></pre></div>'


TABLE = (
    '<div class="table"><table><thead><tr><th class="center" scope="col">a</th><th class="end" scope="col">b</th></tr>'
    '</thead><tbody><tr><td class="center">1 | 2</td><td class="end"><strong>3</strong></td></tr></tbody></table></div>'
)
CASES = {
    "# One\n## Two *it*": "<h3>One</h3><h4>Two <em>it</em></h4>",
    "a **b** _c_ ***d*** ~~e~~": "<p>a <strong>b</strong> <em>c</em> <strong><em>d</em></strong> <del>e</del></p>",
    "snake_case_name 2 * 3 * 4 **open": "<p>snake_case_name 2 * 3 * 4 **open</p>",
    "line\nbreak": "<p>line<br>break</p>",
    "`a <b> ` ``c ` d`` `open": "<p><code>a &lt;b&gt; </code> <code>c ` d</code> `open</p>",
    "- a\n- b\n  - c\n- [x] d": '<ul><li>a</li><li>b<ul><li>c</li></ul></li><li class="task">☑ d</li></ul>',
    "3. a\n4. b\n\ntext": '<ol start="3"><li>a</li><li>b</li></ol><p>text</p>',
    "1. a\n\n   more\n\n2. b": "<ol><li><p>a</p><p>more</p></li><li><p>b</p></li></ol>",
    "1. run\n   ```sh\n   ls\n   ```\n2. done": f"<ol><li>run{code('ls')}</li><li>done</li></ol>",
    "1. run\n   ```sh\nls\n- x\n```\n\n2. done": f"<ol><li>run{code('ls' + chr(10) + '- x')}</li><li>done</li></ol>",
    "1. run\n   ```sh\nls\n    x\n   ```": f"<ol><li>run{code('ls' + chr(10) + '    x')}</li></ol>",
    "> q\n> r\n\nafter": "<blockquote><p>q<br>r</p></blockquote><p>after</p>",
    "```py\nif a < 2:\n    b('#') # c\n```": code(
        '<span class="word">if</span> a &lt; <span class="number">2</span>:\n'
        """    b(<span class="string">'#'</span>) <span class="comment"># c</span>"""
    ),
    "```\nstill open": code("still open"),
    "| a | b |\n|:-:|--:|\n| 1 \\| 2 | **3** |": TABLE,
    "as:\n| a | b |\n|:-:|--:|\n| 1 \\| 2 | **3** |": "<p>as:</p>" + TABLE,
    '[a *b*](https://ok.test/x_(y) "t")': f"<p>{a('https://ok.test/x_(y)', 'a <em>b</em>')}</p>",
    "<https://b.test/> (see https://c.test/d).": f"<p>{a('https://b.test/', 'https://b.test/')} "
    f"(see {a('https://c.test/d', 'https://c.test/d')}).</p>",
    "![alt](https://ok.test/i.png)": f"<p>{a('https://ok.test/i.png', 'alt')}</p>",
    "a\n\n---\n\nb \\*c\\*": "<p>a</p><hr><p>b *c*</p>",
    "<b>html</b> &amp; a<br>b": "<p>&lt;b&gt;html&lt;/b&gt; &amp;amp; a<br>b</p>",
}


@pytest.mark.parametrize("source", CASES)
def test_markdown_becomes_these_nodes(console_page: Page, source: str) -> None:
    assert console_page.evaluate(RENDER, source) == CASES[source]


def test_highlighting_changes_no_character_of_the_code(console_page: Page) -> None:
    """Copying from the page gives what the model wrote, also where the guess at the grammar is wrong."""
    rng = random.Random(7)
    pieces = ['"', "'", "`", '"""', "#", "//", "/*", "*/", "\\", "\n", "if", "name", "1.5e3", "<b>", "é"]
    codes = ["".join(rng.choices(pieces, k=40)) for _ in range(300)]
    shown = console_page.evaluate(
        """async (codes) => {
          const { highlight } = await import("/highlight.js");
          return codes.map((code, index) => {
            const node = document.createElement("code");
            node.append(...highlight(code, index % 2 ? "python" : "js"));
            return node.textContent;
          });
        }""",
        codes,
    )
    assert shown == codes


PIECES = ["# h", "text", "*", "**", "`", "```", "```py", "- ", "1. ", "2) ", "> ", "| a | b |", "|---|---|",
          "| 1 | 2 |", "---", "\n", "\n", "\n\n", "  ", "    ", "[l](https://ok.test/)",
          "[", "]", "(", "\\", "~~~", "é", "🐟", " "]  # fmt: skip


def test_streaming_ends_in_the_same_nodes_as_rendering_at_once(console_page: Page) -> None:
    """500 random texts, each cut at random, seeded. A block that was settled too early would show here."""
    rng = random.Random(20260)
    texts = ["".join(rng.choices(PIECES, k=rng.randint(1, 40))) for _ in range(500)]
    cuts = [sorted(rng.sample(range(len(text) + 1), min(len(text), rng.randint(1, 12)))) for text in texts]
    different = console_page.evaluate(
        """async ([texts, cuts]) => {
          const { MarkdownStream, renderMarkdown } = await import("/markdown.js");
          return texts.filter((text, index) => {
            const [streamed, whole] = [document.createElement("div"), document.createElement("div")];
            const stream = new MarkdownStream(streamed);
            for (const cut of [...cuts[index], text.length]) stream.update(text.slice(0, cut));
            whole.append(...renderMarkdown(text));
            return streamed.innerHTML !== whole.innerHTML;
          });
        }""",
        [texts, cuts],
    )
    assert different == []


def test_a_finished_block_is_not_rendered_again(console_page: Page) -> None:
    """Of 200 paragraphs that arrive word by word, each node is made for its own words only and then left alone."""
    kept = console_page.evaluate("""async () => {
      const { MarkdownStream } = await import("/markdown.js");
      const root = document.createElement("div");
      const stream = new MarkdownStream(root);
      let text = "";
      let settled = [];
      for (let n = 0; n < 200; n += 1) {
        stream.update((text += `word ${n}\\n\\n`));
        if (!settled.every((node, index) => root.childNodes[index] === node)) return n;
        settled = [...root.childNodes].slice(0, -1);
      }
      return "all";
    }""")
    assert kept == "all"


@pytest.mark.parametrize(
    "unit", ["*", "**a ", "_a", "[", "[a](", "`", "``a`", "<", "> ", "- ", "| a ", "~~", "![", "\\", "<br", "https://"]
)
def test_hostile_repetition_costs_little(console_page: Page, unit: str) -> None:
    """40,000 characters in less than a second: a quadratic path with these lengths takes minutes."""
    spent_ms = console_page.evaluate(
        """async (text) => {
          const { renderMarkdown } = await import("/markdown.js");
          const start = performance.now();
          renderMarkdown(text);
          return performance.now() - start;
        }""",
        unit * (40_000 // len(unit)),
    )
    assert spent_ms < 1000


EVENTS = ': comment\r\n\r\nevent: x\ndata: {"a":\ndata: "é🐟"}\n\ndata:no space\r\rdata: [DONE]\r\n\r\ndata: unfinished'


def test_events_are_the_same_in_any_chunking(console_page: Page) -> None:
    """Every way to cut the stream into two, and one character at a time."""
    results: Any = console_page.evaluate(
        """async (text) => {
          const { SseParser } = await import("/api.js");
          const parse = (parts, parser = new SseParser()) => parts.flatMap((part) => parser.push(part));
          const cuts = Array.from({ length: text.length + 1 }, (_, at) => [text.slice(0, at), text.slice(at)]);
          return [...cuts, text.split("")].map((parts) => JSON.stringify(parse(parts)));
        }""",
        EVENTS,
    )
    assert set(results) == {'["{\\"a\\":\\n\\"é🐟\\"}","no space","[DONE]"]'}
