"""The mesh in the console: map, table, a peer's page, who answered, and what is said when nobody is there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from shoal.core.chunk import Chunk, Usage
from shoal.core.service import DecisionView, MeshView, PeerView, PingView, TransferView

pytestmark = pytest.mark.real


def name(letter: str) -> str:
    return letter * 52


def peer(letter: str, path: str = "direct", **fields: Any) -> PeerView:
    known: dict[str, Any] = {
        "carrier": "quic", "remote": "203.0.113.9:4433", "connected_s": 65.0, "rtt_s": 0.0123, "bytes_sent": 4200,
        "bytes_received": 1_500_000, "throughput_bps": 1e6, "agent": "shoal/1", "models": ("tiny",), "running": 1,
        "seats": 4, "given": 1200, "received": 34,
    }  # fmt: skip
    return replace(PeerView(name(letter), "connected", path=path, **known), **fields)


STEPS = ("quic 198.51.100.7:4433: no answer (4.00 s)", "hole punching: both NATs are symmetric")
DEAD = PeerView(name("d"), "waiting", failure="3 dials failed, next in 12 s", steps=STEPS)
VIEW = MeshView(
    name("m"),
    "swarm",
    nat="cone: 2 observers saw 198.51.100.1:9; peers behind most NATs reach this machine by hole punching",
    addresses=("198.51.100.1:9",),
    relays=("https://relay.test:3340",),
    peers=(peer("a"), peer("b", "punched", price_usd_per_mtok=0.25), peer("c", "relayed", throughput_bps=None), DEAD),
    decisions=(
        DecisionView("r1", "local", "1.20 s", "answered", 80, 1_790_000_000.0),
        DecisionView("r2", name("c"), "0.90 s", "failed: the peer went away", 12, 1_790_000_030.0),
        DecisionView("r2", name("b"), "1.10 s", "answered", 68, 1_790_000_031.0),
    ),
    transfers=(
        TransferView("weights.gguf", 41_000_000, 82_000_000, 3, rate_bps=2e6),
        TransferView("given.gguf", 7, 7, 1, "up", peers=(name("b"),), outcome="done"),
    ),
)


@pytest.fixture
def mesh(page: Page, console: Any) -> Page:
    """The console at its mesh, with four peers."""
    console.mesh = VIEW
    page.get_by_role("link", name="Mesh").click()
    expect(page.locator(".map a")).to_have_count(4)
    return page


def row(page: Page, letter: str) -> Any:
    return page.get_by_role("row").filter(has=page.get_by_role("link", name=f"Peer {letter * 10}"))


def by(*providers: str) -> Any:
    usage = Usage(3, 2, providers=providers)
    return lambda request: [Chunk(text="Hi.", token_ids=(1,)), Chunk(finish_reason="stop", usage=usage)]


def ask(page: Page, text: str, count: int = 1) -> None:
    page.get_by_label("Message", exact=True).fill(text)
    page.keyboard.press("Enter")
    expect(page.locator(".turn.assistant[aria-busy=false]")).to_have_count(count)


def test_links_differ_in_colour_and_in_line_and_say_their_round_trip(mesh: Page) -> None:
    styles = mesh.evaluate("""() => ["direct", "punched", "relayed", "none"].map((kind) => {
      const style = getComputedStyle(document.querySelector(`.map .link.${kind}`));
      return [style.stroke, style.strokeDasharray];
    })""")
    assert len({colour for colour, _ in styles}) == 4
    assert len({dashes for _, dashes in styles}) == 4
    expect(mesh.locator(".map .rtt")).to_have_text(["12 ms", "12 ms", "12 ms", ""])
    widths = [
        float(str(mesh.locator(f".map .link.{kind}").get_attribute("stroke-width"))) for kind in ("direct", "none")
    ]
    assert widths[0] > 2 * widths[1]
    expect(mesh.locator(".kinds")).to_contain_text("through a relay")


def test_the_last_request_is_lit_and_its_fail_over_is_told(mesh: Page) -> None:
    expect(mesh.locator(".map a.answered")).to_have_count(2)
    expect(mesh.locator(".map a.answered.failed")).to_contain_text("began, then failed")
    expect(mesh.locator(".caption")).to_have_text(
        "The last request was answered by peer cccccccccc, then peer bbbbbbbbbb."
    )
    first = mesh.locator(".decisions > li").first
    expect(first).to_contain_text("Moved on once")
    expect(first.locator("li")).to_have_count(2)
    expect(first.locator("li.failed")).to_contain_text("failed: the peer went away, 12 tokens")
    expect(first.locator("li.answered")).to_contain_text("Expected: 1.10 s")
    expect(mesh.locator(".decisions > li")).to_have_count(2)


def test_who_answered_this_chat_is_lit_rather_than_who_answered_somebody_else(page: Page, console: Any) -> None:
    console.mesh = VIEW
    console.script = by(name("a"), "upstream:shop")
    ask(page, "Hello")
    expect(page.locator(".metrics")).to_contain_text("by peer aaaaaaaaaa, then upstream shop")
    console.script = by("local")
    ask(page, "Again", 2)
    expect(page.locator(".metrics").last).to_contain_text("by this machine")
    page.get_by_role("link", name="Mesh").click()
    expect(page.locator(".caption")).to_have_text("This chat was answered by this machine.")
    expect(page.locator(".map .me")).to_have_class("me answered")
    expect(page.locator(".map a.answered")).to_have_count(0)
    page.get_by_role("link", name="Chat", exact=True).click()
    expect(page.locator(".bubble")).to_have_text(["Hello", "Again"])
    page.reload()
    expect(page.locator(".metrics").first).to_contain_text("by peer aaaaaaaaaa")


def test_the_table_says_everything_in_words_with_failures_unfolded(mesh: Page) -> None:
    cells = ["peer", "connected", "punched", "quic", "12 ms", "4.2 kB", "1.5 MB", "tiny", "1 / 4", "$0.25 per million"]
    expect(row(mesh, "b").get_by_role("cell")).to_have_text([*cells[1:], "1,200", "34"])
    expect(row(mesh, "d").get_by_role("cell").first).to_have_text("waiting")
    why = mesh.locator("tr.why")
    expect(why).to_have_count(1)
    expect(why).to_contain_text("3 dials failed, next in 12 s")
    expect(why.get_by_role("listitem")).to_have_text(list(STEPS))
    expect(why).to_be_visible()


def test_this_node_says_how_it_can_be_reached(mesh: Page) -> None:
    about = mesh.get_by_role("region", name="This node")
    for text in (
        name("m"),
        "Members of its swarm",
        "cone: 2 observers",
        "hole punching",
        "198.51.100.1:9",
        "relay.test",
    ):
        expect(about).to_contain_text(text)


def test_a_blob_on_its_way_shows_how_far_it_is(mesh: Page, console: Any) -> None:
    bar = mesh.get_by_role("progressbar", name="weights.gguf")
    assert bar.evaluate("(bar) => bar.value / bar.max") == 0.5
    expect(mesh.locator(".transfers")).to_contain_text("41.0 MB of 82.0 MB from 3 peers, 2.0 MB/s")
    shown = mesh.locator(".transfers li.over")
    expect(shown).to_contain_text("7 B of 7 B to peer ")
    expect(shown).to_contain_text(": done")
    expect(shown.locator("progress")).to_have_count(0)
    console.mesh = replace(VIEW, transfers=())
    expect(mesh.get_by_role("heading", name="Blobs on their way")).to_be_hidden()


def test_a_peer_has_a_page_with_everything_and_a_ping(mesh: Page, console: Any) -> None:
    console.pinged[name("b")] = PingView(peer("b"), (0.011, 0.013, 0.012, 0.2))
    mesh.locator(".map a.punched").click()
    expect(mesh.get_by_role("heading", name="Peer bbbbbbbbbb")).to_be_focused()
    shown = mesh.locator(".peer-page")
    for text in (name("b"), "through a hole in a NAT, quic", "203.0.113.9:4433", "65 s", "1.0 MB a second", "shoal/1",
                 "1,200 made here for it, 34 made by it", "answered, 68 tokens"):  # fmt: skip
        expect(shown).to_contain_text(text)
    mesh.get_by_role("button", name="Ping").click()
    expect(shown.get_by_role("status")).to_have_text("11 ms, 13 ms, 12 ms, 200 ms (median 13 ms)")
    mesh.get_by_role("link", name="All peers").click()
    row(mesh, "d").get_by_role("link").click()
    expect(shown).to_contain_text(STEPS[1])
    expect(shown.get_by_role("status")).to_have_text("")
    mesh.get_by_role("button", name="Ping").click()
    expect(shown.get_by_role("status")).to_have_text("No answer: no address is known")


def test_a_peer_that_nobody_knows_has_a_page_too(context: BrowserContext, console: Any) -> None:
    console.mesh = VIEW
    page = context.new_page()
    page.goto(f"{console.url}#mesh={name('z')}")
    expect(page.locator(".peer-page")).to_contain_text("Nothing is known of this peer now")


def test_everything_in_the_mesh_is_reached_by_keyboard(page: Page, console: Any) -> None:
    console.mesh = VIEW
    page.get_by_role("link", name="Mesh").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Mesh", level=2)).to_be_focused()
    expect(row(page, "a")).to_be_visible()
    reached: list[str] = []
    while len(reached) < 20 and "Peer bbbbbbbbbb" not in reached:
        page.keyboard.press("Tab")
        reached.append(str(page.evaluate("document.activeElement.ariaLabel || document.activeElement.textContent")))
    assert reached[0] == "Table of peers"  # the drawing is passed over
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Peer bbbbbbbbbb")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Ping")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator(".pinged")).to_contain_text("No answer")
    page.go_back()
    page.go_back()
    expect(page.get_by_label("Message", exact=True)).to_be_visible()


def test_a_focused_row_stays_while_numbers_change(mesh: Page, console: Any) -> None:
    row(mesh, "b").get_by_role("link").focus()
    console.mesh = replace(VIEW, peers=(peer("b", rtt_s=0.5), peer("a"), DEAD))
    expect(row(mesh, "b").get_by_role("cell").nth(3)).to_have_text("500 ms")
    expect(mesh.locator(".map a")).to_have_count(3)
    console.mesh = replace(VIEW, peers=(peer("b", rtt_s=0.6), peer("a"), DEAD))
    expect(row(mesh, "b").get_by_role("cell").nth(3)).to_have_text("600 ms")
    expect(row(mesh, "b").get_by_role("link")).to_be_focused()


def test_a_server_that_goes_away_leaves_what_was_known(mesh: Page, console: Any) -> None:
    console.stop()
    expect(mesh.locator(".mesh .old")).to_contain_text("This is what was known last")
    expect(row(mesh, "a")).to_be_visible()
    console.mesh = replace(VIEW, peers=VIEW.peers[:2])
    console.start()
    expect(mesh.locator(".map a")).to_have_count(2)
    expect(mesh.locator(".mesh .old")).to_be_hidden()


SET_HIDDEN = """(hidden) => {
  Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}"""


def test_the_mesh_is_asked_for_only_while_it_can_be_seen(context: BrowserContext, console: Any) -> None:
    console.mesh = VIEW
    page = context.new_page()
    page.clock.install()
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url.removeprefix(console.url)))
    page.goto(f"{console.url}#mesh")
    expect(page.locator(".map a")).to_have_count(4)
    with page.expect_request("**/v1/mesh"):
        page.clock.run_for(2000)
    page.evaluate(SET_HIDDEN, True)
    requests.clear()
    page.clock.run_for(20_000)
    assert requests == []
    with page.expect_request("**/v1/mesh"):
        page.evaluate(SET_HIDDEN, False)

    page.get_by_role("link", name="Chat", exact=True).click()
    expect(page.get_by_label("Message", exact=True)).to_be_visible()
    requests.clear()
    for _ in range(5):
        with page.expect_request("**/v1/stats"):
            page.clock.run_for(1000)
    assert "v1/mesh" not in requests


def test_peers_never_stand_on_each_other_or_outside(console_page: Page) -> None:
    """For every number of peers, with and without upstream servers, on every width of page."""
    wrong = console_page.evaluate("""async () => {
      const { shapeFor, spots, viewBox } = await import("./mesh-layout.js");
      const wrong = [];
      for (const px of [360, 700, 1000]) {
        for (let count = 0; count <= 60; count += 1) {
          const shape = shapeFor(px);
          const peers = Array.from({ length: count }, (_, n) => ({ id: String(n), state: "connected", models: [],
            path: ["direct", "punched", "relayed"][n % 3] }));
          const upstreams = ["upstream:a", "upstream:b"].slice(0, count % 3);
          const found = spots(peers, upstreams, new Set(["59"]), shape);
          const [x, y, width, height] = viewBox(shape, found.length).split(" ").map(Number);
          const say = (what) => wrong.push(`${px} px, ${count} peers: ${what}`);
          const shown = found.reduce((sum, spot) => sum + (spot.upstream ? 0 : (spot.count ?? 1)), 0);
          if (shown !== count) say(`${shown} shown`);
          if (count === 60 && !found.some(({ key }) => key === "59")) say("who answers is not seen");
          found.forEach((one, index) => {
            const isOut = one.x - 15 < x || one.x + 15 > x + width || one.y - 15 < y || one.y + 15 > y + height;
            if (isOut) say(`${one.key} is outside`);
            for (const other of [{ x: 0, y: 0, key: "this node" }, ...found.slice(0, index)]) {
              if (Math.hypot(one.x - other.x, one.y - other.y) < 40) say(`${one.key} on ${other.key}`);
            }
          });
        }
      }
      return wrong;
    }""")
    assert wrong == []


def test_upstream_servers_stand_beside_the_peers(page: Page, console: Any) -> None:
    asked = DecisionView("r3", "upstream:shop", "2.00 s", "answered", 9, 1_790_000_040.0)
    console.mesh = replace(VIEW, peers=(peer("a"),), decisions=(*VIEW.decisions, asked))
    page.get_by_role("link", name="Mesh").click()
    expect(page.locator(".map g.peer.answered")).to_contain_text("upstream shop")
    expect(page.locator(".caption")).to_have_text("The last request was answered by upstream shop.")


def test_two_hundred_peers_are_grouped_paged_and_drawn_quickly(page: Page, console: Any) -> None:
    letters = "abcdefghijklmnopqrstuvwxyz234567"
    ids = [(first + second) * 26 for first in letters for second in letters][:200]
    paths = ("direct", "punched", "relayed")
    peers = [replace(peer("a", paths[index % 3]), id=text) for index, text in enumerate(ids)]
    peers = [item if index < 60 else PeerView(item.id, "known") for index, item in enumerate(peers)]
    console.mesh = replace(VIEW, peers=tuple(peers))
    page.get_by_role("link", name="Mesh").click()
    expect(page.get_by_text("1 to 50 of 200")).to_be_visible()
    drawn = page.locator(".map a").count()
    assert 15 <= drawn <= 36
    grouped = sum(int(text) for text in page.locator(".map .many").all_text_contents())
    assert drawn + grouped == 200
    page.get_by_role("button", name="Next").click()
    expect(page.get_by_text("51 to 100 of 200")).to_be_visible()
    expect(page.locator(".mesh-peers tbody tr")).to_have_count(50)
    slowest = page.evaluate("""async () => {
      const { MeshPage } = await import("./mesh-view.js");
      const view = await (await fetch("v1/mesh")).json();
      const root = document.createElement("div");
      document.getElementById("main").append(root);
      const shown = new MeshPage(root, { mesh: async () => view }, () => []);
      shown.show("");
      await new Promise(requestAnimationFrame);
      let slowest = 0;
      for (let turn = 0; turn < 10; turn += 1) {
        for (const peer of view.peers) peer.rtt_s = Math.random();
        const began = performance.now();
        shown.show("");
        root.getBoundingClientRect();
        slowest = Math.max(slowest, performance.now() - began);
      }
      return slowest;
    }""")
    assert slowest < 200, f"{slowest} ms for one look"  # a quarter of that on a quiet machine


@pytest.mark.parametrize(
    ("view", "title", "commands"),
    [
        (None, "This node is on its own", ["shoal up --share", "shoal join TICKET"]),
        (MeshView(name("m"), "swarm"), "Nobody else is here yet", ["shoal ticket", "shoal join TICKET"]),
    ],
)
def test_an_empty_mesh_says_what_to_do(
    page: Page, console: Any, view: MeshView | None, title: str, commands: Sequence[str]
) -> None:
    console.mesh = view
    page.get_by_role("link", name="Mesh").click()
    expect(page.get_by_role("heading", name=title)).to_be_visible()
    expect(page.locator(".command code")).to_have_text(list(commands))
    expect(page.get_by_role("heading", name="Peers", exact=True)).to_be_hidden()


def test_what_peers_say_is_text_and_never_markup(mesh: Page, console: Any) -> None:
    evil = "<img src=x onerror=window.pwned=1>"
    hostile = peer("a", models=(evil,), agent=evil, remote=evil, failure=evil, steps=(evil,))
    decision = DecisionView(evil, f"upstream:{evil}", evil, evil, 1, 1_790_000_000.0)
    view = replace(VIEW, nat=evil, relays=(evil,), peers=(hostile,), decisions=(decision,))
    console.mesh = replace(view, transfers=(TransferView(evil, 1, 2, 1),))
    expect(row(mesh, "a")).to_contain_text(evil)
    row(mesh, "a").get_by_role("link").click()
    expect(mesh.locator(".peer-page")).to_contain_text(evil)
    assert mesh.locator("img").count() == 0
    assert mesh.evaluate("window.pwned") is None


LEGIBILITY = Path(__file__).with_name("test_console_page.py").read_text()
CONTRAST = re.search(r'CONTRAST = """(.*?)"""', LEGIBILITY, re.DOTALL)
"""The same measure as the chat's, which reads fills where the text is drawn."""


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("address", ["#mesh", f"#mesh={name('d')}"])
def test_the_mesh_is_legible_named_and_fits_in_both_themes(
    context: BrowserContext, console: Any, theme: Any, address: str
) -> None:
    console.mesh = VIEW
    page = context.new_page()
    page.emulate_media(color_scheme=theme, reduced_motion="reduce")
    page.goto(console.url + address)
    expect(page.locator(".mesh .facts").first).to_be_visible()
    assert CONTRAST is not None
    ink = "(node.namespaceURI.endsWith('svg') ? getComputedStyle(node).fill : getComputedStyle(node).color)"
    contrasts = page.evaluate(CONTRAST[1].replace("getComputedStyle(node).color", ink))
    assert contrasts[0][0] >= 4.5, contrasts[0]
    for width in (1280, 720, 360):
        page.set_viewport_size({"width": width, "height": 700})
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        assert page.evaluate("(n => n.scrollWidth - n.clientWidth)(document.getElementById('mesh'))") <= 0
    nameless = page.evaluate("""() => [...document.querySelectorAll(".mesh :is(button, a, [tabindex], progress)")]
      .filter((node) => node.checkVisibility() && !(node.ariaLabel || node.textContent).trim())
      .map((node) => node.outerHTML)""")
    assert nameless == []
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((node) => node.id)")
    assert len(ids) == len(set(ids))
