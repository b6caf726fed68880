"""Pictures are drawn when first asked for, off the event loop, and kept within a bound."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor

from airflow_provider_nanobanana.emulator.pictures import PictureSpec, render

MAX_CACHED_BYTES = 64 * 1024 * 1024


class Darkroom:
    """A bounded cache of drawn pictures over one drawing thread.

    One, because a 4K picture takes some 150 MB while it is drawn, and because every further thread keeps the event
    loop waiting for the interpreter's lock.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="emulator-picture")
        self._cached: OrderedDict[PictureSpec, bytes] = OrderedDict()
        self._size = 0
        self._drawing: dict[PictureSpec, asyncio.Future[bytes]] = {}

    async def develop(self, spec: PictureSpec) -> bytes:
        """Return the encoded picture; two requests for the same one draw it once."""
        if spec in self._cached:
            self._cached.move_to_end(spec)
            return self._cached[spec]
        if spec not in self._drawing:
            drawing = asyncio.get_running_loop().run_in_executor(self._pool, render, spec)
            self._drawing[spec] = drawing
            drawing.add_done_callback(lambda _: self._drawing.pop(spec, None))
        content = await asyncio.shield(self._drawing[spec])
        self._keep(spec, content)
        return content

    def clear(self) -> None:
        """Forget all pictures."""
        self._cached.clear()
        self._size = 0

    def close(self) -> None:
        """Let the drawing thread go."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _keep(self, spec: PictureSpec, content: bytes) -> None:
        if spec in self._cached or len(content) > MAX_CACHED_BYTES // 2:
            return
        self._cached[spec] = content
        self._size += len(content)
        while self._size > MAX_CACHED_BYTES:
            _, dropped = self._cached.popitem(last=False)
            self._size -= len(dropped)
