"""`segmodels demo`."""

import sys
from types import SimpleNamespace

import pytest

from segmodels.cli import demo
from segmodels.cli.main import main


def with_page(monkeypatch, serve):
    """`segmodels demo` calls `serve` in place of the page's own `main`."""
    monkeypatch.setitem(sys.modules, "segmodels.demo.page", SimpleNamespace(main=serve))


def test_demo_listens_where_gradio_does_unless_it_is_told(monkeypatch):
    asked = []
    with_page(monkeypatch, lambda **where: asked.append(where))
    assert main(["demo"]) == 0
    assert main(["demo", "--host", "0.0.0.0", "--port", "7000"]) == 0
    assert asked == [{"host": None, "port": None}, {"host": "0.0.0.0", "port": 7000}]


def test_without_gradio_the_extra_is_named_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr(demo, "find_spec", lambda name: None)
    assert main(["demo"]) == 1
    error = capsys.readouterr().err
    assert error == 'segmodels: the demo needs Gradio: pip install "segmodels[demo]"\n'


def test_help_needs_no_gradio(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)  # importing it fails
    with pytest.raises(SystemExit, match="0"):
        main(["demo", "--help"])
    assert "SEGMODELS_MODELS" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError("Cannot find empty port"), "Cannot find empty port"),
        (OSError(28, "No space left on device", "masks"), "masks: No space left on device"),
    ],
)
def test_an_error_of_the_system_names_a_file_only_if_there_is_one(error, told, monkeypatch, capsys):
    def fail(**_):
        raise error

    with_page(monkeypatch, fail)
    assert main(["demo"]) == 1
    assert capsys.readouterr().err == f"segmodels: {told}\n"
