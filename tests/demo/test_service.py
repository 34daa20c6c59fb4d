"""What the page asks for."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segmodels import PictureError
from segmodels.demo.scenes import ExampleFolder
from segmodels.demo.service import ComparisonService, RunTimes
from segmodels.inference.comparison import ModelResult
from segmodels.inference.decoded_image import file_digest
from segmodels.inference.results import LabeledImage
from tests.support.panels import unpacked


def compared(service, path):
    sources = service.sources_of("road", {})
    return list(service.compare(path, file_digest(Path(path)), sources, "road"))


@pytest.fixture
def session(service, street):
    *_, last = compared(service, street)
    return last.session


def test_a_comparison_comes_network_by_network(service, street, networks):
    shown = compared(service, street)
    ready = [[panel["state"] == "ready" for panel in one.masks["panels"]] for one in shown]
    assert [sum(states) for states in ready] == [0, 1, 2, 3]
    assert [one.session is None for one in shown] == [True, True, True, False]
    assert shown[-1].agreement is not None
    assert "Share of the image" in shown[-1].areas
    for network, panel in zip(networks, shown[-1].masks["panels"], strict=False):
        assert np.array_equal(unpacked(panel), network.segmenter(street).class_map)
    assert service.run(street, shown[-1].session.sources, "road").key == shown[-1].session.key


def test_user_models_take_the_place_of_a_scenes_networks(service):
    own = service.sources_of("road", {})
    assert service.sources_of("road", {"unet-camvid": "org/mine"}) == [own[0], "org/mine", own[2]]
    assert service.sources_of("everyday", {"unet-camvid": "org/mine"}) == ["weights_card/unet-msrc"]


def test_what_is_no_picture_is_refused_before_any_network_runs(service, tmp_path):
    (tmp_path / "a.png").write_text("no picture")
    with pytest.raises(PictureError, match="is not an image"):
        next(service.compare(str(tmp_path / "a.png"), "0", service.sources_of("road", {}), "road"))


def test_confidence_is_that_of_the_networks_probabilities(service, session, street, networks):
    *_, view = service.confidence(session)
    assert view["choices"] == ["the predicted class (confidence)", "road", "sky", "car"]
    for network, panel in zip(networks, view["panels"], strict=False):
        probabilities = network.segmenter.probabilities(street)
        assert np.array_equal(unpacked(panel, 0), np.rint(255 * probabilities.max(0)))
        assert np.array_equal(unpacked(panel, 2), np.rint(255 * probabilities[1]))


def test_skips_are_the_stages_of_the_fcn(service, session, street, networks):
    *_, view = service.skips(session)
    assert [panel["title"] for panel in view["panels"]] == ["FCN-32s", "FCN-16s", "FCN-8s"]
    for stride, panel in zip((32, 16, 8), view["panels"], strict=True):
        stage = networks[0].segmenter.at_stride(street, stride)
        assert np.array_equal(unpacked(panel), stage.class_map)


def test_uncertainty_is_of_the_networks_with_dropout(service, session):
    *_, (view, _) = service.uncertainty(session, 3)
    assert [panel["title"] for panel in view["panels"]] == ["FCN-8s", "SegNet-Basic"]
    assert unpacked(view["panels"][0]).shape == (40, 60)
    assert unpacked(view["panels"][0]).any()
    assert service.without_dropout(session) == "Trained without dropout, so not shown: U-Net."


def test_scenes_without_an_fcn_or_dropout_say_so(service, street):
    session = service.run(street, service.sources_of("everyday", {}), "everyday")
    with pytest.raises(ValueError, match="is an FCN with skip connections"):
        next(service.skips(session))
    with pytest.raises(ValueError, match="trained with dropout"):
        next(service.uncertainty(session, 3))


def test_the_truth_is_the_visitors_label(service, session, tmp_path, networks, street):
    ids = networks[1].segmenter(street).class_map
    Image.fromarray(ids).save(tmp_path / "label.png")
    judged = service.truth(session, str(tmp_path / "label.png"))
    view, plot = judged.errors, judged.iou
    assert np.array_equal(unpacked(judged.masks["extras"][0]), ids)
    assert service.masks(session)["extras"] == []
    assert view["panels"][2]["caption"] == "mean IoU 100.0 % · 100.0 % of the pixels right"
    assert not unpacked(view["panels"][2]).any()
    assert "Intersection over union" in plot
    assert service.truth(session, None) is None


def test_an_examples_label_is_found_by_the_pictures_content(networks, street, tmp_path):
    (tmp_path / "labels").mkdir()
    with Image.open(street) as picture:
        picture.convert("RGB").save(tmp_path / "corner.jpg")
    ids = np.zeros((40, 60), np.uint8)
    ids[0] = 255
    Image.fromarray(ids).save(tmp_path / "labels/corner.png")
    (tmp_path / "labels/classes.txt").write_text("car\nroad\n")
    service = ComparisonService(networks, ExampleFolder(tmp_path, is_own=True))
    sources = service.sources_of("road", {})
    copy = tmp_path / "upload.jpg"
    copy.write_bytes((tmp_path / "corner.jpg").read_bytes())
    judged = service.truth(service.run(str(copy), sources, "road"), None)
    view = judged.errors
    assert judged.masks["share"] == "link"
    assert np.array_equal(unpacked(view["panels"][0]), ids)
    assert view["panels"][0]["names"] == ["car", "road"]
    everyday = service.run(str(copy), service.sources_of("everyday", {}), "everyday")
    assert service.truth(everyday, None) is None  # whose networks know neither car nor road


def test_downloads_are_written_and_the_code_names_the_image(service, session, tmp_path):
    files = service.downloads(session, tmp_path)
    assert files[0].name == "my street_segmodels.zip"
    assert files[-1].name == "my street_comparison.png"
    assert len(files) == 10
    assert all(file.stat().st_size for file in files)
    assert 'segmenter("my street.png")' in service.snippet(session)


def test_programs_are_told_the_models_and_scenes(service):
    text = service.programs("https://example.org/demo")
    assert "Models: `fcn-camvid`, `unet-camvid`, `segnet-camvid`, `unet-msrc`." in text
    assert "Scenes: `road`, `everyday`." in text
    assert 'Client("https://example.org/demo")' in text


def test_seconds_are_the_median_of_warm_runs_at_one_size(networks):
    def result(seconds, width=4):
        ids = np.zeros((3, width), np.uint8)
        image = Image.new("RGB", (width, 3))
        return ModelResult(networks[0], LabeledImage(image, ids, ["a"], [[0, 0, 0]]), seconds)

    times = RunTimes(runs=3)
    assert times.medians([result(0)]) == {}
    times.record(result(9.0))  # cold
    assert times.medians([result(0)]) == {}
    for seconds in (5.0, 1.0, 3.0, 2.0):  # the first is forgotten
        times.record(result(seconds))
    assert times.medians([result(0)]) == {networks[0].source: (2.0, 3)}
    assert times.medians([result(0, width=5)]) == {}
