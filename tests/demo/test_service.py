"""What the page asks for."""

import numpy as np
import pytest
from PIL import Image

from segmodels import PictureError
from segmodels.demo.service import Host
from tests.conftest import unpacked


@pytest.fixture
def visit(host, street):
    *_, last = host.compare(street, host.line_up("road", {}), "road")
    return last.visit


def test_a_comparison_comes_network_by_network(host, street, networks):
    shown = list(host.compare(street, host.line_up("road", {}), "road"))
    ready = [[panel["state"] == "ready" for panel in one.masks["panels"]] for one in shown]
    assert [sum(states) for states in ready] == [0, 1, 2, 3]
    assert [one.visit is None for one in shown] == [True, True, True, False]
    assert shown[-1].agreement is not None
    assert "Share of the picture" in shown[-1].areas
    for network, panel in zip(networks, shown[-1].masks["panels"], strict=False):
        assert np.array_equal(unpacked(panel), network.segmenter(street).class_map)
    assert host.visit(street, shown[-1].visit.sources, "road").asked == shown[-1].visit.asked


def test_guests_take_the_place_of_a_scenes_networks(host):
    own = host.line_up("road", {})
    assert host.line_up("road", {"unet-camvid": "org/mine"}) == [own[0], "org/mine", own[2]]
    assert host.line_up("everyday", {"unet-camvid": "org/mine"}) == ["weights_card/unet-msrc"]


def test_what_is_no_picture_is_refused_before_any_network_runs(host, tmp_path):
    (tmp_path / "a.png").write_text("no picture")
    with pytest.raises(PictureError, match="is not a picture"):
        next(host.compare(str(tmp_path / "a.png"), host.line_up("road", {}), "road"))


def test_confidence_is_that_of_the_networks_probabilities(host, visit, street, networks):
    *_, view = host.confidence(visit)
    assert view["choices"] == ["the winning class (confidence)", "road", "sky", "car"]
    for network, panel in zip(networks, view["panels"], strict=False):
        probabilities = network.segmenter.probabilities(street)
        assert np.array_equal(unpacked(panel, 0), np.rint(255 * probabilities.max(0)))
        assert np.array_equal(unpacked(panel, 2), np.rint(255 * probabilities[1]))


def test_skips_are_the_stages_of_the_fcn(host, visit, street, networks):
    *_, view = host.skips(visit)
    assert [panel["title"] for panel in view["panels"]] == ["Stage 32s", "Stage 16s", "Stage 8s"]
    for stride, panel in zip((32, 16, 8), view["panels"], strict=True):
        stage = networks[0].segmenter.at_stride(street, stride)
        assert np.array_equal(unpacked(panel), stage.class_map)


def test_uncertainty_is_of_the_networks_with_dropout(host, visit):
    *_, view = host.uncertainty(visit, 3)
    assert [panel["title"] for panel in view["panels"]] == ["FCN-8s", "SegNet"]
    assert unpacked(view["panels"][0]).shape == (40, 60)
    assert unpacked(view["panels"][0]).any()
    assert host.without_dropout(visit) == "Trained without dropout, so not here: U-Net."


def test_scenes_without_an_fcn_or_dropout_say_so(host, street):
    visit = host.visit(street, host.line_up("everyday", {}), "everyday")
    with pytest.raises(ValueError, match="is an FCN with skips"):
        next(host.skips(visit))
    with pytest.raises(ValueError, match="has dropout"):
        next(host.uncertainty(visit, 3))


def test_the_truth_is_the_visitors_label(host, visit, tmp_path, networks, street):
    ids = networks[1].segmenter(street).class_map
    Image.fromarray(ids).save(tmp_path / "label.png")
    view, plot = host.truth(visit, str(tmp_path / "label.png"))
    assert view["panels"][2]["caption"] == "mean IoU 100.0 % · 100.0 % of the pixels right"
    assert not unpacked(view["panels"][2]).any()
    assert "Intersection over union" in plot
    assert host.truth(visit, None) is None


def test_an_examples_label_is_found_by_the_pictures_content(networks, street, tmp_path):
    (tmp_path / "labels").mkdir()
    with Image.open(street) as picture:
        picture.convert("RGB").save(tmp_path / "corner.jpg")
    ids = np.zeros((40, 60), np.uint8)
    ids[0] = 255
    Image.fromarray(ids).save(tmp_path / "labels/corner.png")
    (tmp_path / "labels/classes.txt").write_text("car\nroad\n")
    host = Host(networks, tmp_path)
    sources = host.line_up("road", {})
    copy = tmp_path / "upload.jpg"
    copy.write_bytes((tmp_path / "corner.jpg").read_bytes())
    view, _ = host.truth(host.visit(str(copy), sources, "road"), None)
    assert np.array_equal(unpacked(view["panels"][0]), ids)
    assert view["panels"][0]["names"] == ["car", "road"]
    everyday = host.visit(str(copy), host.line_up("everyday", {}), "everyday")
    assert host.truth(everyday, None) is None  # whose networks know neither car nor road


def test_what_is_taken_away_is_written_and_reproduced(host, visit, tmp_path):
    shared, files = host.take(visit, tmp_path)
    assert shared.name == "my street_comparison.png"
    assert len(files) == 7
    assert all(file.stat().st_size for file in (shared, *files))
    assert 'segmenter("my street.png")' in host.snippet(visit)


def test_programs_are_told_the_models_and_scenes(host):
    text = host.programs()
    assert "Models: `fcn-camvid`, `unet-camvid`, `segnet-camvid`, `unet-msrc`." in text
    assert "Scenes: `road`, `everyday`." in text
