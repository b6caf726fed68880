"""moto's S3 with a promise of the real one that it breaks under load: conditional writes exclude each other.

moto looks whether the key is there and writes then: with six processes at full load, 1 of 500 names was created twice
in some runs. The lock makes both one step; everything else is moto's.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterator
from typing import Any
from unittest import mock


@contextlib.contextmanager
def conditional_writes() -> Iterator[None]:
    """Let one PUT after another look and write, in a moto that runs in this process."""
    from moto.s3.responses import S3Response

    lock = threading.Lock()
    look_and_write = S3Response.put_object

    @functools.wraps(look_and_write)
    def put_object(self: Any, *args: Any, **options: Any) -> Any:
        with lock:
            return look_and_write(self, *args, **options)

    with mock.patch.object(S3Response, "put_object", put_object):
        yield
