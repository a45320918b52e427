"""Offers follow their peers: asked once, again when something changed, gone with the peer."""

from __future__ import annotations

import asyncio

from fleet_houses import CHAT

from shoal.core.clock import VirtualClock
from shoal.core.encoding import encode
from shoal.core.errors import LocalError
from shoal.core.fakes import ScriptedGenerate, words
from shoal.core.service import ModelCard
from shoal.fleet.accounts import Accounts, Limits
from shoal.fleet.neighbours import REFRESH_S, RETRY_S, Neighbours, Sighting
from shoal.fleet.provider import Load
from shoal.fleet.sharing import Sharing
from shoal.fleet.wire import MODELS
from shoal.mesh.fakes import LocalMesh


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def test_offers_follow_their_peers() -> None:
    async def main() -> None:
        clock = VirtualClock()
        mesh = LocalMesh(clock)
        me, other, liar = mesh.join(), mesh.join(), mesh.join()
        cards = [ModelCard("tiny")]
        sharing = Sharing(
            ScriptedGenerate(words("a", "b")),
            lambda: tuple(cards),
            Accounts(Limits("public")),
            lambda _: False,
            clock,
            2.0,
            lambda: Load(seats=9, stream_tps=50.0),
        )
        sharing.register(other)

        async def lies(*_: object) -> bytes:
            return encode({"cards": [{"id": "huge"}], "price_usd_per_mtok": -5.0})

        liar.unary(MODELS, lies)
        seen = [Sighting(other.peer, running=2, waiting=1, models=b"1"), Sighting(liar.peer)]
        accounts = Accounts(Limits("public"))
        neighbours = Neighbours(me, clock, accounts, lambda: seen, lambda: {other.peer: 0.25})
        neighbours.look()
        await settle()
        (found,) = neighbours.providers()
        assert (found.name, found.kind, found.rtt_s, found.price_usd_per_mtok) == (str(other.peer), "peer", 0.25, 2.0)
        assert found.load == Load(2, 1, 4, None, 50.0, None)
        assert found.models == {"tiny"}

        async for _ in found.generate(CHAT):
            pass
        assert accounts.snapshot()[other.peer].received == 2

        asked = mesh.num_calls
        neighbours.look()
        await settle()
        assert mesh.num_calls == asked
        cards.append(ModelCard("second"))
        seen[0] = Sighting(other.peer, models=b"2")
        neighbours.look()
        await settle()
        assert neighbours.providers()[0].models == {"tiny", "second"}
        await clock.advance(REFRESH_S)
        neighbours.look()
        await settle()
        assert mesh.num_calls >= asked + 3
        seen.clear()
        neighbours.look()
        assert neighbours.providers() == []
        assert neighbours.known == {}

    asyncio.run(main())


def test_somebody_found_in_the_directory_is_asked_and_kept_for_a_while() -> None:
    async def main() -> None:
        clock = VirtualClock()
        mesh = LocalMesh(clock)
        me, other, empty = mesh.join(), mesh.join(), mesh.join()
        sharing = Sharing(
            ScriptedGenerate(words("a")),
            lambda: (ModelCard("rare"),),
            Accounts(Limits("public")),
            lambda _: False,
            clock,
        )
        sharing.register(other)
        neighbours = Neighbours(me, clock, Accounts(Limits()), tuple, dict)
        assert not await neighbours.meet([empty.peer], "rare")
        assert await neighbours.meet([empty.peer, other.peer], "rare")
        neighbours.look()
        assert [provider.models for provider in neighbours.providers()] == [{"rare"}]
        await clock.advance(REFRESH_S + 1)
        neighbours.look()
        assert neighbours.providers() == []

    asyncio.run(main())


def test_a_question_without_an_answer_is_asked_again_soon() -> None:
    """What the peer said before stays true meanwhile."""

    async def main() -> None:
        clock = VirtualClock()
        mesh = LocalMesh(clock)
        me, other = mesh.join(), mesh.join()
        answers: list[bytes | None] = [None, None, encode({"cards": [{"id": "tiny"}]}), None]

        async def answer(*_: object) -> bytes:
            found = answers.pop(0)
            if found is None:
                raise LocalError("busy starting")
            return found

        other.unary(MODELS, answer)
        neighbours = Neighbours(me, clock, Accounts(Limits()), lambda: [Sighting(other.peer)], dict)
        left = []
        for _ in range(8):
            neighbours.look()
            await settle()
            left.append((len(answers), len(neighbours.providers())))
            await clock.advance(RETRY_S / 2)
        assert left == [(3, 0), (3, 0), (2, 0), (2, 0), (2, 0), (2, 0), (1, 1), (1, 1)]
        await clock.advance(REFRESH_S)
        neighbours.look()
        await settle()
        assert (answers, len(neighbours.providers())) == ([], 1)

    asyncio.run(main())
