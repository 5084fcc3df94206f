"""The service: its routes, its limits, and who may ask."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any

import polars as pl
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel
from starlette.requests import ClientDisconnect

from ..core import tracking
from ..core.logs import get_logger
from ..core.settings import load_settings
from ..domain.features import FEATURES, KEY, features
from . import openapi
from .cache import Cache
from .champion import Champion, Follower
from .metrics import Metrics
from .observe import Observe
from .rows import MAX_PROBLEMS, BadRequest, RowsRejected, read_rows
from .settings import ServingSettings

log = get_logger(__name__)

# Threads that read requests; those that find the model busy wait in them, to be predicted together.
_READERS = 16
_BEARER = HTTPBearer(auto_error=False, description="SERVING_TOKEN of the service")


class Registry(BaseModel):
    """What became of the last look into the registry."""

    reachable: bool
    checked: datetime | None
    answered: datetime | None
    error: str | None


class ModelPage(BaseModel):
    """What is served; the model's fields are null until one is loaded."""

    name: str
    version: int | None = None
    candidate: str | None = None
    trained_until: str | None = None
    registered: datetime | None = None
    run_url: str | None = None
    metrics: dict[str, float] = {}
    loaded_since: datetime | None = None
    source: str | None = None
    registry: Registry


def create_app(settings: ServingSettings) -> FastAPI:
    """Return the service; it follows the champion while it runs."""
    follower = Follower(Cache(), settings.refresh_seconds, settings.threads)
    metrics = Metrics(follower)
    readers = ThreadPoolExecutor(_READERS, thread_name_prefix="reader")

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        follower.start()
        readers.submit(example.load)
        yield
        follower.stop()
        readers.shutdown(wait=False, cancel_futures=True)

    app = FastAPI(
        title=load_settings().project.name,
        description=openapi.DESCRIPTION,
        version="1",
        lifespan=lifespan,
    )
    app.state.follower = follower
    example = openapi.install(app)
    app.add_middleware(Observe, metrics=metrics)
    guarded = [Depends(_token_check(settings.token.get_secret_value()))]

    @app.post(
        "/predict",
        dependencies=guarded,
        summary="Predict one row or many",
        response_class=Response,
        responses=openapi.PREDICT_RESPONSES,
        openapi_extra={"requestBody": openapi.request_body(settings.max_rows)},
    )
    async def predict(request: Request) -> Response:
        """Predict rows with the champion; either all of them are predicted or none."""
        try:
            async with asyncio.timeout(settings.timeout_seconds):
                body = await _read_body(request, settings.max_bytes)
                champion = follower.champion
                if champion is None:
                    raise HTTPException(503, "no champion is loaded yet", {"Retry-After": "10"})
                content, rows = await asyncio.get_running_loop().run_in_executor(
                    readers, _answer, champion, body, settings.max_rows
                )
        except TimeoutError:
            raise HTTPException(
                504, f"the request took longer than {settings.timeout_seconds:g} seconds"
            ) from None
        except BadRequest as error:
            raise HTTPException(error.status, str(error)) from None
        except RowsRejected as rejected:
            metrics.rejected.inc(len({found.row for found in rejected.problems}))
            problems = [asdict(found) for found in rejected.problems[:MAX_PROBLEMS]]
            return JSONResponse({"detail": rejected.summary, "problems": problems}, 422)
        except ClientDisconnect:
            return Response(status_code=400)
        except HTTPException:
            raise
        except Exception:
            log.exception("a prediction failed")
            raise HTTPException(500, "the prediction failed; the service's log says why") from None
        metrics.predicted.inc(rows)
        return Response(content, media_type="application/json")

    @app.get("/model", dependencies=guarded, summary="What is served")
    def model() -> ModelPage:
        """Describe the served model and the last look into the registry."""
        return _model_page(follower)

    @app.get("/health/live", summary="Is the process alive?")
    async def live() -> dict[str, str]:
        """Answer as long as the process does."""
        return {"status": "alive"}

    @app.get("/health/ready", summary="Can it predict?", responses=openapi.READY_RESPONSES)
    async def ready() -> dict[str, str]:
        """Answer 200 once a champion is loaded, 503 before."""
        if follower.champion is None:
            raise HTTPException(503, "no champion is loaded yet; /model says why")
        return {"status": "ready"}

    @app.get("/metrics", summary="Metrics for Prometheus", response_class=Response)
    async def metrics_page() -> Response:
        """Return what the service counts."""
        return Response(metrics.page(), media_type=CONTENT_TYPE_LATEST)

    return app


def _answer(champion: Champion, body: bytes, max_rows: int) -> tuple[bytes, int]:
    """Return the answer's JSON and the number of its rows."""
    rows = features(read_rows(body, max_rows))
    values = champion.predict(rows.select(FEATURES))
    predictions = rows.select(KEY).with_columns(pl.Series("prediction", values)).write_json()
    version = champion.description.version
    return f'{{"model_version":{version},"predictions":{predictions}}}'.encode(), rows.height


async def _read_body(request: Request, max_bytes: int) -> bytes:
    """Return the body of a JSON request, and read no more of it than is allowed."""
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        raise BadRequest(415, "the header Content-Type must be application/json")
    if request.headers.get("content-encoding", "identity") != "identity":
        raise BadRequest(415, "the body must not be compressed")
    too_large = BadRequest(413, f"the body is larger than {max_bytes:,} bytes")
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > max_bytes:
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise too_large
    return bytes(body)


def _token_check(token: str) -> Any:
    """Return what lets requests through that carry the token; all of them when it is empty."""

    async def check(
        given: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)],
    ) -> None:
        sent = given.credentials if given else ""
        if token and not hmac.compare_digest(sent.encode(), token.encode()):
            raise HTTPException(
                401,
                "the header Authorization must be: Bearer, and the service's token",
                {"WWW-Authenticate": "Bearer"},
            )

    return check


def _model_page(follower: Follower) -> ModelPage:
    last, champion = follower.last, follower.champion
    registry = Registry(
        reachable=last.reachable, checked=last.checked, answered=last.answered, error=last.error
    )
    if champion is None:
        return ModelPage(name=tracking.model_name(), registry=registry)
    known = champion.description
    return ModelPage(
        name=known.name,
        version=known.version,
        candidate=known.candidate,
        trained_until=known.trained_until,
        registered=known.created,
        run_url=known.run_url,
        metrics=known.metrics,
        loaded_since=champion.loaded,
        source=champion.source,
        registry=registry,
    )
