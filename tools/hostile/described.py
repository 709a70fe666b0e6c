"""Requests that Schemathesis makes from the server's OpenAPI description: valid ones and wrong ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode

from hostile.attempts import TIMEOUT_S, Reply
from hostile.server import TOKEN, Server

Note = Callable[[str, Reply | None, str], None]


def send_described(server: Server, requests: int, note: Note) -> None:
    """Send about this many requests, the same share to each operation, and note each with its response."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    document = httpx.get(f"{server.address}/openapi.json", timeout=TIMEOUT_S, verify=False).json()
    schema = schemathesis.openapi.from_dict(document)
    operations = [found.ok() for found in schema.get_all_operations()]
    modes = [(each, mode) for each in operations for mode in _modes(document["paths"][each.path])]
    for operation, mode in modes:
        _send(operation.as_strategy(mode), max(1, requests // len(modes)), server, headers, note)


def _modes(path: dict[str, Any]) -> list[GenerationMode]:
    """Return the modes of a path; without a form or a query there is nothing that can be wrong."""
    places = [each["in"] for operation in path.values() for each in operation.get("parameters", [])]
    has_inputs = "query" in places or any("requestBody" in operation for operation in path.values())
    return list(GenerationMode) if has_inputs else [GenerationMode.POSITIVE]


def _send(strategy: Any, count: int, server: Server, headers: dict[str, str], note: Note) -> None:
    @given(case=strategy)
    @settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    def send(case: Any) -> None:
        name = f"described: {case.method} {case.path}"
        answer = case.call(base_url=server.address, headers=headers, timeout=TIMEOUT_S)
        reply = Reply(answer.status_code, str(answer.headers.get("content-type", [""])[0]), answer.content)
        note("described", reply, name)

    send()
