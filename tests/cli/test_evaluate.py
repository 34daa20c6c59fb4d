"""`segmodels evaluate`."""

import json

from segmodels.cli.main import main
from tests.support.datasets import CLASS_NAMES, write_camvid


def test_evaluate_prints_a_table_and_writes_json(model, tmp_path, capsys):
    data = write_camvid(tmp_path / "data", test=3)
    figures = tmp_path / "figures.json"
    command = ["evaluate", "--model", str(model), "--data", str(data), "--json", str(figures)]
    assert main(command) == 0
    written = json.loads(figures.read_text())
    printed = capsys.readouterr().out
    assert written["pictures"] == 3
    assert f"{100 * written['mean_iou']:.2f}" in printed
    assert all(name in printed for name in CLASS_NAMES)


def test_evaluate_tells_of_missing_data(model, tmp_path, capsys):
    assert main(["evaluate", "--model", str(model), "--data", str(tmp_path)]) == 1
    assert "has no split 'test'" in capsys.readouterr().err
