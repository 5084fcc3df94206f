"""The request for predictions, from its body to its answer."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import polars as pl
from fastapi import HTTPException, Request, Response
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

from ..core.context import Context
from ..core.errors import ChampionUnusable
from ..core.logs import get_logger
from ..core.settings import load_settings
from ..interface import load_features, load_schema
from ..sources.reference import load_references
from .champion import Champion, Follower
from .guards import read_body
from .rows import MAX_VIOLATIONS, RowReader, RowsRejected
from .settings import ServingSettings
from .telemetry import Telemetry

log = get_logger(__name__)


class Predictions:
    """Answers requests for predictions by the present champion."""

    def __init__(self, settings: ServingSettings, follower: Follower, telemetry: Telemetry) -> None:
        self._settings = settings
        self._follower = follower
        self._telemetry = telemetry
        self._reader = RowReader(settings.max_rows)
        self._threads = ThreadPoolExecutor(settings.threads, thread_name_prefix="request")

    def stop(self) -> None:
        """Begin no further request."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def answer(self, request: Request) -> Response:
        """Return predictions of all rows, or what is wrong with some of them.

        Raises:
            HTTPException: The request is refused, took too long, or the model failed.
        """
        try:
            async with asyncio.timeout(self._settings.timeout_seconds):
                return await self._predict(request)
        except TimeoutError:
            limit = f"{self._settings.timeout_seconds:g} seconds"
            raise HTTPException(504, f"the request took longer than {limit}") from None
        except RowsRejected as rejected:
            return self._rejection(rejected)
        except ClientDisconnect:
            return Response(status_code=400)
        except HTTPException:
            raise
        except ChampionUnusable as error:
            log.error("%s", error)
            raise HTTPException(503, f"{error}") from None
        except Exception:
            log.exception("a prediction failed")
            raise HTTPException(500, "the prediction failed; the service's log says why") from None

    async def _predict(self, request: Request) -> Response:
        if load_features().lookback:
            raise HTTPException(422, f"{load_features().looks_back}: score a partition or a file")
        body = await read_body(request, self._settings.max_bytes)
        champion = self._follower.champion
        if champion is None:
            said = self._follower.unusable or "no champion is loaded yet"
            raise HTTPException(503, said, {"Retry-After": "10"})
        loop = asyncio.get_running_loop()
        predicted = await loop.run_in_executor(self._threads, self._of_rows, champion, body)
        self._telemetry.predicted.inc(predicted.height)
        # A frame writes JSON faster than a model of the answer would.
        content = predicted.write_json()
        version = champion.description.version
        return Response(
            f'{{"model_version":{version},"predictions":{content}}}', media_type="application/json"
        )

    def _of_rows(self, champion: Champion, body: bytes) -> pl.DataFrame:
        features = load_features()
        rows = self._reader.read(body)
        rows = features.of(rows, Context.of(rows, reference=load_references(load_settings())))
        predicted = champion.predict(rows)
        return rows.select(*load_schema().key, *predicted)

    def _rejection(self, rejected: RowsRejected) -> Response:
        self._telemetry.rejected.inc(rejected.rows)
        shown = rejected.violations[:MAX_VIOLATIONS]
        content = {"detail": rejected.summary, "violations": [one.model_dump() for one in shown]}
        return JSONResponse(content, 422)
