"""Hostile requests, sent to the service inside a generated project.

Each is answered with a status of 4xx and a sentence, nothing of it is run, and the service lives.
"""

from __future__ import annotations

import asyncio
import json
import os
import pickle
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl
import pytest
import sandbox
from fastapi import FastAPI
from flight_delays.serving.cache import Description
from flight_delays.serving.champion import Champion
from flight_delays.serving.rows import as_json
from flight_delays.serving.service import create_app
from flight_delays.serving.settings import ServingSettings
from hostile_examples import examples
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from pydantic import SecretStr

MAX_BYTES = 1_000_000
ROWS: list[dict[str, Any]] = as_json(sandbox.sample().head(3))
GOOD = json.dumps({"rows": ROWS}).encode()
JSON = "application/json"
REFUSED = {400, 413, 415, 422}


class Evil:
    """Leaves a file behind when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.system, ("touch PWNED",)


PICKLES = [pickle.dumps(Evil(), protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
KINDS = [
    *(JSON, f"{JSON}; charset=utf-16", "application/x-python-serialize", "application/x-pickle"),
    *(
        "application/octet-stream",
        "application/x-yaml",
        "text/csv",
        "multipart/form-data",
        "",
        "\xff",
    ),
    *("application/x-java-serialized-object", "application/xml", "application/json, text/html"),
    *("application/vnd.apache.parquet", "application/x-npz", "APPLICATION/JSON"),
]


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FastAPI]:
    """Return a service of a model that predicts 1; what is run leaves its file in a new folder."""
    root = tmp_path_factory.mktemp("requests") / "project"
    (root / "config").mkdir(parents=True)
    (root / "config" / "pipeline.toml").write_text(sandbox.CONFIG)
    with sandbox.enter(root), pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        app = create_app(ServingSettings(token=SecretStr(""), max_bytes=MAX_BYTES))
        now = datetime.now(UTC)
        known = Description(key="1", registry="", name="stub", version=7, created=now)
        app.state.follower.champion = Champion(
            known, lambda rows: pl.DataFrame({"prediction": np.ones(rows.height)}), now, "registry"
        )
        yield app
        assert not Path("PWNED").exists()


def ask(app: FastAPI, body: Any, kind: str = JSON) -> httpx.Response:
    """Send a body, and then a good one, which must be answered well."""

    async def post() -> httpx.Response:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            headers = [(b"Content-Type", kind.encode("latin-1"))]
            answer = await client.post("/predict", content=body, headers=headers)
            good = await client.post("/predict", content=GOOD, headers={"Content-Type": JSON})
            assert good.status_code == 200, good.text
            return answer

    return asyncio.run(post())


def assert_refused(answer: httpx.Response) -> None:
    assert answer.status_code in REFUSED, answer.text
    assert len(answer.json()["detail"]) > 10
    assert "Traceback" not in answer.text
    assert len(answer.content) < 100_000


@pytest.mark.parametrize("kind", KINDS)
def test_a_pickle_is_never_loaded(app: FastAPI, kind: str) -> None:
    hidden = [json.dumps({"rows": [{**ROWS[0], "dest": repr(one)}]}).encode() for one in PICKLES]
    for body in [*PICKLES, *hidden]:
        assert_refused(ask(app, body, kind))
    assert not Path("PWNED").exists()


DEEP = b"[" * 100_000
BODIES: dict[str, bytes] = {
    "deep": b'{"rows": ' + DEEP,
    "deep in a row": b'{"rows": [{"temp": ' + DEEP + b"]" * 100_000 + b"}]}",
    "deep objects": b'{"rows": [' + b'{"a":' * 50_000 + b"1" + b"}" * 50_000 + b"]}",
    "not a number": b'{"rows": [{"temp": NaN}]}',
    "endless": b'{"rows": [{"temp": -Infinity}]}',
    "a number of 900 kB": b'{"rows": [{"temp": ' + b"9" * 900_000 + b"}]}",
    "a fraction of 900 kB": b'{"rows": [{"temp": 0.' + b"9" * 900_000 + b"}]}",
    "an exponent": b'{"rows": [{"temp": 1e999999999}]}',
    "no UTF-8": b'{"rows": [{"dest": "\xff\xfe"}]}',
    "half a surrogate": b'{"rows": [{"dest": "\\ud800"}]}',
    "UTF-16": json.dumps({"rows": ROWS}).encode("utf-16"),
    "a key twice": b'{"rows": [{"temp": 1}], "rows": []}',
    "very many keys": json.dumps({"rows": [{f"k{n}": n for n in range(50_000)}]}).encode(),
    "a long key": json.dumps({"rows": [{"k" * 500_000: 1}]}).encode(),
    "a prototype": b'{"__proto__": {"rows": [{}]}, "constructor": {"rows": []}}',
    "two documents": GOOD + GOOD,
    "a comment": b"/* */" + GOOD,
    "10 MB": b'{"rows": [' + b"1" * 10_000_000,
}


@pytest.mark.parametrize("kind", BODIES)
def test_a_body_is_refused_with_a_sentence(app: FastAPI, kind: str) -> None:
    assert_refused(ask(app, BODIES[kind]))


def test_a_body_without_end_is_cut_off(app: FastAPI) -> None:
    taken = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield b" " * 10_000

    # httpx reads a body before it sends it in-process, so the application is called as servers do.
    sent: list[dict[str, Any]] = []

    async def call() -> None:
        body = endless()

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": await anext(body), "more_body": True}

        async def send(message: Any) -> None:
            sent.append(message)

        headers = [(b"content-type", JSON.encode())]
        scope = {"type": "http", "method": "POST", "path": "/predict", "headers": headers}
        more = {"query_string": b"", "http_version": "1.1", "scheme": "http", "root_path": ""}
        await app({**scope, **more}, receive, send)

    asyncio.run(call())
    assert sent[0]["status"] == 413
    assert taken <= MAX_BYTES / 10_000 + 1


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
FIELDS = st.dictionaries(st.sampled_from([*ROWS[0], "x", ""]), VALUES, max_size=4)


@examples(150, suppress_health_check=list(HealthCheck))
@given(changes=FIELDS, whole=VALUES, where=st.sampled_from(["row", "rows", "body"]))
def test_any_json_is_answered_or_refused(
    app: FastAPI, changes: dict[str, Any], whole: Any, where: str
) -> None:
    bodies = {"row": {"rows": [{**ROWS[0], **changes}]}, "rows": {"rows": whole}, "body": whole}
    answer = ask(app, json.dumps(bodies[where]).encode())
    if answer.status_code != 200:
        assert_refused(answer)


@examples(100, suppress_health_check=list(HealthCheck))
@given(at=st.floats(0, 1), what=st.binary(min_size=1, max_size=6), kind=st.sampled_from(KINDS))
def test_any_bytes_are_answered_or_refused(app: FastAPI, at: float, what: bytes, kind: str) -> None:
    place = int(at * len(GOOD))
    answer = ask(app, GOOD[:place] + what + GOOD[place + len(what) :], kind)
    if answer.status_code != 200:
        assert_refused(answer)
