"""`segmodels predict`."""

import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from segmodels import Segmenter, UNet, load_model
from segmodels.cli.main import main
from segmodels.inference.results import read_metadata
from tests.support.clips import write_clip


def test_predict_writes_exact_ids_and_overlays(model, pictures, tmp_path, capsys):
    out = tmp_path / "out"
    assert (
        main(["predict", str(pictures / "b.webp"), "--model", str(model), "--out", str(out)]) == 0
    )
    expected = Segmenter(load_model(model))(pictures / "b.webp")
    with Image.open(out / "b.png") as ids:
        assert np.array_equal(np.array(ids), expected.class_map)
    with Image.open(out / "b_overlay.png") as overlay:
        assert np.array_equal(np.array(overlay), np.array(expected.overlay(0.5)))
    assert "1 of 1 images" in capsys.readouterr().out


def test_predict_opens_folders_and_keeps_equal_stems_apart(model, pictures, tmp_path):
    out = tmp_path / "out"
    assert main(["predict", str(pictures), "--model", str(model), "--out", str(out)]) == 0
    names = {path.name for path in out.iterdir()}
    assert names == {
        *("a.png", "a_overlay.png", "a_png.png", "a_png_overlay.png", "b.png", "b_overlay.png")
    }
    with Image.open(out / "a_png.png") as ids:
        expected = Segmenter(load_model(model))(pictures / "a.png").class_map
        assert np.array_equal(np.array(ids), expected)


def test_one_bad_picture_is_reported_and_the_rest_go_on(model, pictures, tmp_path, capsys):
    (pictures / "b.webp").write_bytes(b"cut off")
    out = tmp_path / "out"
    assert main(["predict", str(pictures), "--model", str(model), "--out", str(out)]) == 1
    printed = capsys.readouterr()
    assert "2 of 3 images" in printed.out
    assert "b.webp" in printed.err
    assert (out / "a.png").exists()
    assert not (out / "b.png").exists()


