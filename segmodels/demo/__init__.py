"""The demo page that compares the networks, and its API. Requires the `demo` extra.

Gradio's telemetry is disabled unless GRADIO_ANALYTICS_ENABLED enables it, so the page makes no
network requests at startup.
"""

import os

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", "100")  # each call iterates over all

# Gradio parses the port as a number on import. An invalid value is removed here and reported by
# `server.chosen_port`.
PORT_VARIABLE = "GRADIO_SERVER_PORT"
invalid_port = ""
if not os.environ.get(PORT_VARIABLE, "1").strip().isdecimal():
    invalid_port = os.environ.pop(PORT_VARIABLE)
