"""Who used how much of a machine's energy: pure decisions on plain data.

Between two moments the machine used some joules. They go to the requests it worked on in proportion to the seconds of
work their tokens stand for: a token of the answer counts `decode_s`, a token of a prompt `prefill_s` (both learned from
the requests themselves). A request that made nothing visible still held its place: with no work seen, active requests
share equally. What was used while nobody was served is idle, and belongs to nobody.

Rules that stay true: nothing is counted twice or lost, so that requests + idle = total, whatever the order of events;
a request's share never falls.
"""

from __future__ import annotations

from dataclasses import dataclass, field

LEARNING = 0.2
"""Weight of the newest request in the learned seconds per token."""


@dataclass(slots=True)
class Share:
    """One request in work. prompt_left: tokens of its prompt not yet computed, as far as known."""

    joules: float = 0.0
    prompt_left: float = 0.0
    new_tokens: int = 0


@dataclass(slots=True)
class Sharing:
    """The state; every method is given the joules read at that moment."""

    joules: float
    prefill_s: float = 0.001
    decode_s: float = 0.01
    idle_joules: float = 0.0
    active: dict[str, Share] = field(default_factory=dict)

    def begin(self, joules: float, seconds: float, request: str, prompt_tokens: float) -> None:
        """A request arrives. `seconds` since the event before this one."""
        self.advance(joules, seconds)
        self.active[request] = Share(prompt_left=prompt_tokens)

    def tokens(self, request: str, count: int) -> None:
        """A request made tokens; its prompt is done. Joules are read at the next event."""
        share = self.active.get(request)
        if share is not None:
            share.new_tokens += count
            share.prompt_left = 0.0 if count else share.prompt_left

    def end(self, joules: float, seconds: float, request: str) -> float:
        """The request is over: its joules."""
        self.advance(joules, seconds)
        share = self.active.pop(request, None)
        return share.joules if share is not None else 0.0

    def advance(self, joules: float, seconds: float) -> None:
        """Give out what was used since the last event."""
        used, self.joules = max(0.0, joules - self.joules), max(self.joules, joules)
        if not self.active:
            self.idle_joules += used
            return
        works = [self._work(share, seconds) for share in self.active.values()]
        total = sum(works)
        for share, work in zip(self.active.values(), works, strict=True):
            share.joules += used * (work / total if total else 1 / len(works))

    def learn(self, prompt_tokens: int, ttft_s: float, completion_tokens: int, decode_s: float) -> None:
        """Seconds per token from one finished request: `ttft_s` for its prompt, `decode_s` for the rest."""
        if prompt_tokens > 0 and ttft_s > 0:
            self.prefill_s += LEARNING * (ttft_s / prompt_tokens - self.prefill_s)
        if completion_tokens > 1 and decode_s > 0:
            self.decode_s += LEARNING * (decode_s / (completion_tokens - 1) - self.decode_s)

    def _work(self, share: Share, seconds: float) -> float:
        """Seconds of work this request stands for since the last event; counts it as given out."""
        prompt = min(share.prompt_left, seconds / self.prefill_s)
        work = share.new_tokens * self.decode_s + prompt * self.prefill_s
        share.prompt_left -= prompt
        share.new_tokens = 0
        return work
