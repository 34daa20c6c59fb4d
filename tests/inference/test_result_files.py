"""Names of result files, and what they record."""

import torch
from PIL import Image

from segmodels import UNet
from segmodels.inference.decoded_image import file_digest
from segmodels.inference.result_files import (
    CLASS_IDS_KIND,
    OVERLAY_KIND,
    Origin,
    is_result,
    model_digest,
    plan_jobs,
)
from segmodels.inference.results import read_metadata, save_png

ORIGIN = Origin("unet", "0" * 64)


def planned(folder, *names):
    """The names of the class ids that are planned for images of these names."""
    jobs = plan_jobs([folder / "in" / name for name in names], folder / "out", ORIGIN)
    assert all(job.overlay.stem == f"{job.class_ids.stem}_overlay" for job in jobs)
    return [job.class_ids.name for job in jobs]


def test_a_result_bears_the_name_of_its_image_where_that_is_free(tmp_path):
    assert planned(tmp_path, "a.png", "b.jpg") == ["a.png", "b.png"]
    assert planned(tmp_path, "a.png", "a.jpg", "d/a.jpg") == ["a.png", "a_jpg.png", "a_2.png"]
    # The name that a number makes may be another image's own.
    assert planned(tmp_path, "x.png", "x_2.png", "d/x.png", "e/x.png") == [
        *("x.png", "x_2.png", "x_png.png", "x_3.png")
    ]


def test_names_that_a_file_system_may_take_for_one_are_told_apart(tmp_path):
    composed, decomposed = "M\u00fcnchen.jpg", "Mu\u0308nchen.jpg"
    assert len({name.casefold() for name in planned(tmp_path, "A.jpg", "a.jpg")}) == 2
    _, second = planned(tmp_path, composed, decomposed)
    assert second == "Mu\u0308nchen_jpg.png"


def test_an_overlays_name_is_no_other_results(tmp_path):
    # a_overlay.png would be both: the overlay of a and the class ids of a_overlay.
    assert planned(tmp_path, "a.png", "a_overlay.png") == ["a.png", "a_overlay_png.png"]
    assert planned(tmp_path, "a_overlay.png", "a.png") == ["a_overlay.png", "a_png.png"]


def test_long_names_are_cut_to_what_a_file_system_takes_and_stay_apart(tmp_path):
    names = planned(tmp_path, "街" * 84 + ".png", "街" * 84 + ".jpg", "d/" + "街" * 84 + ".jpg")
    assert len(set(names)) == 3
    for name in names:
        assert len(name.replace(".png", "_overlay.png").encode()) <= 255


def test_what_is_not_of_this_image_and_model_is_left_alone(tmp_path):
    image = tmp_path / "in" / "a.png"
    image.parent.mkdir()
    (tmp_path / "out").mkdir()
    Image.new("RGB", (2, 2)).save(image)

    def leave(*, digest, origin):
        one = Image.new("P", (2, 2))
        save_png(one, tmp_path / "out/a.png", metadata=origin.metadata(digest, CLASS_IDS_KIND))
        overlay = tmp_path / "out/a_overlay.png"
        save_png(one, overlay, metadata=origin.metadata(digest, OVERLAY_KIND))
        return plan_jobs([image], tmp_path / "out", ORIGIN)[0]

    digest = file_digest(image)
    same = leave(digest=digest, origin=ORIGIN)
    assert (same.class_ids.name, same.is_done, same.may_replace) == ("a.png", True, True)
    redrawn = leave(digest=digest, origin=Origin("unet", "0" * 64, opacity=0.9))
    assert (redrawn.class_ids.name, redrawn.is_done, redrawn.may_replace) == ("a.png", False, True)
    for other in (
        leave(digest="1" * 64, origin=ORIGIN),
        leave(digest=digest, origin=Origin("unet", "1" * 64)),
        leave(digest=digest, origin=Origin("unet", "0" * 64, working_size=99)),
    ):
        assert (other.is_done, other.may_replace) == (False, False)
        assert other.class_ids.name != "a.png"


def test_a_models_digest_is_its_weights_and_its_configuration():
    def model(**arguments):
        torch.manual_seed(0)
        return UNet(**({"class_names": ["a", "b"], "base_channels": 1} | arguments))

    same = model_digest(model())
    assert same == model_digest(model())
    assert same != model_digest(model(class_names=["b", "a"]))
    other = model()
    with torch.no_grad():
        other.heatmaps.bias[0] += 1e-3
    assert same != model_digest(other)


def test_results_are_known_by_their_metadata_alone(tmp_path):
    image = Image.new("RGB", (2, 2))
    image.save(tmp_path / "plain.png")
    save_png(image, tmp_path / "result", metadata=ORIGIN.metadata("1" * 64, OVERLAY_KIND))
    (tmp_path / "notes.txt").write_text("text")
    assert is_result(tmp_path / "result")
    assert not any(is_result(tmp_path / name) for name in ("plain.png", "notes.txt", "missing", ""))
    found = read_metadata(tmp_path / "result")
    assert (found["image_sha256"], found["model"], found["opacity"]) == ("1" * 64, "unet", "0.5")
