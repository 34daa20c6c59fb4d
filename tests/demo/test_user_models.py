"""Models of the visitors', from a Hub in this process."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub.errors import RepositoryNotFoundError

from segmodels import CheckpointError, load_model
from segmodels.demo import user_models


@pytest.fixture
def hub(monkeypatch, tmp_path, networks):
    """Repositories by id, each a folder; and what was asked for."""
    hub = SimpleNamespace(folders={}, downloads=[], caches=[])
    for name, network in {"org/unet": networks[1], "org/segnet": networks[2]}.items():
        network.model.save_pretrained(tmp_path / name)
        hub.folders[name] = tmp_path / name

    class HfApi:
        def __init__(self, token):
            assert token is False

        def model_info(self, hub_id, *, files_metadata, timeout):
            assert files_metadata
            if hub_id not in hub.folders:
                raise RepositoryNotFoundError(
                    "404", response=SimpleNamespace(headers={}, request=None)
                )
            files = hub.folders[hub_id].iterdir()
            siblings = [SimpleNamespace(rfilename=f.name, size=f.stat().st_size) for f in files]
            return SimpleNamespace(siblings=siblings, sha="a1b2")

    def load(hub_id, *, revision, cache_dir, token):
        """From a copy in the cache, as `load_model` does."""
        assert (revision, token) == ("a1b2", False)
        hub.caches.append(Path(cache_dir))
        copy = Path(cache_dir) / "snapshot"
        copy.mkdir()
        for filename in ("config.json", "model.safetensors"):
            hub.downloads.append((hub_id, filename))
            shutil.copy(hub.folders[hub_id] / filename, copy)
        return load_model(copy)

    monkeypatch.setattr(user_models, "HfApi", HfApi)
    monkeypatch.setattr(user_models, "load_model", load)
    return hub


def test_a_network_of_the_hub_is_loaded_once_and_its_files_deleted(hub):
    visitors = user_models.UserModels("cpu")
    network = visitors.get(" org/unet ")
    assert (network.name, network.source, network.title) == ("unet", "org/unet", "U-Net")
    assert visitors.get("org/unet") is network
    assert hub.downloads == [("org/unet", "config.json"), ("org/unet", "model.safetensors")]
    assert not any(cache.exists() for cache in hub.caches)


def test_only_the_last_few_stay_in_memory(hub):
    visitors = user_models.UserModels("cpu", capacity=1)
    first = visitors.get("org/unet")
    visitors.get("org/segnet")
    assert visitors.get("org/unet") is not first


@pytest.mark.parametrize(
    "hub_id",
    ["", "unet", "/etc/passwd", "../../secret", "a/b/c", "org/..", "http://x/y", "~/x", "org/a b"],
)
def test_what_is_no_hub_id_is_refused_without_asking(hub, hub_id):
    with pytest.raises(CheckpointError, match="is not a Hub ID: expected organisation/name"):
        user_models.UserModels("cpu").get(hub_id)
    assert not hub.downloads


def test_folders_of_the_server_are_never_read(hub, monkeypatch):
    monkeypatch.chdir(hub.folders["org/unet"].parents[1])
    with pytest.raises(CheckpointError, match="is a folder on this server"):
        user_models.UserModels("cpu").get("org/unet")


def test_what_is_too_large_is_refused_before_it_is_downloaded(hub, monkeypatch):
    monkeypatch.setattr(user_models, "MAX_BYTES", 1000)
    with pytest.raises(CheckpointError, match=r"model\.safetensors of org/unet is .* at most"):
        user_models.UserModels("cpu").get("org/unet")
    assert not hub.downloads


def test_pickles_alone_are_refused(hub):
    weights = hub.folders["org/unet"] / "model.safetensors"
    weights.rename(weights.with_name("pytorch_model.bin"))
    with pytest.raises(CheckpointError, match=r"org/unet has no model\.safetensors.*pickles"):
        user_models.UserModels("cpu").get("org/unet")
    assert not hub.downloads


def test_files_that_do_not_fit_are_told_of_without_the_servers_folders(hub):
    shutil.copy(hub.folders["org/segnet"] / "config.json", hub.folders["org/unet"])
    with pytest.raises(
        CheckpointError, match=r"org/unet/model\.safetensors does not match"
    ) as error:
        user_models.UserModels("cpu").get("org/unet")
    assert str(hub.caches[0]) not in str(error.value)


def test_what_is_not_there_or_cannot_be_asked_for_is_told_apart(hub, monkeypatch):
    with pytest.raises(CheckpointError, match="there is no public model org/none"):
        user_models.UserModels("cpu").get("org/none")

    def unreachable(*_, **__):
        raise ConnectionError("no route")

    monkeypatch.setattr(user_models.HfApi, "model_info", unreachable)
    with pytest.raises(CheckpointError, match="could not reach the Hub for org/unet"):
        user_models.UserModels("cpu").get("org/unet")


def test_a_network_for_other_than_pictures_is_refused(hub, tmp_path):
    from segmodels import UNet

    UNet(class_names=["a"], in_channels=4, base_channels=2).save_pretrained(tmp_path / "org/four")
    hub.folders["org/four"] = tmp_path / "org/four"
    with pytest.raises(CheckpointError, match=r"org/four: expected a network with 1 or 3"):
        user_models.UserModels("cpu").get("org/four")
