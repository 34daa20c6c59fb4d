"""Work in many independent pieces, each computed by one thread.

PyTorch's own parallel regions split every operation among all threads and wait for the last of
them. Beside other busy processes one thread is often not running, and each of hundreds of small
regions waits for it. Here the threads take pieces until none is left, and only the end is waited
for. Arithmetic inside a piece is that of one thread, so that results do not depend on how many
threads there are.
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
_workers: tuple[int, ThreadPoolExecutor] | None = None  # and how many they are


def for_each(work: Callable[[Piece], object], pieces: Iterable[Piece]) -> None:
    """Call `work` with every piece, on as many threads as PyTorch has, in any order.

    Args:
        work: Called without gradients, and in inference mode where the caller is. It must not
            call `for_each` itself.
        pieces: Independent of each other.

    Raises:
        Exception: The first that `work` raised; pieces not yet taken are dropped.
    """
    count = torch.get_num_threads()
    if count == 1:
        with torch.no_grad():
            for piece in pieces:
                work(piece)
        return
    waiting = deque(pieces)
    inference = torch.is_inference_mode_enabled()

    def take_pieces() -> None:
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
    running = [pool.submit(take_pieces) for _ in range(min(count, len(waiting)))]
    for future in running:
        future.exception()  # waits: no thread is left writing to what the caller gives up
    for future in running:
        future.result()


def _pool(count: int) -> ThreadPoolExecutor:
    """The threads, started when they are first needed and when their number changes."""
    global _workers
    with _lock:
        if _workers is None or _workers[0] != count:
            pool = ThreadPoolExecutor(
                count, thread_name_prefix="segmodels", initializer=_compute_alone
            )
            # One each: they are all started before the number of threads is set back.
            started = threading.Barrier(count)
            for future in [pool.submit(started.wait) for _ in range(count)]:
                future.result()
            # `set_num_threads` is the calling thread's, and what later threads begin with.
            torch.set_num_threads(count)
            _workers = count, pool
        return _workers[1]


def _compute_alone() -> None:
    """Let PyTorch's operations in this thread use no other."""
    torch.get_num_threads()  # initialises the thread, which would undo what is set before
    torch.set_num_threads(1)


def _forget_workers() -> None:
    """In a forked child, which has none of its parent's threads."""
    global _workers, _lock
    _workers, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_workers)
