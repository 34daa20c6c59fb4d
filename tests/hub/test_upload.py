"""Pushing, by the real huggingface_hub in its own process, to a Hub on the loopback interface."""

import json

import pytest
from huggingface_hub import ModelCard

from segmodels import SegNet, UNet, load_model
from segmodels.evaluation.model_card import write_card
from segmodels.inference.onnx_export import verify
from tests.support.hub_state import Fault
from tests.support.hub_validator import card_errors

ALICE = "alice-token"
FILES = {"README.md", "config.json", "model.safetensors", "preprocessor_config.json"}
EVALUATION = {
    "split": "test",
    "data": "streets",
    "pictures": 2,
    **dict.fromkeys(("mean_iou", "pixel_accuracy", "mean_accuracy", "boundary_f1"), 0.5),
    "frequency_weighted_iou": 0.5,
    "classes": {"road": {"iou": 0.5, "accuracy": 0.5, "boundary_f1": 0.5}},
}


@pytest.fixture
def folder(tmp_path):
    """A model folder as weights_card/ has them, with files beside that are nobody's business."""
    folder = tmp_path / "unet-streets"
    UNet(class_names=["road", "sky"], base_channels=1).save_pretrained(folder)
    (folder / "evaluation.json").write_text(json.dumps(EVALUATION))
    write_card(folder)
    for name in ("checkpoint.pt", "notes.txt", "pytorch_model.bin", ".secret"):
        (folder / name).write_text("private")
    return folder


@pytest.fixture
def push(client, folder):
    """`segmodels push` of the folder, in the client's process."""

    def run(repo_id, *options, token=ALICE):
        code = (
            "import os\nfrom segmodels.cli.main import main\n"
            "os.environ.pop('HF_TOKEN', None)\n"
            "if token: os.environ['HF_TOKEN'] = token\n"
            "result = main(['push', folder, repo_id, *options])\n"
            "os.environ.pop('HF_TOKEN', None)\n"
        )
        names = {"folder": str(folder), "repo_id": repo_id, "options": options, "token": token}
        answer = client.run(code, **names)
        assert answer.error is None, answer.message
        return answer

    return run


def commits(hub, name):
    return len(hub.repositories[name].commits)


def test_a_push_is_one_commit_of_config_weights_card_and_metrics_alone(hub, push, folder):
    answer = push("org/all-of-it", "--message", "First weights")
    assert answer.result == 0
    repository = hub.repositories["org/all-of-it"]
    assert not repository.private
    assert commits(hub, "org/all-of-it") == 2  # the Hub's own first one, and ours
    head = repository.refs["main"]
    assert set(repository.commits[head]) == {*FILES, "evaluation.json", ".gitattributes"}
    assert repository.messages[head] == "First weights"
    assert answer.out.strip() == f"{hub.url}/org/all-of-it/commit/{head}"
    weights = hub.file("org/all-of-it", "model.safetensors")
    assert weights == (folder / "model.safetensors").read_bytes()


def test_the_pushed_card_has_its_metrics_and_loads_by_its_own_name(hub, push):
    push("org/with-card")
    text = hub.file("org/with-card", "README.md").decode()
    assert 'UNet.from_pretrained("org/with-card")' in text
    assert ModelCard(text).data.eval_results[0].metric_value == 0.5
    assert card_errors(text) == []


def test_a_push_without_change_makes_no_commit_and_says_so(hub, push):
    push("org/twice")
    before = commits(hub, "org/twice")
    uploads = sum(request.startswith("PUT") for request in hub.requests)
    answer = push("org/twice")
    assert answer.result == 0
    assert "org/twice is already up to date" in answer.out
    assert commits(hub, "org/twice") == before
    assert sum(request.startswith("PUT") for request in hub.requests) == uploads


