"""The page that compares the networks, and its API. It needs the extra `demo` of the package.

Gradio's telemetry is off unless GRADIO_ANALYTICS_ENABLED asks for it: nothing is looked up when the
page starts.
"""

import os

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", "100")  # it goes over all at each call

# Gradio reads the port when it is imported, and takes it for a number. `server.chosen_port` says
# what is wrong with it.
PORT_VARIABLE = "GRADIO_SERVER_PORT"
invalid_port = ""
if not os.environ.get(PORT_VARIABLE, "1").strip().isdecimal():
    invalid_port = os.environ.pop(PORT_VARIABLE)
