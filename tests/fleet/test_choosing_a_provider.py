"""Costs order providers sensibly; affinity knows whose cache holds a prompt's beginning."""

from __future__ import annotations

from dataclasses import replace

from fleet_houses import BUSY, CHAT, IDLE, provider
from hypothesis import given
from hypothesis import strategies as st

from shoal.core.fakes import ScriptedGenerate, words
from shoal.core.request import Message, Request, Sampling
from shoal.core.service import ModelCard
from shoal.fleet.affinity import Affinity
from shoal.fleet.cost import rank
from shoal.fleet.health import LONGEST_PAUSE_S, Health
from shoal.fleet.provider import Provider

ANY = ScriptedGenerate(words("x"))


def order(request: Request, *providers: Provider, cached: dict[str, float] | None = None) -> list[str]:
    shares = cached or {}
    return [bid.provider.name for bid in rank(request, providers, lambda name: shares.get(name, 0.0))]


def test_each_part_of_the_cost_counts() -> None:
    base = provider("z", ANY, load=IDLE)
    long = replace(CHAT, prompt="word " * 4000)
    for better, worse in (
        (base, replace(base, name="a", load=BUSY)),
        (base, replace(base, name="a", rtt_s=0.5)),
        (base, replace(base, name="a", price_usd_per_mtok=5.0)),
        (base, replace(base, name="a", load=replace(IDLE, prefill_tps=100.0))),
        (base, replace(base, name="a", load=replace(IDLE, stream_tps=10.0))),
    ):
        assert order(long, worse, better) == [better.name, worse.name]
    lost, slow = replace(base, is_lost=True), replace(base, name="a", load=replace(IDLE, stream_tps=0.1))
    assert order(long, lost, slow) == ["a", "z"]
    twin = replace(base, name="a")
    assert order(long, base, twin) == ["a", "z"]
    assert order(long, base, twin, cached={"z": 0.9}) == ["z", "a"]


def test_only_those_that_serve_the_model_and_the_adapter() -> None:
    with_adapter = replace(provider("b", ANY), cards=(ModelCard("tiny"), ModelCard("poet", parent="tiny")))
    assert order(replace(CHAT, adapter="poet"), provider("a", ANY), with_adapter) == ["b"]
    assert order(replace(CHAT, model="other"), with_adapter) == []


def conversation(*texts: str) -> Request:
    roles = ("user", "assistant")
    messages = tuple(Message(roles[number % 2], text) for number, text in enumerate(texts))  # type: ignore[arg-type]
    return Request("r", "tiny", messages, Sampling())


def test_a_conversation_that_goes_on_is_known_and_another_is_not() -> None:
    affinity = Affinity()
    affinity.note("a", conversation("hello", "hi"))
    assert affinity.share("a", conversation("hello", "hi", "and then?")) > 0.5
    assert affinity.share("a", conversation("Hello", "hi", "and then?")) == 0.0
    assert affinity.share("b", conversation("hello", "hi")) == 0.0
    assert affinity.share("a", replace(conversation("hello", "hi"), adapter="poet")) == 0.0
    affinity.forget("a")
    assert affinity.share("a", conversation("hello", "hi")) == 0.0


@given(st.lists(st.lists(st.sampled_from("ab"), min_size=1, max_size=6), max_size=12), st.integers(1, 12))
def test_memory_is_bounded_and_shares_are_true(told: list[list[str]], capacity: int) -> None:
    affinity = Affinity(capacity)
    for texts in told:
        affinity.note("p", conversation(*texts))
        assert len(affinity._seen) <= capacity
    for texts in told:
        share = affinity.share("p", conversation(*texts))
        assert 0.0 <= share <= 1.0
        if capacity == 12 and len(told) == 1:
            assert share == 1.0


def test_pauses_grow_and_end_with_success() -> None:
    health = Health()
    ends = []
    for _ in range(10):
        health.failed("a", "gone", 100.0)
        ends.append(health.failures["a"].until - 100.0)
    assert ends[:3] == [1.0, 2.0, 4.0]
    assert ends[-1] == LONGEST_PAUSE_S
    assert health.is_out("a", 159.0)
    assert not health.is_out("a", 160.0)
    health.succeeded("a")
    assert not health.is_out("a", 100.0)
