"""What a request must pass before its rows are read: the token, its kind, its size."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, HTTPException, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

_BEARER = HTTPBearer(auto_error=False, description="SERVING_TOKEN of the service")


def token_check(token: str) -> Callable[..., Awaitable[None]]:
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


async def read_body(request: Request, max_bytes: int) -> bytes:
    """Return the body of a JSON request, and read no more of it than is allowed.

    Raises:
        HTTPException: It is not announced as plain JSON, or is too large.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        raise HTTPException(415, "the header Content-Type must be application/json")
    if request.headers.get("content-encoding", "identity") != "identity":
        raise HTTPException(415, "the body must not be compressed")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise HTTPException(413, f"the body is larger than {max_bytes:,} bytes")
    return bytes(body)
