"""The service: its routes, and who may ask."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from ..core.settings import load_settings
from . import pages
from .cache import Cache
from .champion import Follower
from .guards import token_check
from .prediction import Predictions
from .settings import ServingSettings
from .telemetry import Observe, Telemetry


def create_app(settings: ServingSettings) -> FastAPI:
    """Return the service; it follows the champion while it runs."""
    follower = Follower(Cache(), settings.refresh_seconds)
    telemetry = Telemetry(follower)
    predictions = Predictions(settings, follower, telemetry)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        follower.start()
        yield
        follower.stop()
        predictions.stop()

    app = FastAPI(
        title=load_settings().project.name,
        description=pages.DESCRIPTION,
        version="1",
        lifespan=lifespan,
    )
    app.state.follower = follower
    app.add_middleware(Observe, telemetry=telemetry)
    guarded = [Depends(token_check(settings.token.get_secret_value()))]

    @app.post(
        "/predict",
        dependencies=guarded,
        summary="Predict one row or many",
        response_class=Response,
        responses=pages.PREDICT_RESPONSES,
        openapi_extra={"requestBody": pages.request_body(settings.max_rows)},
    )
    async def predict(request: Request) -> Response:
        """Predict rows with the champion; either all of them are predicted or none."""
        return await predictions.answer(request)

    @app.get("/model", dependencies=guarded, summary="What is served")
    def model() -> pages.ModelPage:
        """Describe the served model and the last look into the registry."""
        return pages.model_page(follower)

    @app.get("/health/live", summary="Is the process alive?")
    async def live() -> dict[str, str]:
        """Answer as long as the process does."""
        return {"status": "alive"}

    @app.get("/health/ready", summary="Can it predict?", responses=pages.READY_RESPONSES)
    async def ready() -> dict[str, str]:
        """Answer 200 once a champion is loaded, 503 before."""
        if follower.champion is None:
            raise HTTPException(503, "no champion is loaded yet; /model says why")
        return {"status": "ready"}

    @app.get("/metrics", summary="Metrics for Prometheus", response_class=Response)
    async def metrics() -> Response:
        """Return what the service counts."""
        return Response(telemetry.page(), media_type=CONTENT_TYPE_LATEST)

    return app
