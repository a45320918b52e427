"""Judges what a running node knows of its mesh: is what matters all right, and what to change if not. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from shoal.mesh.nat.classify import ADVICE
from shoal.node.doctor import Check

FAIR = {"none", "cone", "unseen"}
"""Kinds of NAT with which most peers can be reached without a relay."""
MAX_FAILURES = 10


def diagnose_net(view: Mapping[str, Any]) -> tuple[Check, ...]:
    """`view` is a MeshView as the API gives it."""
    if not view["id"]:
        return (Check("mesh", "fail", "this node is in none", "start it with --share, or with `shoal join TICKET`"),)
    return (
        Check("mesh", "ok", f"{view['id'][:10]}, sharing with: {view['sharing']}"),
        _nat(view),
        _addresses(view),
        _relays(view),
        _peers(view),
        *_failures(view),
    )


def _kind(view: Mapping[str, Any]) -> str:
    return str(view["nat"]).partition(":")[0] or "unknown"


def _nat(view: Mapping[str, Any]) -> Check:
    kind = _kind(view)
    advice = next((text for name, text in ADVICE.items() if name == kind), ADVICE["unknown"])
    found = str(view["nat"]).removesuffix(f"; {advice}") or "not known yet"
    return Check("NAT", "ok" if kind in FAIR else "warn", found, advice)


def _addresses(view: Mapping[str, Any]) -> Check:
    if view["addresses"]:
        return Check("addresses", "ok", ", ".join(dict.fromkeys(view["addresses"])))
    return Check("addresses", "warn", "none", "nobody can dial this node; check --mesh-host and the network")


def _relays(view: Mapping[str, Any]) -> Check:
    if view["relays"]:
        return Check("relays", "ok", ", ".join(view["relays"]))
    if _kind(view) in FAIR | {"unknown"}:
        return Check("relays", "ok", "none", "peers behind strict NATs may need one (--relay URL)")
    return Check("relays", "warn", "none", "run `shoal relay` on a machine everybody reaches; name it with --relay URL")


def _peers(view: Mapping[str, Any]) -> Check:
    peers = view["peers"]
    if not peers:
        return Check("peers", "warn", "nobody", "print the ticket with `shoal ticket`; elsewhere: `shoal join TICKET`")
    paths = Counter(peer["path"] for peer in peers if peer["state"] == "connected")
    if not paths:
        return Check("peers", "fail", f"none of {len(peers)} is connected", "see below, or `shoal trace PEER`")
    counts = ", ".join(f"{count} {path}" for path, count in sorted(paths.items()))
    return Check("peers", "ok", f"{sum(paths.values())} of {len(peers)} connected: {counts}")


def _failures(view: Mapping[str, Any]) -> Iterator[Check]:
    """Peers that cannot be reached, and the last step that failed."""
    failed = [peer for peer in view["peers"] if peer["failure"] and peer["state"] != "connected"]
    for peer in failed[:MAX_FAILURES]:
        words = "; ".join((peer["failure"], *peer["steps"]))
        yield Check(peer["id"][:10], "warn", words, f"`shoal trace {peer['id'][:10]}` tries again, step by step")
    if len(failed) > MAX_FAILURES:
        yield Check("more", "warn", f"{len(failed) - MAX_FAILURES} others cannot be reached", "`shoal peers` has them")
