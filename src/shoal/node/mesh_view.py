"""What a node's mesh looks like now: links, membership, offers and accounts, put side by side per peer."""

from __future__ import annotations

from dataclasses import replace

from shoal.core.service import MeshView, PeerView
from shoal.fleet.accounts import Accounts
from shoal.fleet.neighbours import Neighbours
from shoal.mesh.content import Transfers
from shoal.mesh.gossip import Member
from shoal.mesh.peer_id import PeerId
from shoal.mesh.switchboard import PeerReport
from shoal.node.mesh_parts import Parts

STATES = {"connected": "connected", "dialing": "connecting", "backoff": "waiting", "idle": "known"}
MAX_SHOWN = 1000


def mesh_view(parts: Parts, accounts: Accounts, neighbours: Neighbours, sharing: str) -> MeshView:
    """Connected peers first."""
    reports = {report.peer: report for report in parts.switchboard.snapshot()}
    peers = dict.fromkeys((*reports, *(member.peer for member in parts.gossip.members() if member.peer != parts.me)))
    agents = {conversation.peer: conversation.agent for conversation in parts.rpc.conversations()}
    address = parts.switchboard.address()
    return MeshView(
        str(parts.me),
        sharing,
        "" if parts.nat is None else f"{parts.nat.nat.kind}: {parts.nat.nat.why}; {parts.nat.nat.advice}",
        (*address.udp, *address.tcp),
        address.relays,
        tuple(
            replace(_peer(peer, reports.get(peer), parts, accounts, neighbours), agent=agents.get(peer, ""))
            for peer in list(peers)[:MAX_SHOWN]
        ),
    )


def with_transfers(view: MeshView, transfers: Transfers) -> MeshView:
    """What is on its way now, what ended lately, and how many did since the start."""
    views = transfers.views()  # first: it also ends what has been quiet
    ended = {f"{direction} {outcome}": count for (direction, outcome), count in transfers.ended.items()}
    moved = {str(direction): count for direction, count in transfers.moved_bytes.items()}
    return replace(view, transfers=views, transfers_ended=ended, transferred_bytes=moved)


def peer_view(peer: PeerId, parts: Parts, accounts: Accounts, neighbours: Neighbours) -> PeerView:
    """One peer, whether or not anything is known of it."""
    reports = {report.peer: report for report in parts.switchboard.snapshot()}
    return _peer(peer, reports.get(peer), parts, accounts, neighbours)


def _peer(
    peer: PeerId, report: PeerReport | None, parts: Parts, accounts: Accounts, neighbours: Neighbours
) -> PeerView:
    view = PeerView(str(peer), "known")
    if report is not None:
        view = _with_link(view, report, parts.clock.monotonic())
    member, known = parts.gossip.member(peer), neighbours.known.get(peer)
    if member is not None:
        view = _with_member(view, member)
    if known is not None:
        offer = known.offer
        models = tuple(card.id for card in offer.cards)
        view = replace(view, models=models, seats=offer.seats, price_usd_per_mtok=offer.price_usd_per_mtok)
    account = accounts.get(peer)
    return view if account is None else replace(view, given=account.given, received=account.received)


def _with_link(view: PeerView, report: PeerReport, now: float) -> PeerView:
    steps = tuple(f"{step.what} ({step.took_s:.2f} s)" if step.took_s else step.what for step in report.steps)
    failure = report.last_end if report.link is None else ""
    if report.retry_in_s:
        failure = f"{report.failures} dials failed, next in {report.retry_in_s:.0f} s"
    view = replace(view, state=STATES[report.phase], steps=steps, failure=failure, throughput_bps=report.throughput)
    link = report.link
    if link is None:
        return view
    return replace(
        view,
        carrier=link.carrier,
        path=link.path,
        remote=link.remote,
        connected_s=now - link.since,
        rtt_s=link.rtt_s,
        bytes_sent=link.bytes_sent,
        bytes_received=link.bytes_received,
    )


def _with_member(view: PeerView, member: Member) -> PeerView:
    load = member.statement.load
    state = view.state if member.is_present or view.state == "connected" else "gone"
    return replace(view, state=state, running=load.running, waiting=load.queue)
