"""Work on the next blocks of a file while one is taken: Polars uses one core for one column of text, and a file is mostly text."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import polars as pl

MOST = 4  # blocks in work at once; each takes some ten times its size in memory
In = TypeVar("In")
Out = TypeVar("Out")


def ahead(function: Callable[[In], Out], inputs: Iterable[In], workers: int | None = None) -> Iterator[Out]:
    """`function` of each input, in their order; of the next ones in threads meanwhile. `inputs` is read in the thread of the caller.

    An error comes where its result would have come. With one worker nothing is done ahead.
    """
    workers = workers or min(MOST, pl.thread_pool_size())
    if workers == 1:
        yield from map(function, inputs)
        return
    with ThreadPoolExecutor(workers) as pool:
        pending: deque[Future[Out]] = deque()
        try:
            for one in inputs:
                pending.append(pool.submit(function, one))
                if len(pending) > workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
