"""The mesh as lines for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from statistics import median
from typing import TYPE_CHECKING, Any

from shoal.core.text import plain

if TYPE_CHECKING:
    from rich.table import Table

View = Mapping[str, Any]


def peers_table(view: View) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=f"{view['id'][:10] or 'no mesh'}, sharing with: {view['sharing']}", title_justify="left")
    for name in ("peer", "state", "link", "RTT", "sent", "received", "models", "busy", "tokens for / from"):
        table.add_column(name, no_wrap=name != "models")
    for peer in view["peers"]:
        table.add_row(
            peer["id"][:10],
            peer["state"],
            " ".join(filter(None, (peer["path"], peer["carrier"]))),
            "" if peer["rtt_s"] is None else f"{peer['rtt_s'] * 1e3:.1f} ms",
            size(peer["bytes_sent"]),
            size(peer["bytes_received"]),
            escape(plain(", ".join(peer["models"]))),  # the peer's own words
            f"{peer['running']}/{peer['seats']}" if peer["models"] else "",
            f"{peer['given']} / {peer['received']}",
        )
    return table


def peers_why(view: View) -> Iterator[str]:
    """Addresses, the NAT, files on their way, and for each peer that is not connected the reason."""
    if view["nat"]:
        yield f"NAT: {view['nat']}"
    if view["addresses"]:
        yield "reachable at: " + ", ".join(dict.fromkeys((*view["addresses"], *view["relays"])))
    for item in view.get("transfers", ()):
        if not item["outcome"]:
            yield plain(_transfer(item))
    for peer in view["peers"]:
        if peer["failure"] and peer["state"] != "connected":
            yield plain(f"{peer['id'][:10]}: {peer['failure']}")
            yield from (plain(f"  {step}") for step in peer["steps"])


def _transfer(item: View) -> str:
    what, way = ("fetching", "from") if item["direction"] == "down" else ("giving", "to")
    if not item["size_bytes"]:
        return f"{what} {item['name']}: looking for it"
    peers = f"{item['num_peers']} {'peer' if item['num_peers'] == 1 else 'peers'}"
    done = f"{size(item['done_bytes'])} of {size(item['size_bytes'])}"
    return f"{what} {item['name']}: {done}, {size(item['rate_bps'])}/s, {way} {peers}"


def path_text(peer: View) -> str:
    name = peer["id"][:10]
    if peer["state"] != "connected":
        return f"{name} is not connected ({peer['state']})" + (f": {peer['failure']}" if peer["failure"] else "")
    return f"{name} at {peer['remote']}, {peer['path']} over {peer['carrier']}"


def ping_text(found: View) -> str:
    rtts = [f"{rtt * 1e3:.1f}" for rtt in found["rtts_s"]]
    if not rtts:
        return f"no answer: {found['failure']}"
    text = f"{', '.join(rtts)} ms (median {median(found['rtts_s']) * 1e3:.1f})"
    return f"{text}, then: {found['failure']}" if found["failure"] else text


def size(num_bytes: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} TB"
