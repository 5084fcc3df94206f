"""Counts, times and logs requests; Prometheus can scrape the counts."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from ..core.logs import get_logger
from .champion import Champion, Follower

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = get_logger(__name__)

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_NONE = float("nan")


class Telemetry:
    """Counters and gauges of the service, in their own registry."""

    def __init__(self, follower: Follower) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter(
            "serving_requests",
            "Answered requests by route and HTTP status.",
            ("route", "status"),
            registry=registry,
        )
        self.seconds = Histogram(
            "serving_request_seconds",
            "Time from a request's first byte to its answer's last.",
            ("route",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.predicted = Counter(
            "serving_rows_predicted", "Rows that were predicted.", registry=registry
        )
        self.rejected = Counter(
            "serving_rows_rejected",
            "Rows of requests that broke the data contract.",
            registry=registry,
        )
        self._watch(follower)

    def page(self) -> bytes:
        """Return all metrics in Prometheus's text format."""
        return generate_latest(self._registry)

    def _watch(self, follower: Follower) -> None:
        def of_champion(read: Callable[[Champion], float]) -> Callable[[], float]:
            return lambda: read(follower.champion) if follower.champion else _NONE

        self._gauge(
            "serving_model_version",
            "Registry version of the served model; NaN while none is loaded.",
            of_champion(lambda champion: champion.description.version),
        )
        self._gauge(
            "serving_champion_version",
            "Registry version of the champion when MLflow last answered; NaN without one.",
            lambda: _NONE if follower.last.version is None else follower.last.version,
        )
        self._gauge(
            "serving_model_age_seconds",
            "Time since the served model was registered; NaN while none is loaded.",
            of_champion(lambda champion: time.time() - champion.description.created.timestamp()),
        )
        self._gauge(
            "serving_registry_reachable",
            "1 when MLflow's registry answered when it was last asked, else 0.",
            lambda: float(follower.last.reachable),
        )

    def _gauge(self, name: str, documentation: str, read: Callable[[], float]) -> None:
        Gauge(name, documentation, registry=self._registry).set_function(read)


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
