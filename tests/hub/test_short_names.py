"""Short names of pretrained networks, of folders and on the loopback Hub."""

import pytest

import segmodels
from segmodels import UNet, load_model
from segmodels.hub import short_names
from segmodels.hub.short_names import missing_folder, resolve_source

LIST = """
import os
os.environ["SEGMODELS_HUB_ORG"] = organisation
import segmodels
result = segmodels.list_models()
"""
LOAD = """
import os
os.environ["SEGMODELS_HUB_ORG"] = organisation
from segmodels import load_model
result = load_model(name, cache_dir=cache).class_names
"""


@pytest.fixture
def working_folder(tmp_path, monkeypatch):
    """A working directory with weights_card/unet-cells, away from the clone's own."""
    UNet(class_names=["cell", "other"], base_channels=1).save_pretrained(
        tmp_path / "weights_card" / "unet-cells"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SEGMODELS_HUB_ORG", raising=False)
    monkeypatch.setattr(short_names, "__file__", str(tmp_path / "elsewhere/segmodels/hub/x.py"))
    return tmp_path


def test_a_short_name_finds_the_folder_of_a_clone(working_folder):
    assert segmodels.list_models() == ["unet-cells"]
    assert load_model("unet-cells").class_names == ["cell", "other"]


def test_a_folder_of_that_name_in_the_working_directory_comes_first(working_folder):
    UNet(class_names=["near"], base_channels=1).save_pretrained(working_folder / "unet-cells")
    assert load_model("unet-cells").class_names == ["near"]


@pytest.mark.weights
def test_the_published_networks_have_short_names_wherever_one_works(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert {"fcn-camvid", "unet-camvid", "segnet-camvid"} <= set(segmodels.list_models())


def test_without_an_organisation_a_short_name_is_never_looked_up_on_the_hub(working_folder):
    assert resolve_source("unet-roads") == "unet-roads"
    with pytest.raises(
        segmodels.CheckpointError, match="no pretrained network has this short name"
    ):
        load_model("unet-roads")


@pytest.mark.parametrize("source", ["org/unet-cells", "a/b/c", "./unet-cells", "..", ".", ""])
def test_ids_and_paths_are_not_short_names(working_folder, monkeypatch, source):
    monkeypatch.setenv("SEGMODELS_HUB_ORG", "other")
    assert resolve_source(source) == source


def test_an_id_is_not_taken_for_a_folder_where_there_is_none_of_the_organisation(working_folder):
    assert missing_folder("org/unet-cells") is None
    assert missing_folder("weights_card/fcn-cells") == (
        "there is no folder weights_card/fcn-cells (did you mean weights_card/unet-cells?)"
    )


def test_an_organisations_networks_are_listed_and_load_by_short_name(hub, client, tmp_path):
    UNet(class_names=["cell", "other"], base_channels=1).save_pretrained(tmp_path / "model")
    files = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    hub.publish("shortnames/unet-roads", files)
    hub.publish("shortnames/bert", {"README.md": b"of another library"})
    hub.publish("elsewhere/unet-roads", files)
    names = client.result(LIST, organisation="shortnames")
    assert "unet-roads" in names
    assert "bert" not in names
    cache = str(tmp_path / "cache")
    loaded = client.result(LOAD, organisation="shortnames", name="unet-roads", cache=cache)
    assert loaded == ["cell", "other"]


def test_where_the_hub_cannot_be_asked_the_folders_are_listed_with_a_warning(hub, client):
    hub.stop()
    try:
        answer = client.run(LIST, organisation="shortnames")
    finally:
        hub.start()
    assert answer.error is None
    assert "the Hub models of shortnames cannot be listed" in answer.err
