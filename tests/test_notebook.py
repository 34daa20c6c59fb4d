"""The notebook in examples/, from top to bottom, against a Hub on the loopback interface."""

import nbformat
import pytest
from nbclient import NotebookClient

from segmodels import FCN, SegNet, UNet
from tests.support.serving import PATIENCE, ROOT

NOTEBOOK = ROOT / "examples" / "three_networks.ipynb"
MAX_BYTES = 500_000
CAMVID = ["sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car"]
CAMVID += ["pedestrian", "bicyclist"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Jupyter's own libraries
def test_the_notebook_runs(hub, tmp_path, monkeypatch):
    """With small networks by the published names, so that it takes seconds."""
    road = {"class_names": CAMVID, "working_size": 96}
    UNet(base_channels=2, **road).save_pretrained(tmp_path / "unet-camvid")
    FCN(head_channels=8, **road).save_pretrained(tmp_path / "fcn-camvid")
    SegNet(variant="basic", **road).save_pretrained(tmp_path / "segnet-camvid")
    environment = {
        "SEGMODELS_WEIGHTS": str(tmp_path),
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "hf-home"),
        "HF_TOKEN": "alice-token",
        "HF_HUB_DISABLE_XET": "1",
        "PYTHONPATH": str(ROOT),
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    resources = {"metadata": {"path": str(NOTEBOOK.parent)}}
    NotebookClient(notebook, timeout=PATIENCE, resources=resources).execute()
    printed = "".join(output.get("text", "") for output in notebook.cells[-1].outputs)
    assert "pulled the same weights: True" in printed


def test_the_notebook_keeps_small_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert NOTEBOOK.stat().st_size <= MAX_BYTES
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    assert sum(bool(cell.outputs) for cell in code) >= len(code) // 2
