"""What the service counts, for Prometheus."""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from .champion import Champion, Follower

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Telemetry:
    """Counters and gauges of the service, in a registry of their own."""

    def __init__(self, follower: Follower) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self.requests = Counter(
            "serving_requests",
            "Answered requests by route and HTTP status.",
            ("route", "status"),
            registry=self._registry,
        )
        self.seconds = Histogram(
            "serving_request_seconds",
            "Time from a request's first byte to its answer's last.",
            ("route",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.predicted = Counter(
            "serving_rows_predicted", "Rows that were predicted.", registry=self._registry
        )
        self.rejected = Counter(
            "serving_rows_rejected",
            "Rows of requests that broke the data contract.",
            registry=self._registry,
        )

        def of_champion(read: Callable[[Champion], float]) -> Callable[[], float]:
            return lambda: read(follower.champion) if follower.champion else float("nan")

        self._gauge(
            "serving_model_version",
            "Registry version of the served model; NaN while none is loaded.",
            of_champion(lambda champion: champion.description.version),
        )
        self._gauge(
            "serving_champion_version",
            "Registry version of the champion when MLflow last answered; NaN without one.",
            lambda: float("nan") if follower.last.version is None else follower.last.version,
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

    def page(self) -> bytes:
        """Return all metrics in Prometheus's text format."""
        return generate_latest(self._registry)
