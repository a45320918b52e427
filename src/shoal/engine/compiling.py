"""Grammars are compiled in threads of their own, with a limit on the wait: a hostile one holds up grammars alone.

A thread cannot be ended, so a compilation nobody waits for goes on; `constraint` bounds what it is given. Everything
that needs no grammar never comes here.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from shoal.core.errors import InvalidRequest, Overloaded
from shoal.core.request import Request
from shoal.engine.constraint import Matcher
from shoal.engine.language import Language

NUM_THREADS = 2

MAX_COMPILE_S = 10.0
"""The slowest accepted source found takes about 2 s on an idle core."""


class Compiler:
    """Makes the matchers of requests."""

    def __init__(self, language: Language, limit_s: float = MAX_COMPILE_S) -> None:
        self._language = language
        self._limit_s = limit_s
        self._urgent = ThreadPoolExecutor(NUM_THREADS, "shoal-grammar")
        self._patient = ThreadPoolExecutor(1, "shoal-grammar-later")  # peers' requests, as in `helpers`

    async def matcher(self, request: Request) -> Matcher | None:
        """None where the output is free. InvalidRequest as `Language.matcher`, and for a grammar that takes too long.

        Overloaded where its turn did not come in that time.
        """
        if request.constraint is None and request.tool_choice.mode not in ("required", "named"):
            return None
        made = (self._patient if request.priority > 0 else self._urgent).submit(self._language.matcher, request)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(made), self._limit_s)
        except TimeoutError:
            if made.cancelled():  # it never began
                raise Overloaded("other grammars are being compiled; try again later") from None
            param = request.constraint.param if request.constraint else "tools"
            raise InvalidRequest(
                f"{param}: expected a grammar that compiles within {self._limit_s:g} s; send a smaller one", param
            ) from None

    def close(self) -> None:
        """Begin nothing more; waits for nothing."""
        for threads in (self._urgent, self._patient):
            threads.shutdown(wait=False, cancel_futures=True)
