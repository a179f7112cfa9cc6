"""Connections whose requests have a beginning of bounded size, which comes within a bounded time.

uvicorn bounds neither: a header without an end filled the memory, and cost more with every piece of it;
connections that never say anything stayed open. Nobody needs a key for that.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_HEAD_BYTES = 2**16
"""Far more than a key or an identity provider's token, and a cursor."""
HEAD_SECONDS = 30.0

_REFUSAL = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class BoundedHeads(HttpToolsProtocol):
    """uvicorn's own, which ends connections at MOST_HEAD_BYTES and HEAD_SECONDS without a whole head, a piece
    of body, or the end of one: trailers are bounded too.
    """

    _unread_bytes = 0
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Somebody connected."""
        super().connection_made(transport)
        self._expect_more()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is there any more."""
        self._made_progress()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Something came, whole or in part."""
        self._unread_bytes += len(data)
        super().data_received(data)
        if self._unread_bytes > MOST_HEAD_BYTES:
            if getattr(self.cycle, "response_complete", True):  # there is no cycle before the first request
                self.transport.write(_REFUSAL)
            self.transport.close()
        elif self._unread_bytes and self._deadline is None:
            self._expect_more()

    def on_headers_complete(self) -> None:
        """The head is whole (httptools)."""
        self._made_progress()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of the body came (httptools)."""
        self._made_progress()
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole (httptools)."""
        self._made_progress()
        super().on_message_complete()

    def _expect_more(self) -> None:
        self._deadline = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _made_progress(self) -> None:
        self._unread_bytes = 0
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
