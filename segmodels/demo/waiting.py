"""A visitor's place in the queue of what runs networks, and how long it is likely to take."""

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
        ahead: Calls that come before it, with those that are running.
        seconds: Until its result is there, as a guess.
    """

    ahead: int
    seconds: float


def place_in_queue(
    blocks: gr.Blocks, session: str, expected: float, clock: Callable[[], float] = time.time
) -> Place | None:
    """The place of a session's first call that waits.

    Args:
        blocks: The page.
        session: Gradio's name of the visitor's session.
        expected: Seconds of a call of a kind that has not been measured yet.
        clock: Seconds since the epoch.

    Returns:
        None where no call of the session waits.
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
