"""Counts, times and logs every request."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ..core.logs import get_logger
from .telemetry import Telemetry

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = get_logger(__name__)


class Observe:
    """ASGI middleware; a route that does not exist counts as `other`."""

    def __init__(self, app: ASGIApp, telemetry: Telemetry) -> None:
        self._app = app
        self._telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on; the server calls this."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 500

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, note)
        finally:
            seconds = time.perf_counter() - started
            route = getattr(scope.get("route"), "path", "other")
            self._telemetry.requests.labels(route, status).inc()
            self._telemetry.seconds.labels(route).observe(seconds)
            log.debug("%s %s %d %.1f ms", scope["method"], scope["path"], status, 1000 * seconds)
