"""A refused request is read to its end, within limits: who is still sending would otherwise see a broken connection
instead of the answer."""

import asyncio
import time
from contextlib import suppress

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_MOST_SECONDS, _LONGEST_PAUSE_S = 5.0, 0.5


class UnreadBody:
    """Around an application: what it left unread of a body is read and dropped before the answer begins.

    Args:
        most_bytes: that are read so.
    """

    def __init__(self, app: ASGIApp, most_bytes: int) -> None:
        self._app, self._most_bytes = app, most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # Who waits for "100 Continue" has sent nothing yet, and sees the answer.
        whole = "expect" in Headers(scope=scope)

        async def noting_receive() -> Message:
            nonlocal whole
            message = await receive()
            whole = message["type"] != "http.request" or not message.get("more_body", False)
            return message

        async def read_on() -> None:
            left, end = self._most_bytes, time.monotonic() + _MOST_SECONDS
            while not whole and left > 0 and time.monotonic() < end:
                message = await asyncio.wait_for(noting_receive(), _LONGEST_PAUSE_S)
                left -= len(message.get("body", b""))

        async def send_when_read(message: Message) -> None:
            if message["type"] == "http.response.start" and not whole:
                with suppress(TimeoutError):
                    await read_on()
            await send(message)

        await self._app(scope, noting_receive, send_when_read)
