"""Asynchronous calls from tests."""

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run the coroutine to its end, in a thread: once a test has started Playwright, an event
    loop runs in this one for the rest of the session, and `asyncio.run` refuses to start another.
    """
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()
