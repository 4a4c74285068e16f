"""httpx2's functions with patience: by its own five seconds a request on a busy machine would be a failure."""

from functools import partial

import httpx2

SECONDS = 60.0  # what takes longer hangs
get, post, put, delete, head, patch, request, stream = (
    partial(ask, timeout=SECONDS) for ask in (httpx2.get, httpx2.post, httpx2.put, httpx2.delete, httpx2.head, httpx2.patch, httpx2.request, httpx2.stream)
)