def contents(folder):
    """{name: bytes} of the files of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def image_file(path, size=(30, 20), color="red"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)
    return path


def predict(model, out, *arguments):
    """Run `predict` on the CPU, and give the exit status."""
    return main(["predict", *map(str, arguments), "--model", str(model), "--out", str(out)])


def test_results_beside_the_images_leave_every_image_as_it_was(model, pictures, capsys):
    before = contents(pictures)
    for _ in range(2):  # the second run finds its own results and does not segment them
        assert predict(model, pictures, pictures) == 0
        after = contents(pictures)
        assert before.items() <= after.items()
        assert len(after) == len(before) + 2 * 3
    assert "6 results of an earlier run are not segmented again" in capsys.readouterr().out


def test_what_is_in_the_output_folder_already_stays(model, pictures, tmp_path, capsys):
    out = tmp_path / "out"
    image_file(out / "b.png", color="blue")
    (out / "a_overlay.png").write_text("the user's own notes")
    before = contents(out)
    assert predict(model, out, pictures) == 0
    assert before.items() <= contents(out).items()
    assert len(contents(out)) == 2 + 2 * 3
    assert "b.webp -> b_webp.png: the name was taken" in capsys.readouterr().out


def test_every_image_has_two_results_whatever_the_names(model, tmp_path):
    for name in (
        "street.jpg",
        "street_overlay.jpg",
        "STREET.jpg",
        "d1/street.jpg",
        "d2/street.jpg",
    ):
        image_file(tmp_path / "in" / name)
    folders = [tmp_path / "in", tmp_path / "in/d1", tmp_path / "in/d2"]
    out = tmp_path / "out"
    assert predict(model, out, *folders, tmp_path / "in" / "street.jpg") == 0  # that one twice
    names = list(contents(out))
    assert len({name.casefold() for name in names}) == len(names) == 2 * 5
    kinds = [read_metadata(out / name)["kind"] for name in names]
    assert sorted(kinds) == ["class ids"] * 5 + ["overlay"] * 5


def test_names_of_any_length_are_written(model, tmp_path):
    stems = ["a" * 251, "街" * 83, "b" * 240]  # 251, 249 and 240 bytes
    for stem in stems:
        image_file(tmp_path / "in" / f"{stem}.png")
    out = tmp_path / "out"
    assert predict(model, out, tmp_path / "in") == 0
    assert len(contents(out)) == 2 * 3
    assert (out / f"{'b' * 240}_overlay.png").exists()


def test_a_result_that_cannot_be_written_leaves_the_others_theirs(
    model, pictures, tmp_path, monkeypatch, capsys
):
    save = Image.Image.save

    def full(self, path, **options):
        if self.size == (7, 5):
            raise OSError(28, "No space left on device")
        save(self, path, **options)

    image_file(pictures / "c.png", size=(7, 5))
    monkeypatch.setattr(Image.Image, "save", full)
    out = tmp_path / "out"
    assert predict(model, out, pictures) == 1
    assert len(contents(out)) == 2 * 3
    printed = capsys.readouterr()
    assert "3 of 4 images segmented" in printed.out
    assert "c.png: No space left on device" in printed.err


def test_resume_takes_only_results_of_the_same_image_and_model(model, tmp_path):
    first = image_file(tmp_path / "d1/x.png", (50, 40), "red")
    second = image_file(tmp_path / "d2/x.png", (64, 48), "green")
    out = tmp_path / "out"
    assert predict(model, out, second) == 0
    before = contents(out)
    assert predict(model, out, first, second, "--resume") == 0
    assert before.items() <= contents(out).items()
    assert len(contents(out)) == 4
    sizes = set()
    for name in contents(out):
        with Image.open(out / name) as image:
            sizes.add(image.size)
    assert sizes == {(50, 40), (64, 48)}

    other = tmp_path / "other"
    UNet(class_names=load_model(model).class_names, base_channels=2).save_pretrained(other)
    before = contents(out)
    assert predict(other, out, second, "--resume") == 0  # another model of the same kind
    assert before.items() <= contents(out).items()
    assert len(contents(out)) == 6


def test_resume_computes_only_what_is_missing(model, pictures, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    assert predict(model, out, pictures) == 0
    complete = contents(out)
    (out / "b_overlay.png").unlink()
    shutil.copy(pictures / "b.webp", pictures / "equal.webp")
    segmented = []
    original = Segmenter.segment_batch

    def recorded(self, images, pixels):
        segmented.extend(images)
        return original(self, images, pixels)

    monkeypatch.setattr(Segmenter, "segment_batch", recorded)
    capsys.readouterr()
    assert predict(model, out, pictures, "--resume") == 0
    assert len(segmented) == 2
    assert "2 of them already had results" in capsys.readouterr().out
    after = contents(out)
    assert complete.items() <= after.items()
    assert set(after) == set(complete) | {"equal.png", "equal_overlay.png"}


def test_another_opacity_draws_the_overlay_anew(model, pictures, tmp_path):
    out = tmp_path / "out"
    assert predict(model, out, pictures) == 0
    before = contents(out)
    assert predict(model, out, pictures, "--resume", "--opacity", "0.9") == 0
    after = contents(out)
    assert set(after) == set(before)
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {name for name in after if name.endswith("_overlay.png")}
    assert predict(model, out, pictures, "--resume", "--working-size", "16") == 0
    assert after.items() <= contents(out).items()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "no/where/at all"], "there is no folder no/where/at all"),
        (["--opacity", "2"], "--opacity must be between 0 and 1"),
        (["--working-size", "0"], "--working-size must be at least 1"),
        (["--device", "cuda:77"], "cuda:77"),
        (["--device", "toaster"], "toaster"),
    ],
)
def test_mistakes_are_told_without_a_traceback(arguments, message, model, pictures, capsys):
    command = ["predict", str(pictures), "--model", str(model), *arguments]
    assert main(command) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("segmodels: ")
    assert message in printed


def test_an_empty_folder_is_told(model, tmp_path, capsys):
    assert main(["predict", str(tmp_path), "--model", str(model)]) == 1
    assert "contains no image files" in capsys.readouterr().err


def test_predict_takes_videos_beside_images(model, pictures, tmp_path, capsys):
    clip = write_clip(tmp_path / "clip.mp4", sound=True)
    broken = tmp_path / "broken.webm"
    broken.write_bytes(b"no video")
    out = tmp_path / "out"
    command = ["predict", str(clip), str(broken), str(pictures / "a.png")]
    options = ["--model", str(model), "--out", str(out)]
    assert main([*command, *options]) == 1
    printed = capsys.readouterr()
    assert "1 of 2 videos segmented" in printed.out
    assert "1 of 1 images segmented" in printed.out
    assert "clip.mp4: the results have no sound" in printed.err
    assert "broken.webm is not a video of a supported format" in printed.err
    names = {path.name for path in out.iterdir()}
    assert names == {"a.png", "a_overlay.png", "clip.mkv", "clip_overlay.mp4"}
    assert main(["predict", str(clip), *options, "--resume"]) == 0
    assert "1 of them already had results" in capsys.readouterr().out


def test_predict_without_pyav_says_how_to_install_it(model, tmp_path, capsys, monkeypatch):
    clip = write_clip(tmp_path / "clip.mp4")
    monkeypatch.setitem(sys.modules, "av", None)
    assert main(["predict", str(clip), "--model", str(model), "--out", str(tmp_path / "out")]) == 1
    assert 'pip install "segmodels[video]"' in capsys.readouterr().err
