"""A refused request is read to its end, within limits: who is still sending would otherwise see a broken connection
instead of the answer."""

import asyncio
from contextlib import suppress

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class UnreadBody:
    """Around an application: what it left unread of a body is read and dropped before the answer begins.

    Args:
        most_bytes, most_seconds: that this may take; the connection is then cut.
    """

    def __init__(self, app: ASGIApp, most_bytes: int, most_seconds: float = 5.0) -> None:
        self._app, self._most_bytes, self._most_seconds = app, most_bytes, most_seconds

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
            left = self._most_bytes
            while not whole and left > 0:
                left -= len((await noting_receive()).get("body", b""))

        async def send_when_read(message: Message) -> None:
            if message["type"] == "http.response.start" and not whole:
                with suppress(TimeoutError):
                    await asyncio.wait_for(read_on(), self._most_seconds)
            await send(message)

        await self._app(scope, noting_receive, send_when_read)
