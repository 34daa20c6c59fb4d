"""Model cards."""

import json
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import ModelCard
from PIL import Image

from segmodels import CheckpointError, SegNet, UNet
from segmodels.cli.main import main
from segmodels.evaluation.model_card import (
    read_card_info,
    record_evaluation,
    weakest_classes,
    write_card,
    write_card_info,
)
from segmodels.evaluation.qualitative import MAX_EXAMPLES_BYTES
from tests.support.hub_validator import card_errors

CARDS = Path(__file__).parents[2] / "weights_card"
PUBLISHED_CARDS = sorted(path.parent.name for path in CARDS.glob("*/evaluation.json"))
EVALUATION = {
    "split": "test",
    "pictures": 2,
    "mean_iou": 0.61234,
    "pixel_accuracy": 0.9,
    "mean_accuracy": 0.7,
    "frequency_weighted_iou": 0.8,
    "boundary_f1": None,
    "classes": {
        "road": {"iou": 0.9, "accuracy": 0.95, "boundary_f1": 0.5},
        "sky": {"iou": None, "accuracy": None, "boundary_f1": None},
    },
}
TRAINING = {"network": "unet", "data": "camvid", "epochs": 3, "crop": [256, 320], "dropout": None}


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "unet-camvid"
    UNet(class_names=["road", "sky"], base_channels=2).save_pretrained(folder)
    (folder / "evaluation.json").write_text(json.dumps(EVALUATION))
    (folder / "training.json").write_text(json.dumps(TRAINING))
    (folder / "card.json").write_text(json.dumps({"dataset": "camvid"}))
    return folder


def test_the_metadata_is_valid_and_holds_the_measured_metrics(folder):
    data = ModelCard.load(write_card(folder)).data
    assert data.library_name == "segmodels"
    assert data.pipeline_tag == "image-segmentation"
    assert data.model_name == "unet-camvid"
    metrics = {result.metric_type: result.metric_value for result in data.eval_results}
    assert metrics["mean_iou"] == 0.6123
    assert "boundary_f1" not in metrics  # was not measured


def test_the_text_holds_the_metrics_and_the_command(folder):
    text = write_card(folder).read_text()
    assert "| **U-Net, these weights** | 61.23 | 90.00 | 70.00 | - |" in text
    assert "| road | 90.00 | - | - | 95.00 | 50.00 |" in text
    assert "| sky | - | - | - | - | - |" in text
    assert "segmodels train unet \\\n    --out unet-camvid \\\n    --data camvid" in text
    assert "--crop 256 320" in text
    assert "dropout" not in text


def test_the_cards_command_is_one_that_the_command_line_takes(folder, tmp_path, capsys):
    new = {
        "schedule": "onecycle",
        "ema": 0.999,
        "elastic": 10.0,
        "border_weight": 10.0,
        "lovasz": 1.0,
    }
    (folder / "training.json").write_text(json.dumps({**TRAINING, **new}))
    text = write_card(folder).read_text()
    command = text.split("```bash\nsegmodels ")[1].split("```")[0].replace("\\\n", "").split()
    command[command.index("camvid")] = str(tmp_path / "nowhere")
    assert main(command) == 1  # every option was known: what it lacks is the data
    assert "there is no folder" in capsys.readouterr().err


def test_a_training_in_stages_has_a_command_for_each(folder):
    first = {**TRAINING, "epochs": 5, "vgg16": "vgg16.safetensors"}
    both = {**TRAINING, "start": "unet-camvid", "start_training": first}
    (folder / "training.json").write_text(json.dumps(both))
    text = write_card(folder).read_text()
    earlier, later = text.split("segmodels train unet")[1:]
    assert "--out unet-camvid-stage-1" in earlier
    assert "--epochs 5" in earlier
    assert "--start" not in earlier
    assert "--out unet-camvid \\" in later
    assert "--start unet-camvid-stage-1" in later
    assert "start-training" not in text
    assert "initialised from VGG16's ImageNet weights" in text


def test_a_start_whose_training_is_not_recorded_is_named(folder):
    (folder / "training.json").write_text(json.dumps({**TRAINING, "start": "org/unet"}))
    text = write_card(folder).read_text()
    assert "--start org/unet" in text
    assert "started from the weights of `org/unet`" in text


def test_the_published_metrics_stand_beside_ours_where_there_are_any(folder, tmp_path):
    assert (
        "| no published result on this test set | - | - | - | - |" in write_card(folder).read_text()
    )
    segnet = tmp_path / "segnet-camvid"
    SegNet(class_names=["road", "sky"], variant="basic").save_pretrained(segnet)
    (segnet / "evaluation.json").write_text(json.dumps(EVALUATION))
    write_card_info(segnet, {"dataset": "camvid"})
    text = write_card(segnet).read_text()
    assert "| SegNet, 3,433 images (SegNet paper) | 60.10 | 90.40 | 71.20 | 46.84 |" in text
    assert "no published result" not in text


