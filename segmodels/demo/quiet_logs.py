"""Logging of failed requests without visitors' text, in place of what Gradio and uvicorn print."""

import logging
import sys
import traceback
import warnings
from pathlib import Path

import gradio as gr
from gradio import queueing, route_utils, routes
from gradio.exceptions import InvalidPathError

log = logging.getLogger(__name__)

PACKAGE = Path(__file__).resolve().parents[1]
# uvicorn logs one of these for each rejected request.
REPEATED = ("Exceeded concurrency limit.", "Invalid HTTP request received.")


def install() -> None:
    """Replace Gradio's printing of tracebacks, which has no option to disable it, and silence
    warnings caused by visitors' files."""
    for module in (queueing, route_utils, routes):
        vars(module)["traceback"] = _Reports
    logging.getLogger("uvicorn.error").addFilter(lambda record: record.msg not in REPEATED)
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # warns of each malformed form
    warnings.filterwarnings("ignore", module=r"PIL\.")  # about damaged metadata


class _Reports:
    """Replacement for the `traceback` module within Gradio."""

    @staticmethod
    def print_exc() -> None:
        error = sys.exc_info()[1]
        if error is not None and not is_expected(error):
            log_failure("a call", error)


def is_expected(error: BaseException) -> bool:
    """Whether the error is caused by the visitor's input.

    Our functions raise `gr.Error` for invalid input. Gradio's own checks raise ValueError (also
    pydantic's) before a function is called.
    """
    if isinstance(error, gr.Error | InvalidPathError):
        return True
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if Path(frame.filename).is_relative_to(PACKAGE)]
    is_output = any(frame.name == "postprocess_data" for frame in frames)
    return isinstance(error, ValueError) and not ours and not is_output


def log_failure(what: str, error: BaseException) -> None:
    """Log the type and traceback of an unexpected exception, but not its message, which may quote
    the visitor's text."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    log.error("%s failed: %s\n%s", what, type(error).__name__, frames)
