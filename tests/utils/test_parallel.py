"""Pieces of work, each computed by one thread."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from segmodels.utils import parallel

THREADS = Path("/proc/self/task")


@pytest.fixture(autouse=True)
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_every_piece_is_computed_once_by_threads_that_compute_alone():
    seen, lock = [], threading.Lock()

    def work(piece):
        time.sleep(0.01)
        with lock:
            seen.append((piece, threading.current_thread().name, torch.get_num_threads()))

    parallel.for_each(work, iter(range(20)))
    assert sorted(piece for piece, _, _ in seen) == list(range(20))
    assert len({name for _, name, _ in seen}) > 1
    assert {threads for _, _, threads in seen} == {1}
    assert torch.get_num_threads() == 3
    with ThreadPoolExecutor(1) as later:  # nor do other threads take over their number
        assert later.submit(torch.get_num_threads).result() == 3


@pytest.mark.skipif(not THREADS.is_dir(), reason="needs Linux to count threads")
def test_operations_of_a_piece_start_no_other_threads():
    """What `_use_single_thread` relies on: PyTorch's number of threads is each thread's own."""
    parallel.for_each(lambda _: None, range(3))
    values = torch.randn(64, 256, 256)
    before = len(list(THREADS.iterdir()))

    def work(_):
        torch.bmm(values, values).add_(1)
        torch.nn.functional.conv2d(values[None], values[:2].new_ones(2, 64, 3, 3))

    parallel.for_each(work, range(3))
    assert len(list(THREADS.iterdir())) == before


def test_the_mode_is_the_callers_and_there_are_no_gradients():
    modes = []

    def work(_):
        modes.append((torch.is_inference_mode_enabled(), torch.is_grad_enabled()))

    parallel.for_each(work, [0])
    with torch.inference_mode():
        parallel.for_each(work, [0])
    torch.set_num_threads(1)
    parallel.for_each(work, [0])
    assert modes == [(False, False), (True, False), (False, False)]


@pytest.mark.parametrize("threads", [1, 3])
def test_an_error_is_raised_and_what_is_left_is_dropped(threads):
    torch.set_num_threads(threads)
    done = []

    def work(piece):
        if piece == 2:
            raise MemoryError("no more")
        time.sleep(0.01)
        done.append(piece)

    with pytest.raises(MemoryError, match="no more"):
        parallel.for_each(work, range(100))
    assert len(done) < 10
    parallel.for_each(done.append, ["next"])
    assert done[-1] == "next"


def test_several_callers_at_once_get_each_their_own():
    def sums(start):
        found = torch.zeros(50)
        parallel.for_each(lambda i: found[i].fill_(start + i), range(50))
        return found

    with ThreadPoolExecutor(4) as callers:
        for start, found in enumerate(callers.map(sums, range(8))):
            assert found.tolist() == [start + i for i in range(50)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_starts_threads_of_its_own():
    parallel.for_each(lambda _: None, range(3))
    child = os.fork()
    if child == 0:  # pragma: no cover
        seen = []
        parallel.for_each(seen.append, range(3))
        os._exit(0 if sorted(seen) == [0, 1, 2] else 1)
    for _ in range(300):
        finished, status = os.waitpid(child, os.WNOHANG)
        if finished:
            break
        time.sleep(0.1)
    else:
        os.kill(child, 9)
        os.waitpid(child, 0)
        pytest.fail("the child hangs")
    assert status == 0