def test_a_card_says_where_the_network_fails(folder):
    assert "## Where it fails\n\nNot recorded." in write_card(folder).read_text()
    matrix = [[90, 10], [30, 70]]
    (folder / "evaluation.json").write_text(json.dumps({**EVALUATION, "confusion_matrix": matrix}))
    text = write_card(folder).read_text()
    assert (
        "- **sky** (IoU 63.64 %): 70 % of its pixels are classified correctly, 30 % as road."
        in text
    )


NAMES = ["sky", "road", "pole", "cat"]


def test_the_weakest_classes_in_words_by_hand():
    # Rows are the target. pole: 40 of 100 found, 50 taken for sky, 10 for road; predicted as pole
    # are 40 + 120: IoU 40 / (100 + 120) = 18.18 %, and of the 160, 75 % is road. road: 80 of 200.
    matrix = np.array([[900, 0, 0, 0], [0, 80, 120, 0], [50, 10, 40, 0], [0, 0, 0, 0]])
    pole, road = weakest_classes(matrix, NAMES, count=2)
    assert pole == (
        "**pole** (IoU 18.18 %): 40 % of its pixels are classified correctly, 50 % as sky and 10 % "
        "as road. Of the pixels predicted as pole, 75 % are road."
    )
    # road: IoU 80 / (200 + 10), 60 % taken for pole; of 90 predicted as road, 11 % is pole.
    assert road == (
        "**road** (IoU 38.10 %): 40 % of its pixels are classified correctly, 60 % as pole. Of the "
        "pixels predicted as road, 11 % are pole."
    )


def test_what_is_right_needs_no_more_words():
    (line,) = weakest_classes(np.diag([100, 0]), ["sky", "road"])
    assert line == "**sky** (IoU 100.00 %): 100 % of its pixels are classified correctly."


def test_absent_classes_are_not_weak():
    assert weakest_classes(np.zeros((2, 2), np.int64), ["a", "b"]) == []


def test_the_confusion_matrix_of_an_earlier_version_gives_dice_and_precision(folder):
    # road: 90 found of 100, 30 of sky taken for it: Dice 180 / (100 + 120), precision 90 / 120.
    matrix = [[90, 10], [30, 70]]
    (folder / "evaluation.json").write_text(json.dumps({**EVALUATION, "confusion_matrix": matrix}))
    text = write_card(folder).read_text()
    assert "| road | 90.00 | 81.82 | 75.00 | 95.00 | 50.00 |" in text  # what is recorded stays


def test_the_terms_of_a_known_dataset_are_linked(folder):
    card = ModelCard.load(write_card(folder))
    assert "# U-Net on CamVid\n" in card.text
    assert card.data.license == "cc-by-nc-4.0"
    assert card.data.license_link == "https://creativecommons.org/licenses/by-nc/4.0/"
    assert "not for use in vehicles" in card.text
    write_card_info(folder, {"dataset": "animals"})
    card = ModelCard.load(write_card(folder))
    assert (card.data.license, card.data.license_name) == ("other", "research-only")
    assert card.data.license_link.startswith("http")
    assert card_errors(card.content) == []
    assert "vehicles" not in card.text


def test_what_is_declared_overrides_what_is_known(folder):
    write_card_info(folder, {"dataset_name": "my streets", "selection": "Chosen on `val`."})
    card = ModelCard.load(write_card(folder))
    assert "# U-Net on my streets\n" in card.text
    assert card.data.license == "cc-by-nc-4.0"
    assert (
        "Trained on the split `train` only. Chosen on `val`. To reproduce the training:"
        in card.text
    )


def test_nothing_is_guessed_of_others_data(folder, tmp_path):
    (folder / "card.json").unlink()
    own = folder.rename(tmp_path / "unet-camvid-nuclei")
    card = ModelCard.load(write_card(own))
    assert "# U-Net\n" in card.text
    assert (card.data.license, card.data.datasets, card.data.eval_results) == (None, None, None)
    assert "No license is declared for these weights." in card.text
    for word in ("CC BY-NC", "street", "vehicle", "CamVid", "published", "at the end"):
        assert word not in card.text
    assert "How settings were chosen is not recorded." in card.text
    assert 'segmenter("image.jpg")' in card.text
    assert card_errors(card.content) == []


def test_a_license_without_terms_is_named_and_linked(folder):
    (folder / "card.json").unlink()
    entries = {"license": "other", "license_name": "lab-only", "license_link": "https://a.b/c"}
    write_card_info(folder, {**entries, "dataset_name": "nuclei"})
    card = ModelCard.load(write_card(folder))
    assert "License of the weights: [lab-only](https://a.b/c)." in card.text
    assert "# U-Net on nuclei\n" in card.text


