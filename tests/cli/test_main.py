"""The command line, as a user types it."""

import io
import json
import os
import subprocess
import sys

import pytest

from segmodels import UNet, __version__
from segmodels.cli.main import COMMANDS, main
from tests.support.datasets import write_camvid

NAMES = [command.__name__.rpartition(".")[2] for command in COMMANDS]


def test_it_can_be_called_as_a_module_and_says_its_version():
    command = [sys.executable, "-m", "segmodels", "--version"]
    assert subprocess.check_output(command, text=True).split() == ["segmodels", __version__]


def test_a_missing_training_library_is_named_with_what_to_do(model, tmp_path, monkeypatch, capsys):
    def import_scipy(*_, **__):
        raise ModuleNotFoundError("No module named 'scipy'", name="scipy")

    monkeypatch.setattr("segmodels.evaluation.evaluator.evaluate", import_scipy)
    data = write_camvid(tmp_path / "data", test=1)
    assert main(["evaluate", "--model", str(model), "--data", str(data)]) == 1
    printed = capsys.readouterr().err
    assert 'needs scipy: pip install "segmodels[train]"' in printed
    assert "run.py" in printed


def write_in(encoding, monkeypatch):
    """Stdout becomes a stream of this encoding; the result gives what was written."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict")
    monkeypatch.setattr("sys.stdout", stream)

    def written():
        stream.flush()
        return stream.buffer.getvalue().decode(encoding)

    return written


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
@pytest.mark.parametrize("name", NAMES)
def test_help_can_be_written_in_every_encoding(name, encoding, monkeypatch):
    written = write_in(encoding, monkeypatch)
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == 0
    assert written().startswith(f"usage: segmodels {name}")


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_what_the_encoding_lacks_is_escaped_and_nothing_is_lost(encoding, tmp_path, monkeypatch):
    names = ["ground", "木", "sky"]
    model, metrics = tmp_path / "model", tmp_path / "metrics.json"
    UNet(class_names=names, base_channels=2).save_pretrained(model)
    data = write_camvid(tmp_path / "data", class_names=names, test=1)
    written = write_in(encoding, monkeypatch)
    command = ["evaluate", "--model", str(model), "--data", str(data), "--json", str(metrics)]
    assert main(command) == 0
    assert "\\u6728" in written()
    assert set(json.loads(metrics.read_text(encoding="utf-8"))["classes"]) == set(names)


def test_ctrl_c_is_one_line_and_status_130(model, pictures, monkeypatch, capsys):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("segmodels.cli.predict.run", interrupted)
    assert main(["predict", str(pictures), "--model", str(model)]) == 130
    assert capsys.readouterr().err == "segmodels: interrupted\n"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGPIPE and no poll")
@pytest.mark.parametrize("arguments", [["--version"], ["train", "--help"]])
def test_a_closed_pipe_is_no_error(arguments):
    reading, writing = os.pipe()
    os.close(reading)
    result = subprocess.run(
        [sys.executable, "-m", "segmodels", *arguments],
        stdout=writing,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writing)
    assert (result.returncode, result.stderr) == (0, b"")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGPIPE and no poll")
def test_a_broken_pipe_to_something_else_is_an_error(model, pictures, monkeypatch, capfd):
    def broken(_):
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("segmodels.cli.predict.run", broken)
    assert main(["predict", str(pictures), "--model", str(model)]) == 1
    assert "Broken pipe: a process or connection ended unexpectedly" in capfd.readouterr().err