def test_a_push_of_one_change_uploads_no_weights(hub, push, folder):
    push("org/changed")
    uploads = sum(request.startswith("PUT") for request in hub.requests)
    with open(folder / "README.md", "a") as card:
        card.write("\nMore words.\n")
    assert "/commit/" in push("org/changed").out
    assert hub.file("org/changed", "README.md").decode().endswith("More words.\n")
    assert sum(request.startswith("PUT") for request in hub.requests) == uploads


def test_a_private_repository_is_private_and_a_public_one_is_not_taken_for_it(hub, push):
    assert push("org/hidden", "--private").result == 0
    assert hub.repositories["org/hidden"].private
    push("org/open")
    before = commits(hub, "org/open")
    answer = push("org/open", "--private")
    assert answer.result == 1
    assert "org/open exists and is public" in answer.err
    assert commits(hub, "org/open") == before


def test_a_branch_is_made_and_main_stays(hub, push):
    push("org/branches", "--branch", "next/try")
    refs = hub.repositories["org/branches"].refs
    assert set(hub.repositories["org/branches"].commits[refs["main"]]) == {".gitattributes"}
    assert hub.file("org/branches", "config.json", "next/try")


def test_a_pull_request_leaves_main_as_it_was(hub, push):
    push("org/proposals", "--branch", "main")
    main = hub.repositories["org/proposals"].refs["main"]
    answer = push("org/proposals", "--pull-request")  # nothing to propose
    assert "is already up to date" in answer.out
    hub.repositories["org/proposals"].commit("main", {}, "emptied")
    answer = push("org/proposals", "--pull-request")
    assert answer.out.strip() == f"{hub.url}/org/proposals/discussions/1"
    assert hub.file("org/proposals", "config.json", "refs/pr/1")
    assert hub.repositories["org/proposals"].refs["main"] != main
    answer = push("org/proposals", "--pull-request", "--branch", "next")
    assert answer.result == 1
    assert "do not specify a branch" in answer.err


@pytest.mark.parametrize(
    ("repo_id", "token", "message"),
    [
        ("org/x", None, "you are not logged in: run `hf auth login`"),
        ("org/x", "stolen", "you are not logged in: run `hf auth login`"),
        (
            "org/x",
            "bob-token",
            "you have no write access to org/x (the Hub responded: You don't have",
        ),
        ("others/x", ALICE, "use a token with write access, ask the organisation"),
        ("a/b/c", ALICE, "'a/b/c' is not a valid repository name: expected ORG/NAME"),
        ("org/" + "x" * 100, ALICE, "is not a valid repository name"),
    ],
)
def test_what_may_not_be_pushed_is_reported_in_one_line(hub, push, repo_id, token, message):
    answer = push(repo_id, token=token)
    assert answer.result == 1
    assert message in answer.err
    assert len(answer.err.splitlines()) == 1
    assert repo_id not in hub.repositories


def test_a_reader_of_an_organisation_cannot_change_its_repository(hub, push):
    push("org/theirs")
    answer = push("org/theirs", "--branch", "mine", token="bob-token")
    assert answer.result == 1
    assert "you have no write access to org/theirs" in answer.err


def test_a_folder_that_does_not_load_is_not_pushed(hub, push, folder):
    (folder / "model.safetensors").write_bytes(b"cut off")
    requests = len(hub.requests)
    answer = push("org/broken")
    assert answer.result == 1
    assert "model.safetensors is not a complete safetensors file" in answer.err
    assert len(hub.requests) == requests


def test_a_card_that_the_hub_refuses_is_reported_before_anything_is_sent(hub, push, folder):
    (folder / "README.md").write_text("---\nlicense: free-as-in-beer\n---\n# Mine\n")
    answer = push("org/bad-card")
    assert answer.result == 1
    assert '"license" must be one of' in answer.err
    assert commits(hub, "org/bad-card") == 1  # the Hub's own first one