@pytest.mark.parametrize(
    ("split", "said"),
    [
        ("train", "The network was trained on this split"),
        ("val", "Training was monitored on this split."),
        ("test", "ignores boundaries next to void.\n"),
    ],
)
def test_the_split_that_was_measured_is_told(folder, split, said):
    report = {**EVALUATION, "split": split, "data": "nuclei"}
    (folder / "evaluation.json").write_text(json.dumps(report))
    text = write_card(folder).read_text()
    assert f"on the 2 images of the split `{split}` of `nuclei`: single-scale" in text
    assert said in text


def test_what_was_measured_besides_is_in_the_card(folder):
    present = {"count": 1, "mean_iou": 0.9, "mean_dice": 0.95, "boundary_f1": None}
    part = {"absent_classes": ["sky"], "present_classes": present, "pixel_accuracy": 0.8}
    part |= {"classes": EVALUATION["classes"], "pictures": 2}
    report = EVALUATION | part
    report["sources"] = {"lab_a": part}
    report["objects"] = {"road": {"precision": 0.5, "recall": 0.25, "ap50": 0.2}}
    scores = {"v_rand": 0.97, "v_info": 0.98, "pixel_error": 0.06, "warping_error": 0.0004}
    best = {name: {"value": 1 - value, "threshold": 0.3} for name, value in scores.items()}
    report["membranes"] = scores | {"best_of_thresholds": best}
    report["errors"] = [{"image": "a.png", "error": "broken"}]
    (folder / "evaluation.json").write_text(json.dumps(report))
    text = write_card(folder).read_text()
    assert "1 more could not be read and are excluded." in text
    assert (
        "The ground truth does not contain sky. Over the 1 classes present: mean IoU 90.00" in text
    )
    assert "| lab\\_a | 2 | 90.00 | 95.00 | 80.00 | 90.00 |" in text
    assert "precision 50.00, recall 25.00, AP 20.00" in text
    assert "V-Rand 97.00, V-Info 98.00, pixel error 6.00, warping error 0.04 (in percent)" in text
    assert "challenge: V-Rand 3.00, V-Info 2.00, pixel error 94.00, warping error 99.96." in text


def test_boundary_f1_that_is_not_judged_is_called_so(folder):
    row = {"iou": 0.9, "accuracy": 0.95, "boundary_f1": None, "void_outline": 0.998}
    report = EVALUATION | {"classes": {"road": row, "sky": row}}
    (folder / "evaluation.json").write_text(json.dumps(report))
    text = write_card(folder).read_text()
    assert "| 61.23 | 90.00 | 70.00 | not judged |" in text
    assert "| road | 90.00 | - | - | 95.00 | not judged |" in text


def test_metrics_on_data_of_another_origin_stay_while_the_weights_do(folder):
    part = {"absent_classes": ["sky"], "pixel_accuracy": 0.8, "classes": EVALUATION["classes"]}
    part["present_classes"] = {"count": 1, "mean_iou": 0.7, "mean_dice": 0.75}
    other = EVALUATION | part | {"pictures": 9, "sources": {"india": {**part, "pictures": 9}}}
    record_evaluation(folder, other, out_of_domain="Streets elsewhere")
    text = write_card(folder).read_text()
    assert "| **U-Net, these weights** | 61.23 |" in text  # the card's own
    assert "## Streets elsewhere\n" in text
    assert "| india | 9 | 70.00 | 75.00 | 80.00 | 90.00 |" in text
    record_evaluation(folder, {**EVALUATION, "mean_iou": 0.5})
    text = write_card(folder).read_text()
    assert "| **U-Net, these weights** | 50.00 |" in text
    assert "## Streets elsewhere\n" in text
    UNet(class_names=["road", "sky"], base_channels=2).save_pretrained(folder)  # other weights
    record_evaluation(folder, EVALUATION)
    assert "Streets elsewhere" not in write_card(folder).read_text()


def test_a_readme_by_hand_is_replaced_only_on_request(folder):
    card = write_card(folder)
    assert write_card(folder) == card  # its own
    card.write_text("# My network\n")
    with pytest.raises(CheckpointError, match=r"not written by segmodels: add --overwrite"):
        write_card(folder)
    assert card.read_text() == "# My network\n"
    assert "U-Net on CamVid" in write_card(folder, overwrite=True).read_text()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read"),
        ('{"licence": "mit"}', "must be an object with the entries dataset, "),
        ('{"license": 3}', "license must be a string, got 3"),
        ('{"dataset": "imagenet"}', "dataset must be one of camvid, .* got 'imagenet'"),
    ],
)
def test_a_card_json_that_cannot_be_used_is_told(folder, content, message):
    (folder / "card.json").write_text(content)
    with pytest.raises(CheckpointError, match=message):
        write_card(folder)


