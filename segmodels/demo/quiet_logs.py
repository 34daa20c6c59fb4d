"""Logs without visitors' text: what Gradio and uvicorn print of a request that goes wrong."""

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
# Of uvicorn, one for each request that is turned away.
REPEATED = ("Exceeded concurrency limit.", "Invalid HTTP request received.")


def install() -> None:
    """Replace Gradio's printing of tracebacks, which it has no option for, and silence warnings
    that visitors' files cause."""
    for module in (queueing, route_utils, routes):
        vars(module)["traceback"] = _Reports
    logging.getLogger("uvicorn.error").addFilter(lambda record: record.msg not in REPEATED)
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # warns of each malformed form
    warnings.filterwarnings("ignore", module=r"PIL\.")  # about damaged metadata


class _Reports:
    """In place of the module `traceback`, within Gradio."""

    @staticmethod
    def print_exc() -> None:
        error = sys.exc_info()[1]
        if error is not None and not is_expected(error):
            log_failure("a call", error)


def is_expected(error: BaseException) -> bool:
    """Whether the visitor's input is the cause: ours raise `gr.Error`; for Gradio's own, they are
    ValueErrors (pydantic's too) of its checks before a function is called."""
    if isinstance(error, gr.Error | InvalidPathError):
        return True
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if Path(frame.filename).is_relative_to(PACKAGE)]
    is_output = any(frame.name == "postprocess_data" for frame in frames)
    return isinstance(error, ValueError) and not ours and not is_output


def log_failure(what: str, error: BaseException) -> None:
    """Log an unexpected exception: its kind and where it was raised, but not its text, in which a
    visitor's may be quoted."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    log.error("%s failed: %s\n%s", what, type(error).__name__, frames)
