"""A request's head (line and headers) ends within `MAX_HEAD_BYTES`, or the connection does: uvicorn sets no bound."""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 64 * 2**10
"""nginx: 32 KiB, Node.js: 16 KiB, h11: 64 KiB."""


class LimitedHttp(HttpToolsProtocol):
    """Counts what arrives while a head is incomplete; 400 and goodbye beyond the limit, whatever was sent so far."""

    _head_bytes = 0
    _is_in_head = True

    def data_received(self, data: bytes) -> None:
        was_in_head = self._is_in_head
        super().data_received(data)
        self._head_bytes = self._head_bytes + len(data) if was_in_head and self._is_in_head else 0
        if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response(f"the request's head is larger than {MAX_HEAD_BYTES} bytes")

    def on_message_begin(self) -> None:
        self._is_in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        super().on_headers_complete()
