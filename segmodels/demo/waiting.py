"""A visitor's place in the queue for the networks, and the estimated waiting time."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import gradio as gr
from gradio.blocks import BlockFunction

LANE = "networks"  # the concurrency_id of every function that runs networks


@dataclass(frozen=True)
class Place:
    """A place in the queue.

    Attributes:
        ahead: Number of calls ahead, including those that are running.
        seconds: Estimated seconds until the result is ready.
    """

    ahead: int
    seconds: float


def place_in_queue(
    blocks: gr.Blocks, session: str, expected: float, clock: Callable[[], float] = time.time
) -> Place | None:
    """Return the place of a session's first waiting call.

    Args:
        blocks: The page.
        session: Gradio's session hash.
        expected: Assumed seconds per call of functions that have not been timed yet.
        clock: Returns the seconds since the epoch.

    Returns:
        None if no call of the session is waiting.
    """
    queue = blocks._queue
    lane = queue.event_queue_per_concurrency_id.get(LANE)
    calls = list(lane.queue) if lane else []
    position = next((n for n, call in enumerate(calls) if call.session_hash == session), None)
    if lane is None or position is None:
        return None

    def seconds(function: BlockFunction) -> float:
        measured = queue.process_time_per_fn.get(function)
        return float(measured.avg_time) if measured and measured.avg_time else expected

    running = [
        max(0.0, started + seconds(function) - clock())
        for function, starts in list(lane.start_times_per_fn.items())
        for started in list(starts)
    ]
    waiting = [seconds(call.fn) for call in calls[: position + 1]]
    return Place(len(running) + position, sum(running) + sum(waiting))
