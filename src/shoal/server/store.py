"""Answers of `/v1/responses` that a later request may continue. Bounded in number and bytes; the oldest goes first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from shoal.core.errors import InvalidRequest
from shoal.core.request import Message
from shoal.server.errors import Refused


@dataclass(frozen=True, slots=True)
class Stored:
    """`messages` is the whole conversation, answer included, without `instructions`."""

    owner: bytes
    response: dict[str, Any]
    messages: tuple[Message, ...]

    @property
    def size_bytes(self) -> int:
        """About: four bytes a character, and a kilobyte for the objects."""
        texts = sum(len(m.content) + sum(len(call.arguments) for call in m.tool_calls) for m in self.messages)
        return 1024 + 4 * texts + 4 * len(str(self.response))


class ResponseStore:
    def __init__(self, max_responses: int, max_bytes: int) -> None:
        self._max_responses = max_responses
        self._max_bytes = max_bytes
        self._entries: OrderedDict[str, tuple[Stored, int]] = OrderedDict()
        self._size_bytes = 0

    @property
    def is_enabled(self) -> bool:
        return self._max_responses > 0

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, response_id: str, stored: Stored) -> None:
        size = stored.size_bytes
        self._entries[response_id] = (stored, size)
        self._size_bytes += size
        while self._entries and (len(self._entries) > self._max_responses or self._size_bytes > self._max_bytes):
            _, (_, freed) = self._entries.popitem(last=False)
            self._size_bytes -= freed

    def get(self, response_id: str, owner: bytes) -> Stored:
        """Refused (404) for what is not there, or somebody else's."""
        stored, _ = self._entries.get(response_id, (None, 0))
        if stored is None or stored.owner != owner:
            raise Refused(404, "response_not_found", f"no stored response {response_id[:128]!r}", "response_id")
        return stored

    def previous(self, response_id: str, owner: bytes) -> Stored:
        """InvalidRequest for what cannot be continued."""
        try:
            return self.get(response_id, owner)
        except Refused as error:
            message = f"{error}; it may have been forgotten: send the whole conversation as `input`"
            raise InvalidRequest(message, "previous_response_id", "previous_response_not_found") from None

    def remove(self, response_id: str, owner: bytes) -> None:
        self.get(response_id, owner)
        self._size_bytes -= self._entries.pop(response_id)[1]


class Owners:
    """Which key asked for the latest answers, by request id. Bounded; the oldest goes first."""

    def __init__(self, max_count: int = 4096) -> None:
        self._max_count = max_count
        self._owners: OrderedDict[str, bytes] = OrderedDict()

    def note(self, request_ids: Iterable[str], owner: bytes) -> None:
        for request_id in request_ids:
            self._owners[request_id] = owner
            if len(self._owners) > self._max_count:
                self._owners.popitem(last=False)

    def is_owner(self, request_id: str, owner: bytes) -> bool:
        """False for what is no longer known."""
        return self._owners.get(request_id) == owner
