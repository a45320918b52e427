"""Nothing of a machine's energy is lost or counted twice, whatever happens in whatever order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shoal.meter.sharing import Sharing

event = st.tuples(
    st.sampled_from(("begin", "tokens", "end", "tick")),
    st.integers(0, 4),
    st.floats(0, 50, allow_nan=False),
    st.integers(0, 30),
)


@given(st.lists(event, max_size=60))
def test_requests_and_idle_sum_to_the_machines_total(events: list[tuple[str, int, float, int]]) -> None:
    sharing, now, given_out = Sharing(joules=100.0), 100.0, 0.0
    for kind, number, joules, count in events:
        name, now = f"r{number}", now + joules
        if kind == "begin" and name not in sharing.active:
            sharing.begin(now, 0.1, name, float(count))
        elif kind == "tokens":
            sharing.tokens(name, count)
            now -= joules  # nothing is read here
        elif kind == "end":
            given_out += sharing.end(now, 0.1, name)
        elif kind == "tick":
            sharing.advance(now, 0.1)
        else:
            now -= joules
    for name in list(sharing.active):
        given_out += sharing.end(now, 0.1, name)
    assert abs(given_out + sharing.idle_joules - (now - 100.0)) < 1e-6 * max(1.0, now)


def test_tokens_decide_who_pays() -> None:
    sharing = Sharing(joules=0.0)
    sharing.begin(0.0, 0.0, "long", 0.0)
    sharing.begin(0.0, 0.0, "short", 0.0)
    sharing.tokens("long", 9)
    sharing.tokens("short", 1)
    assert sharing.end(10.0, 1.0, "short") == 1.0
    assert sharing.end(10.0, 0.0, "long") == 9.0


def test_a_prompt_in_work_counts_by_the_time_it_takes() -> None:
    sharing = Sharing(joules=0.0, prefill_s=0.001, decode_s=0.01)
    sharing.begin(0.0, 0.0, "prompt", 100.0)
    sharing.begin(0.0, 0.0, "answer", 0.0)
    sharing.tokens("answer", 10)
    sharing.advance(4.0, 1.0)  # 100 tokens at 1 ms and 10 at 10 ms: half each
    assert sharing.active["prompt"].joules == sharing.active["answer"].joules == 2.0


def test_a_machine_that_serves_nobody_is_idle() -> None:
    sharing = Sharing(joules=5.0)
    sharing.advance(8.0, 1.0)
    sharing.begin(9.0, 1.0, "one", 1.0)
    assert sharing.idle_joules == 4.0
    assert sharing.end(11.0, 1.0, "one") == 2.0


def test_a_counter_that_falls_gives_nothing_back() -> None:
    sharing = Sharing(joules=50.0)
    sharing.begin(50.0, 0.0, "one", 1.0)
    sharing.advance(40.0, 1.0)
    assert sharing.end(60.0, 1.0, "one") == 10.0


def test_speeds_are_learned_from_what_requests_took() -> None:
    sharing = Sharing(joules=0.0, prefill_s=1.0, decode_s=1.0)
    for _ in range(60):
        sharing.learn(prompt_tokens=100, ttft_s=0.2, completion_tokens=11, decode_s=0.5)
    assert abs(sharing.prefill_s - 0.002) < 1e-4
    assert abs(sharing.decode_s - 0.05) < 1e-3
