"""Credit and order of one stream call, each direction apart. No I/O.

The side that reads grants bytes; a message costs its length and `MESSAGE_COST`. One may be begun while any credit is
left, so a message larger than the window passes, alone. Large messages travel apart from small ones: `seq` puts
them back in order.

Rules that stay true in this file:
- messages come out once each, in the order they were sent, or PeerFault;
- what is held unread is at most the window, one message and SLACK.
"""

from __future__ import annotations

from collections import deque

from shoal.core.errors import PeerFault
from shoal.mesh.rpc.limits import BULK_BYTES, MESSAGE_COST

SLACK = BULK_BYTES + MESSAGE_COST
"""A small message may overtake the large one whose credit it followed."""

MAX_CREDIT = 2**40
"""A sender never believes it may send more than this."""


class Outbound:
    """What this side sends."""

    __slots__ = ("credit", "is_ended", "sent")

    def __init__(self, credit: int) -> None:
        self.credit = credit
        self.sent = 0
        self.is_ended = False

    @property
    def can_send(self) -> bool:
        return self.credit > 0

    def message(self, size: int) -> int:
        """Its seq. Call only while `can_send`."""
        self.credit -= size + MESSAGE_COST
        self.sent += 1
        return self.sent - 1

    def grant(self, credit: int) -> None:
        self.credit += credit
        if self.credit > MAX_CREDIT:
            raise PeerFault(f"expected credit for at most {MAX_CREDIT} bytes, found {self.credit}")


class Inbound:
    """What this side reads. `window` bytes may be unread; `granted` of them the other side already knows of."""

    __slots__ = ("_ahead", "_credit", "_end", "_next", "_owed", "_ready", "_window")

    def __init__(self, granted: int, window: int) -> None:
        self._credit = granted
        self._owed = max(0, window - granted)
        self._window = window
        self._next = 0
        self._end: int | None = None
        self._ahead: dict[int, memoryview] = {}
        self._ready: deque[memoryview] = deque()

    def message(self, seq: int, message: memoryview) -> None:
        if self._credit <= -SLACK:
            raise PeerFault("expected the other side to wait for credit on a stream call, found a message without any")
        if seq < self._next or seq in self._ahead or (self._end is not None and seq >= self._end):
            raise PeerFault(f"expected message {self._next} of a stream call, found {seq}")
        self._credit -= message.nbytes + MESSAGE_COST
        self._ahead[seq] = message
        while (ready := self._ahead.pop(self._next, None)) is not None:
            self._ready.append(ready)
            self._next += 1

    def end(self, count: int) -> None:
        """The other side sent `count` messages in all."""
        if self._end is not None or count < self._next + len(self._ahead):
            raise PeerFault(f"expected one end of a stream call after its messages, found one at {count}")
        self._end = count

    def take(self) -> memoryview | None:
        """The next message; None when there is none yet, or at the end."""
        if not self._ready:
            return None
        message = self._ready.popleft()
        self._owed += message.nbytes + MESSAGE_COST
        return message

    def grant(self) -> int:
        """Credit to tell the other side of now; 0 while it is too little to be worth a frame."""
        if self._owed < self._window // 4 or self.is_over:
            return 0
        granted, self._owed = self._owed, 0
        self._credit += granted
        return granted

    @property
    def is_ended(self) -> bool:
        return self._end is not None

    @property
    def is_complete(self) -> bool:
        """Whether the other side has ended and every message has arrived."""
        return self._end is not None and self._next == self._end

    @property
    def is_over(self) -> bool:
        """Whether the other side has ended and every message was taken."""
        return self.is_complete and not self._ready
