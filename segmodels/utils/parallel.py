"""Parallel computation of independent pieces of work, each on a single thread.

PyTorch divides every operation among all threads and waits for the slowest. On a busy machine, one
thread is often not scheduled, and each of hundreds of small parallel regions waits for it. Here,
threads fetch pieces from a queue and synchronise only at the end. Each piece is computed by one
thread, so its result does not depend on the number of threads.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Piece = TypeVar("Piece")

_lock = threading.Lock()
_workers: tuple[int, ThreadPoolExecutor] | None = None  # number of threads, pool


def for_each(work: Callable[[Piece], object], pieces: Iterable[Piece]) -> None:
    """Call `work` with every piece, on as many threads as PyTorch uses, in any order.

    Args:
        work: Called without gradients, and in inference mode if the caller is. It must not call
            `for_each`.
        pieces: Independent pieces of work.

    Raises:
        Exception: The first exception of `work`; remaining pieces are discarded.
    """
    count = torch.get_num_threads()
    if count == 1:
        with torch.no_grad():
            for piece in pieces:
                work(piece)
        return
    waiting = deque(pieces)
    inference = torch.is_inference_mode_enabled()

    def process_pieces() -> None:
        with torch.inference_mode(inference), torch.no_grad():
            while True:
                try:
                    piece = waiting.popleft()
                except IndexError:
                    return
                try:
                    work(piece)
                except BaseException:
                    waiting.clear()
                    raise

    pool = _pool(count)
    running = [pool.submit(process_pieces) for _ in range(min(count, len(waiting)))]
    for future in running:
        future.exception()  # waits, so that no thread writes to memory that the caller frees
    for future in running:
        future.result()


def _pool(count: int) -> ThreadPoolExecutor:
    """The thread pool, created on first use and when the number of threads changes."""
    global _workers
    with _lock:
        if _workers is None or _workers[0] != count:
            pool = ThreadPoolExecutor(
                count, thread_name_prefix="segmodels", initializer=_use_single_thread
            )
            # One task per thread, so that all have started before the number of threads is reset.
            started = threading.Barrier(count)
            for future in [pool.submit(started.wait) for _ in range(count)]:
                future.result()
            # `set_num_threads` applies to the calling thread and to threads started later.
            torch.set_num_threads(count)
            _workers = count, pool
        return _workers[1]


def _use_single_thread() -> None:
    """Make PyTorch operations in this thread single-threaded."""
    torch.get_num_threads()  # initialises the thread, which would override an earlier setting
    torch.set_num_threads(1)


def _reset_after_fork() -> None:
    """Reset in a forked child process, which does not inherit threads."""
    global _workers, _lock
    _workers, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)
