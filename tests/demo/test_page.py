"""The page as it is built, before it is served."""

import threading

from segmodels.demo.callbacks import Callbacks
from segmodels.demo.page import build_page
from tests.support import loops


def test_the_interpreter_waits_for_the_thread_that_warms_the_networks_up(networks, monkeypatch):
    threads = []
    done = threading.Event()

    def warm_up(self, scene):
        threads.append((scene, threading.current_thread().daemon))
        done.set()

    async def build():  # in a loop that is closed afterwards: Gradio would leave one open
        build_page(networks)

    monkeypatch.setattr(Callbacks, "warm_up", warm_up)
    loops.run(build())
    assert done.wait(60)
    assert threads == [("road", False)]
