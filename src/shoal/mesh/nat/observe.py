"""Address observers: STUN (RFC 8489) as a call, over the mesh's own socket, so that the mapping is the right one."""

from __future__ import annotations

import asyncio

from shoal.core.encoding import encode
from shoal.core.errors import PeerFault, ShoalError
from shoal.mesh import parse
from shoal.mesh.calls import Answering, Caller, CallOptions, Incoming
from shoal.mesh.nat.classify import RELAYED, Observation, version_of
from shoal.mesh.peer_id import PeerId

METHOD = "nat.observe"
CARRIER = "quic"
MAX_ANSWER = 256
TIMEOUT_S = 5.0


def answer_observe(answering: Answering) -> None:
    """Tell every caller where it comes from; costs nothing, so everybody may ask."""
    answering.unary(METHOD, _answer)


async def _answer(incoming: Incoming, _body: memoryview) -> bytes:
    info = incoming.link()
    return encode([info.carrier, "" if info.path == "relayed" else info.remote])


def _read(body: memoryview) -> str:
    """The address in an answer, "" where the link is relayed. PeerFault for anything else."""
    carrier, seen = parse.row(parse.message(body, MAX_ANSWER), 2)
    if parse.text(carrier, 16) != CARRIER:
        return ""
    if parse.text(seen, 64) and version_of(seen) is None:
        raise PeerFault(f"expected a public address, found {seen!r}")
    return str(seen)


async def observe(caller: Caller, observers: tuple[PeerId, ...]) -> tuple[Observation, ...]:
    """Ask all of them at once; a failure is an observation too."""
    return tuple(await asyncio.gather(*(_ask(caller, peer) for peer in observers)))


async def _ask(caller: Caller, peer: PeerId) -> Observation:
    try:
        seen = _read(await caller.call(peer, METHOD, b"", CallOptions(timeout_s=TIMEOUT_S)))
    except ShoalError as error:
        return Observation(peer, None, str(error)[:200])
    return Observation(peer, seen or None, "" if seen else RELAYED)