def test_a_hub_that_dies_in_the_middle_leaves_the_repository_as_it_was(hub, push):
    hub.faults[:] = [Fault("POST .*/commit/", 500)]
    answer = push("org/interrupted")
    assert answer.result == 1
    assert "returned status 500: try again later" in answer.err
    assert commits(hub, "org/interrupted") == 1
    hub.faults[:] = [Fault("POST .*/commit/", "close")]
    answer = push("org/interrupted")
    assert answer.result == 1
    assert "cannot be reached" in answer.err
    assert push("org/interrupted").result == 0
    assert commits(hub, "org/interrupted") == 2


def test_a_model_pushes_itself_and_loads_again(hub, client, folder):
    code = """
from segmodels import SegNet, UNet, load_model
from segmodels.evaluation.model_card import write_card
from segmodels.inference.onnx_export import verify
model = UNet.from_pretrained(folder)
first = model.push_to_hub("org/itself", token=token, commit_message="By hand")
again = model.push_to_hub("org/itself", token=token)
result = [first, again]
"""
    first, again = client.result(code, folder=str(folder), token=ALICE)
    assert first == again
    assert (
        hub.file("org/itself", "model.safetensors") == (folder / "model.safetensors").read_bytes()
    )
    # The card and the metrics of the folder went along: the weights are those that were measured.
    text = hub.file("org/itself", "README.md").decode()
    assert ModelCard(text).data.eval_results
    assert "evaluation.json" in hub.repositories["org/itself"].commits[first.rpartition("/")[2]]


def test_a_model_with_other_weights_takes_no_metrics_along_and_no_card_away(hub, client, folder):
    code = """
import torch
from segmodels import SegNet, UNet, load_model
model = UNet.from_pretrained(folder)
model.heatmaps.bias.data += 1
model.push_to_hub("org/tuned", token=token)
UNet.from_pretrained(folder).push_to_hub("org/has-card", token=token)
model.push_to_hub("org/has-card", token=token, private=None, dtype=torch.float16)
"""
    client.result(code, folder=str(folder), token=ALICE)
    text = hub.file("org/tuned", "README.md").decode()
    assert ModelCard(text).data.eval_results is None
    assert card_errors(text) == []
    assert "## Metrics" in hub.file("org/has-card", "README.md").decode()
    assert b'"F16"' in hub.file("org/has-card", "model.safetensors")[:20_000]


def test_patterns_choose_among_the_files_and_delete_old_ones(hub, client, folder):
    code = """
from pathlib import Path
from segmodels.hub.upload import push_folder
push_folder(Path(folder), "org/chosen", token=token)
push_folder(
    Path(folder), "org/chosen", token=token, allow_patterns=["*.json", "*.txt"],
    ignore_patterns="training.json", delete_patterns=["*.md"],
)
"""
    client.result(code, folder=str(folder), token=ALICE)
    repository = hub.repositories["org/chosen"]
    files = set(repository.commits[repository.refs["main"]])
    assert files == {*FILES, "evaluation.json", ".gitattributes"} - {"README.md"}


def test_a_bare_name_is_the_users_own(hub, client, folder):
    code = """
from segmodels import load_model
result = load_model(folder).save_pretrained(
    folder, push_to_hub=True, repo_id="my-unet", token=token, private=True)
"""
    url = client.result(code, folder=str(folder), token=ALICE)
    assert url.startswith(f"{hub.url}/alice/my-unet/commit/")
    assert hub.repositories["alice/my-unet"].private


def test_the_network_goes_along_as_onnx_on_request(hub, push, folder, tmp_path):
    SegNet(class_names=["road", "sky"], variant="basic").save_pretrained(folder)
    answer = push("org/with-onnx", "--onnx")
    assert answer.result == 0, answer.err
    repository = hub.repositories["org/with-onnx"]
    files = set(repository.commits[repository.refs["main"]])
    assert files == {*FILES, "evaluation.json", "model.onnx", ".gitattributes"}
    assert not (folder / "model.onnx").exists()
    path = tmp_path / "model.onnx"
    path.write_bytes(hub.file("org/with-onnx", "model.onnx"))
    assert verify(path, load_model(folder)) <= 1e-4
