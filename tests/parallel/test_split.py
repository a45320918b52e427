"""A model split over peers answers as the whole model does, and fails as whose fault it was."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest
from split_parts import DIGEST, NAME, Swarm, ask, checkpoint, everybody, ids, language, options, whole

from shoal.core.clock import SystemClock
from shoal.core.errors import BadConfig, LinkClosed, PeerFault, ShoalError, Unauthorized, Unavailable, Unreachable
from shoal.core.seams import closing
from shoal.engine.drafts.lookup import LookupDrafter
from shoal.mesh.calls import CallStream, Incoming
from shoal.mesh.fakes import LocalMesh
from shoal.mesh.peer_id import PeerId
from shoal.models.batch import Batch
from shoal.parallel.chain import Offer, choose_chain
from shoal.parallel.frames import Rows, StageInfo, StepFrame, write_info, write_stream
from shoal.parallel.host import METHOD, StageHost
from shoal.parallel.private import IDLE_S
from shoal.parallel.split import Place, Split, ask_offers, connected, open_stage
from shoal.parallel.stage import Layers, Session, Stage

PROMPTS = ("the quick brown fox " * 4, "the quick brown fox jumps", "zebra")


async def answers(generate: object, requests: list) -> list[list[list[int]]]:
    async def one(request: object) -> list[list[int]]:
        chunks = [chunk async for chunk in generate(request)]  # type: ignore[operator]
        return [ids(chunks, choice) for choice in range(request.n)]  # type: ignore[attr-defined]

    return list(await asyncio.gather(*map(one, requests)))


@pytest.mark.parametrize("kernels", ["native", "torch"])
@pytest.mark.parametrize("ranges", [[(1, 5)], [(3, 5), (1, 2), (2, 3)]])
def test_a_split_model_says_token_for_token_what_the_whole_one_says(
    kernels: str, ranges: list[tuple[int, int]]
) -> None:
    """Greedy and sampled, alone and together, several choices, prompts that share a beginning."""
    requests = [ask(text) for text in PROMPTS] + [ask(PROMPTS[0], seed=7), ask(PROMPTS[1], seed=8, n=3)]

    async def run() -> None:
        swarm = Swarm(ranges, kernels)
        private = swarm.private()
        async with whole(swarm.model, kernels) as engine:
            expected = await answers(engine.generate, requests)
        assert await answers(private.generate, requests) == expected
        assert [(await answers(private.generate, [request]))[0] for request in requests] == expected
        await private.close()
        await swarm.close()

    asyncio.run(run())


def test_a_peer_that_dies_fails_the_answer_as_its_fault_and_the_next_one_asks_another() -> None:
    async def run() -> None:
        swarm = Swarm([(1, 5), (1, 5)])
        private = swarm.private()
        stream = private.generate(ask("a long answer", tokens=200))
        with pytest.raises(LinkClosed):  # noqa: PT012
            async with closing(stream) as chunks:
                async for _ in chunks:
                    swarm.mesh.crash(swarm.peers[0].peer)
        assert len((await answers(private.generate, [ask("again")]))[0][0]) == 12
        swarm.mesh.crash(swarm.peers[1].peer)
        with pytest.raises(ShoalError):
            await answers(private.generate, [ask("once more")])
        with pytest.raises(Unreachable, match="no offers"):
            await answers(private.generate, [ask("nobody left")])
        await private.close()
        await swarm.close()

    asyncio.run(run())


def test_a_peer_that_died_between_two_answers_is_replaced_unseen() -> None:
    async def run() -> None:
        swarm = Swarm([(1, 5), (1, 5)])
        private = swarm.private()
        before = await answers(private.generate, [ask("hello")])
        swarm.mesh.crash(swarm.peers[0].peer)
        assert await answers(private.generate, [ask("hello")]) == before
        await private.close()
        await swarm.close()

    asyncio.run(run())


def test_a_pipeline_nobody_used_for_long_is_opened_anew() -> None:
    """Hosts end sessions that say nothing: the first request after a night must not find that out."""

    class Night(SystemClock):
        slept = 0.0

        def monotonic(self) -> float:
            return super().monotonic() + self.slept

    async def run() -> None:
        clock = Night()
        swarm = Swarm([(1, 5)], clock=clock)
        private = swarm.private()
        before = await answers(private.generate, [ask("hello")])
        first = private._open
        assert await answers(private.generate, [ask("hello")]) == before
        assert private._open is first
        clock.slept = IDLE_S + 1
        assert await answers(private.generate, [ask("hello")]) == before
        assert private._open is not first
        await private.close()
        await swarm.close()

    asyncio.run(run())


def test_a_cancelled_answer_leaves_the_session_to_the_others() -> None:
    async def run() -> None:
        swarm = Swarm([(1, 5)])
        private = swarm.private()
        async with closing(private.generate(ask("a long answer", tokens=200))) as chunks:
            await anext(chunks)
        async with whole(swarm.model) as engine:
            expected = await answers(engine.generate, [ask("after")])
        assert await answers(private.generate, [ask("after")]) == expected
        await private.close()
        stage = swarm.hosts[0].stages[0]
        await swarm.close()  # waits for the thread that gives blocks back
        assert sorted(stage._free) == list(range(stage.num_blocks))
        assert not swarm.hosts[0].sessions

    asyncio.run(run())


class Liar:
    """A stage that answers the first step with `answer(rows, hidden)`."""

    def __init__(self, info: StageInfo, wrong: str) -> None:
        self.info, self.wrong = info, wrong

    async def serve(self, incoming: Incoming, call: CallStream) -> None:
        messages = aiter(call)
        await anext(messages)
        await call.send(write_info(self.info))
        await anext(messages)
        hidden = self.info.hidden_size
        rows = {"shape": np.zeros((1, hidden)), "nan": np.full((5, hidden), np.nan)}
        if self.wrong == "gone":
            return
        await call.send(b"?" * 40 if self.wrong == "bytes" else write_stream(rows[self.wrong]))
        await asyncio.Event().wait()


WRONG = [("shape", PeerFault), ("nan", PeerFault), ("bytes", PeerFault), ("gone", LinkClosed)]


@pytest.mark.parametrize(("wrong", "kind"), WRONG)
def test_a_stage_that_answers_nonsense_is_to_blame(wrong: str, kind: type[ShoalError]) -> None:
    async def run() -> None:
        swarm = Swarm([])
        info = StageInfo("tiny", DIGEST, 1, 5, 6, 64, 16, 256)
        peer = swarm.mesh.join()
        peer.streaming(METHOD, Liar(info, wrong).serve)

        async def offers() -> list[Offer]:
            return [Offer(peer.peer, info)]

        place = Place(swarm.me, offers, swarm.clock, options())
        split = Split(NAME, swarm.model, DIGEST, 1, 1)
        async with connected(split, place, language(swarm.model)) as pipeline:
            with pytest.raises(ShoalError):
                await answers(pipeline.engine.generate, [ask("hello")])
            assert type(pipeline.failure) is kind

    asyncio.run(run())


def test_peers_see_positions_and_states_and_no_token() -> None:
    """Two prompts of one length: the control part of every message is the same, only the states differ."""

    async def seen(text: str) -> list[tuple[Rows, ...]]:
        swarm = Swarm([(1, 5)])
        stage = Watched(swarm.hosts[0].stages[0].info, FakeLayers())
        swarm.hosts[0].stages = [stage]
        private = swarm.private()
        await answers(private.generate, [ask(text)])
        await private.close()
        await swarm.close()
        return stage.seen

    one, other = asyncio.run(seen("attack at dawn!!")), asyncio.run(seen("buy more milk :)"))
    assert one == other
    assert len(one) == 12


class FakeLayers:
    """Layers that change nothing."""

    num_blocks, block_size = 128, 16

    def run(self, batch: Batch) -> np.ndarray:
        assert batch.inputs is not None
        assert not batch.tokens.any()
        return batch.inputs

    def copy_blocks(self, pairs: Sequence[tuple[int, int]]) -> None: ...

    def close(self) -> None: ...


class Watched(Stage):
    """A stage that remembers what it was told besides states."""

    def __init__(self, info: StageInfo, runner: Layers) -> None:
        super().__init__(info, runner)
        self.seen: list[tuple[Rows, ...]] = []

    def step(self, session: Session, frame: StepFrame) -> np.ndarray:
        self.seen.append(frame.seqs)
        return super().step(session, frame)


def test_who_is_not_served_gets_neither_a_session_nor_a_name() -> None:
    def nobody(peer: PeerId) -> None:
        raise Unauthorized("not you")

    async def run() -> None:
        swarm = Swarm([(1, 5)])
        swarm.hosts[0].consent = nobody
        with pytest.raises(Unauthorized):
            await swarm.me.call(swarm.peers[0].peer, "parallel.offers", b"")
        assert await ask_offers(swarm.me, [swarm.peers[0].peer]) == ()
        with pytest.raises(Unauthorized):
            async with swarm.me.stream(swarm.peers[0].peer, METHOD) as call:
                await anext(aiter(call))
        await swarm.close()

    asyncio.run(run())


def test_noise_changes_what_leaves_and_may_change_answers() -> None:
    async def run() -> None:
        swarm = Swarm([(1, 5)])
        loud = swarm.private(Split(NAME, swarm.model, DIGEST, 1, 1, noise=3.0))
        async with whole(swarm.model) as engine:
            expected = await answers(engine.generate, [ask("hello", tokens=24)])
        assert await answers(loud.generate, [ask("hello", tokens=24)]) != expected
        await loud.close()
        await swarm.close()

    asyncio.run(run())


def info(first: int, last: int, digest: bytes = DIGEST) -> StageInfo:
    return StageInfo("tiny", digest, first, last, 6, 64, 16, 256)


@pytest.mark.parametrize(
    ("ranges", "wanted", "chosen"),
    [
        ([(1, 5)], (1, 5), [0]),
        ([(1, 2), (2, 5), (1, 5)], (1, 5), [2]),
        ([(3, 5), (1, 2), (2, 3)], (1, 5), [1, 2, 0]),
        ([(1, 4), (2, 5), (1, 2)], (1, 5), [2, 1]),
        ([(1, 1), (1, 5)], (1, 5), [1]),
    ],
)
def test_the_shortest_chain_without_gap_or_overlap(
    ranges: list[tuple[int, int]], wanted: tuple[int, int], chosen: list[int]
) -> None:
    offers = [Offer(PeerId(bytes([number]) * 32), info(*layers)) for number, layers in enumerate(ranges)]
    assert choose_chain(offers, DIGEST, *wanted) == tuple(offers[number] for number in chosen)


@pytest.mark.parametrize("ranges", [[], [(1, 4)], [(1, 3), (2, 5)], [(0, 6)]])
def test_where_no_chain_is_it_says_what_there_is(ranges: list[tuple[int, int]]) -> None:
    offers = [Offer(PeerId(bytes([number]) * 32), info(*layers)) for number, layers in enumerate(ranges)]
    with pytest.raises(Unreachable, match="layers" if ranges else "no offers"):
        choose_chain(offers, DIGEST, 1, 5)
    with pytest.raises(Unreachable):
        choose_chain([Offer(offer.peer, info(1, 5, b"x" * 32)) for offer in offers], DIGEST, 1, 5)


@pytest.mark.parametrize(("first", "last"), [(0, 1), (1, 0), (3, 3), (6, 1)])
def test_a_split_keeps_a_layer_at_each_end_and_leaves_one(first: int, last: int) -> None:
    with pytest.raises(BadConfig, match="at least one layer at each end"):
        Split(NAME, checkpoint(), DIGEST, first, last)


def test_two_askers_at_one_stage_do_not_disturb_each_other() -> None:
    async def run() -> None:
        swarm = Swarm([(1, 5)])
        one, other = swarm.private(), swarm.private()
        requests = [ask(text) for text in PROMPTS]
        async with whole(swarm.model) as engine:
            expected = await answers(engine.generate, requests)
        both = await asyncio.gather(answers(one.generate, requests), answers(other.generate, requests))
        assert list(both) == [expected, expected]
        for private in (one, other):
            await private.close()
        await swarm.close()

    asyncio.run(run())


def test_a_host_with_several_stages_offers_them_all() -> None:
    async def run() -> None:
        mesh = LocalMesh(Swarm([]).clock)
        me, peer = mesh.join(), mesh.join()
        model = checkpoint()
        stages = [open_stage(model, "tiny", DIGEST, layers, options()) for layers in ((1, 3), (3, 5))]
        host = StageHost(stages, everybody, mesh.clock)
        host.register(peer)
        offers = await ask_offers(me, [peer.peer])
        assert [(offer.info.first, offer.info.last) for offer in offers] == [(1, 3), (3, 5)]
        await host.close()

    asyncio.run(run())


def test_a_host_that_stops_ends_its_sessions() -> None:
    async def run() -> None:
        swarm = Swarm([(1, 5)])
        private = swarm.private()
        async with closing(private.generate(ask("a long answer", tokens=200))) as chunks:
            await anext(chunks)
            await swarm.close()
            with pytest.raises(Unavailable, match="stopping"):
                async for _ in chunks:
                    pass
        await private.close()

    asyncio.run(run())


def test_tokens_are_charged_by_the_share_of_layers_and_a_peer_beyond_its_rate_waits() -> None:
    class Naps(SystemClock):
        naps: list[float]

        async def sleep(self, delay_s: float) -> None:
            if 0 < delay_s < 1:
                self.naps.append(delay_s)
                delay_s = 0
            await super().sleep(delay_s)

    async def run() -> None:
        clock = Naps()
        clock.naps = []
        swarm = Swarm([(1, 4), (4, 5)], clock=clock)
        charged: list[float] = []

        def charge(peer: PeerId, num_tokens: float) -> float:
            charged.append(num_tokens)
            return 0.25

        swarm.hosts[0].charge = charge
        private = swarm.private()
        await answers(private.generate, [ask("x" * 30, tokens=5)])
        await private.close()
        await swarm.close()
        assert charged == [15.0, 0.5, 0.5, 0.5, 0.5]  # three of six layers
        assert clock.naps == [0.25] * 5

    asyncio.run(run())


def test_right_guesses_save_round_trips_and_change_nothing() -> None:
    async def run() -> None:
        swarm = Swarm([(1, 5)])
        stage = Watched(swarm.hosts[0].stages[0].info, swarm.hosts[0].stages[0]._runner)
        swarm.hosts[0].stages = [stage]
        private = swarm.private(drafter=LookupDrafter)
        request = ask("abcabcabcabcabcabc", tokens=120)
        async with whole(swarm.model) as engine:
            expected = await answers(engine.generate, [request])
        assert await answers(private.generate, [request]) == expected
        assert len(stage.seen) < 110
        await private.close()
        await swarm.close()

    asyncio.run(run())
