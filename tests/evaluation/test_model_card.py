"""Model cards."""

import json
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from segmodels import CheckpointError, SegNet, UNet
from segmodels.cli.main import main
from segmodels.evaluation.model_card import write_card
from segmodels.evaluation.showcase import MAX_BYTES

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
    return folder


def test_the_metadata_is_valid_and_holds_the_measured_figures(folder):
    data = ModelCard.load(write_card(folder)).data
    assert data.library_name == "segmodels"
    assert data.pipeline_tag == "image-segmentation"
    assert data.model_name == "unet-camvid"
    figures = {result.metric_type: result.metric_value for result in data.eval_results}
    assert figures["mean_iou"] == 0.6123
    assert "boundary_f1" not in figures  # was not measured


def test_the_text_holds_the_figures_and_the_command(folder):
    text = write_card(folder).read_text()
    assert "| **U-Net, these weights** | 61.23 | 90.00 | 70.00 | - |" in text
    assert "| road | 90.00 | 95.00 | 50.00 |" in text
    assert "| sky | - | - | - |" in text
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
    assert "started from VGG16's ImageNet weights" in text


def test_a_start_whose_training_is_not_recorded_is_named(folder):
    (folder / "training.json").write_text(json.dumps({**TRAINING, "start": "org/unet"}))
    text = write_card(folder).read_text()
    assert "--start org/unet" in text
    assert "went on from the weights of `org/unet`" in text


def test_the_published_figures_stand_beside_ours_where_there_are_any(folder, tmp_path):
    assert (
        "| as published: none on this test set | - | - | - | - |" in write_card(folder).read_text()
    )
    segnet = tmp_path / "segnet-camvid"
    SegNet(class_names=["road", "sky"], variant="basic").save_pretrained(segnet)
    (segnet / "evaluation.json").write_text(json.dumps(EVALUATION))
    text = write_card(segnet).read_text()
    assert "| SegNet, 3,433 pictures (SegNet paper) | 60.10 | 90.40 | 71.20 | 46.84 |" in text
    assert "as published: none" not in text


def test_a_card_says_where_the_network_fails(folder):
    assert "## Where it fails\n\nNot recorded." in write_card(folder).read_text()
    matrix = [[90, 10], [30, 70]]
    (folder / "evaluation.json").write_text(json.dumps({**EVALUATION, "confusion_matrix": matrix}))
    text = write_card(folder).read_text()
    assert "- **sky** (IoU 63.64 %): 70 % of its pixels are found, 30 % are taken for road." in text


def test_weights_on_data_without_terms_are_for_research_only(folder, tmp_path):
    msrc = folder.rename(tmp_path / "unet-msrc")
    card = ModelCard.load(write_card(msrc))
    assert (card.data.license, card.data.license_name) == ("other", "research-only")
    assert "# U-Net on MSRC\n" in card.text
    assert "no terms stated: research only." in card.text


def test_a_card_needs_an_evaluation(folder):
    (folder / "evaluation.json").unlink()
    with pytest.raises(CheckpointError, match=r"evaluation\.json"):
        write_card(folder)


def test_a_card_says_nothing_of_terms_and_origins_that_are_not_known(folder, tmp_path):
    assert "VGG16" not in write_card(folder).read_text()  # this training had none
    own = folder.rename(tmp_path / "unet-mine")
    card = ModelCard.load(write_card(own))
    assert card.data.license is None
    assert "CC BY-NC" not in card.text


def test_a_damaged_record_of_the_training_is_told(folder):
    (folder / "training.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"training\.json cannot be read"):
        write_card(folder)


@pytest.mark.parametrize("name", PUBLISHED_CARDS)
def test_a_published_card_is_what_the_program_makes_of_its_figures(name, tmp_path):
    published = CARDS / name
    again = tmp_path / name
    again.mkdir()
    for file in published.iterdir():
        if file.name != "README.md":
            (again / file.name).symlink_to(file)
    assert write_card(again).read_text() == (published / "README.md").read_text()
    assert (published / "examples.jpg").stat().st_size <= MAX_BYTES


def test_names_that_look_like_markup_are_shown_as_they_are(folder):
    names = ["<script>", "a|b_c"]
    UNet(class_names=names, base_channels=2).save_pretrained(folder)
    row = {"iou": 0.5, "accuracy": 0.5, "boundary_f1": 0.5}
    evaluation = EVALUATION | {"classes": dict.fromkeys(names, row)}
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    text = write_card(folder).read_text()
    assert r"for 2 classes: \<script\>, a\|b\_c." in text
    assert r"| \<script\> | 50.00 |" in text
    assert r"| a\|b\_c | 50.00 |" in text
