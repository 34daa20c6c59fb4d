"""A place in the queue."""

from collections import defaultdict
from types import SimpleNamespace

from segmodels.demo.waiting import LANE, Place, place_in_queue


def page(waiting, running=(), measured=()):
    """Blocks with these calls: (session, function) each that waits, (function, start) that runs."""
    starts = defaultdict(set)
    for function, start in running:
        starts[function].add(start)
    calls = [SimpleNamespace(session_hash=session, fn=function) for session, function in waiting]
    lane = SimpleNamespace(queue=calls, start_times_per_fn=starts)
    times = {function: SimpleNamespace(avg_time=seconds) for function, seconds in measured}
    queue = SimpleNamespace(event_queue_per_concurrency_id={LANE: lane}, process_time_per_fn=times)
    return SimpleNamespace(_queue=queue)


def place(blocks, session="me"):
    return place_in_queue(blocks, session, expected=5.0, clock=lambda: 100.0)


def test_what_runs_and_what_waits_before_is_counted_and_timed():
    waiting = [("other", "compare"), ("me", "run"), ("third", "compare")]
    blocks = page(waiting, [("compare", 99.0)], [("compare", 3.0), ("run", 4.0)])
    # 2 s are left of the one that runs, then 3 s and one's own 4 s.
    assert place(blocks) == Place(2, 9.0)


def test_functions_that_were_never_measured_take_what_is_expected():
    assert place(page([("me", "run")], [("compare", 99.0)])) == Place(1, 4.0 + 5.0)


def test_one_that_takes_longer_than_expected_is_about_to_end():
    assert place(page([("me", "run")], [("compare", 10.0)])) == Place(1, 5.0)


def test_who_does_not_wait_has_no_place():
    assert place(page([("other", "compare")], [("run", 99.0)])) is None
    blocks = page([])
    blocks._queue.event_queue_per_concurrency_id.clear()
    assert place(blocks) is None