def test_the_command_leaves_out_other_machines_paths_and_what_is_no_option(folder):
    new = {"data": "/home/someone/nuclei", "batch_norm": False, "lovasz": None}
    new |= {"carried_over": {"classes": ["sky"]}, "vgg16": "timm/vgg16.tv_in1k"}
    (folder / "training.json").write_text(json.dumps({**TRAINING, **new}))
    text = write_card(folder).read_text()
    assert "--data nuclei" in text
    assert "--no-batch-norm" in text
    assert "--vgg16 timm/vgg16.tv_in1k" in text
    for word in ("someone", "carried", "lovasz"):
        assert word not in text


def test_a_card_needs_an_evaluation(folder):
    (folder / "evaluation.json").unlink()
    with pytest.raises(CheckpointError, match=r"evaluation\.json"):
        write_card(folder)
    (folder / "evaluation.json").write_text("{}")
    with pytest.raises(CheckpointError, match="lacks some of the entries split, pictures, "):
        write_card(folder)
    record_evaluation(folder, EVALUATION)  # replaces what cannot be read
    write_card(folder)


def test_metrics_of_other_weights_make_no_card(folder):
    record_evaluation(folder, EVALUATION)
    write_card(folder)
    UNet(class_names=["road", "sky"], base_channels=2).save_pretrained(folder)
    with pytest.raises(CheckpointError, match=r"was measured on other weights: create it with"):
        write_card(folder)


def test_a_card_says_nothing_of_vgg16_where_training_had_none(folder):
    assert "VGG16" not in write_card(folder).read_text()


def test_a_damaged_record_of_the_training_is_told(folder):
    (folder / "training.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"training\.json cannot be read"):
        write_card(folder)


@pytest.mark.weights
@pytest.mark.parametrize("name", PUBLISHED_CARDS)
def test_a_published_card_is_what_the_program_makes_of_its_record(name, tmp_path):
    published = CARDS / name
    again = tmp_path / name
    again.mkdir()
    for file in published.iterdir():
        if file.name != "README.md":
            (again / file.name).symlink_to(file)
    assert write_card(again).read_text() == (published / "README.md").read_text()
    assert card_errors((published / "README.md").read_text()) == []
    assert (published / "examples.jpg").stat().st_size <= MAX_EXAMPLES_BYTES


def test_names_that_look_like_markup_are_shown_as_they_are(folder):
    names = ["<script>", "a|b_c"]
    UNet(class_names=names, base_channels=2).save_pretrained(folder)
    row = {"iou": 0.5, "accuracy": 0.5, "boundary_f1": 0.5}
    evaluation = EVALUATION | {"classes": dict.fromkeys(names, row)}
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    text = write_card(folder).read_text()
    assert r"segment 2 classes: \<script\>, a\|b\_c." in text
    assert r"| \<script\> | 50.00 |" in text
    assert r"| a\|b\_c | 50.00 |" in text


def test_the_card_command_keeps_what_it_is_told(folder, tmp_path, capsys):
    image = tmp_path / "noise.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)).save(image)
    (folder / "card.json").unlink()
    assert main(["card", str(folder), "--dataset-name", "noise", "--license", "mit"]) == 0
    text = (folder / "README.md").read_text()
    assert "# U-Net on noise\n" in text
    assert "examples.jpg" not in text
    options = ["--images", str(image), "--credit", "ours", "--examples", "Random noise."]
    assert main(["card", str(folder), *options]) == 0
    assert main(["card", str(folder)]) == 0  # what was given before stays
    text = (folder / "README.md").read_text()
    assert "Random noise. Each row shows" in text
    assert "](examples.jpg)" in text
    assert "# U-Net on noise\n" in text
    assert read_card_info(folder).license == "mit"
    assert "License of the weights: mit." in text


def test_the_card_command_tells_what_is_wrong(folder, tmp_path, capsys):
    def said(*arguments):
        assert main(["card", *map(str, arguments)]) == 1
        return capsys.readouterr().err

    assert "there is no folder" in said(tmp_path / "nowhere")
    assert "--dataset must be one of camvid, " in said(folder, "--dataset", "imagenet")
    assert "--images: " in said(folder, "--pictures", folder / "config.json")
    (folder / "README.md").write_text("by hand")
    assert "add --overwrite" in said(folder, "--license", "mit")
    assert read_card_info(folder).license is None  # nothing was changed
    assert main(["card", str(folder), "--overwrite"]) == 0
    (folder / "evaluation.json").unlink()
    assert "evaluation.json cannot be read" in said(folder)
