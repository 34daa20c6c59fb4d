"""What happens when the page is used."""

import threading
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from segmodels import CheckpointError, UNet
from segmodels.demo import strings
from segmodels.demo.callbacks import CLEARED, Callbacks
from segmodels.demo.scene_fit import Outside
from segmodels.demo.scenes import ExampleFolder
from segmodels.demo.service import ComparisonService
from segmodels.inference.decoded_image import file_digest
from tests.support.networks import tiny_network


@pytest.fixture
def callbacks(service, monkeypatch):
    callbacks = Callbacks(service)
    monkeypatch.setattr(callbacks, "outside", lambda session: None)  # these networks know nothing
    return callbacks


@pytest.fixture
def session(callbacks, street):
    *_, last = callbacks.run(street, "road", {}, None, "", "areas")
    return last["session"]


def run(callbacks, path, scene="road", session=None, compared="", tab="areas"):
    return list(callbacks.run(path, scene, {}, session, compared, tab))


def test_a_run_shows_the_image_at_once_and_then_one_mask_after_the_other(callbacks, street):
    updates = run(callbacks, street)
    states = [[p["state"] for p in update["masks"]["panels"]] for update in updates]
    assert [row.count("ready") for row in states] == [0, 1, 2, 3]
    assert [update["session"] is None for update in updates] == [True, True, True, False]
    assert [update["compared"] for update in updates] == ["", "", "", file_digest(Path(street))]
    assert all(update["heat"] is None for update in updates)  # what the last image left is cleared


def test_the_same_question_is_not_answered_twice_unless_asked_again(callbacks, street, session):
    assert run(callbacks, street, session=session) == [{"image_note": ""}]
    assert len(list(callbacks.run_again(street, "road", {}, session, "", "areas"))) == 4
    assert len(run(callbacks, street, "everyday", session)) == 2


@pytest.fixture
def with_examples(networks, street, tmp_path):
    """Callbacks of a page with two examples."""
    folder = tmp_path / "examples"
    folder.mkdir()
    for name in ("avenue.jpg", "crossing.jpg"):
        (folder / name).write_bytes(Path(street).read_bytes() + name.encode())
    return Callbacks(ComparisonService(networks, ExampleFolder(folder)))


def test_an_example_is_compared_once_for_all_and_timed_warm(with_examples, monkeypatch):
    with_examples.warm_up("road")
    first = with_examples.welcome("road")
    assert Path(first["picture"]).name == "avenue.jpg"
    assert "median of 3 warm runs" in first["areas"]
    monkeypatch.setattr(with_examples, "compare", None)
    second = with_examples.welcome("road")
    assert second["masks"] is first["masks"]
    path = first["picture"]
    assert run(with_examples, path, session=second["session"]) == [{"image_note": ""}]


def test_warming_up_stops_when_the_process_is_about_to_end(with_examples, monkeypatch):
    runs = []
    monkeypatch.setattr(Callbacks, "_compare_example", lambda *_: runs.append(1) or {})
    monkeypatch.setattr(Callbacks, "welcome", lambda *_: {"masks": None})
    ended = threading.Thread(target=int)  # not alive, as the main thread is then
    monkeypatch.setattr(threading, "main_thread", lambda: ended)
    with_examples.warm_up("road")
    assert not runs


def test_the_address_may_name_another_example(with_examples):
    assert Path(with_examples.welcome("road", "crossing")["picture"]).name == "crossing.jpg"
    assert Path(with_examples.welcome("road", "nonsense")["picture"]).name == "avenue.jpg"


def test_a_page_without_examples_starts_empty(callbacks):
    callbacks.warm_up("road")
    assert callbacks.welcome("road") == {}


def test_no_image_clears_the_page_and_the_button_asks_for_one(callbacks):
    assert run(callbacks, None) == [CLEARED]
    *_, last = callbacks.run_again(None, "road", {}, None, "", "areas")
    assert "Choose an image first" in last["image_note"]


def test_what_is_no_image_is_explained_beside_it(callbacks, tmp_path):
    (tmp_path / "notes.png").write_text("no picture")
    *_, last = run(callbacks, str(tmp_path / "notes.png"))
    assert last["masks"] is None
    assert "notes.png is not " in last["image_note"]


def test_a_better_scene_is_offered_with_one_click(callbacks, street, monkeypatch):
    monkeypatch.setattr(callbacks, "outside", lambda session: Outside("unsure", "everyday"))
    *_, last = run(callbacks, street)
    assert "agree on little and are unsure: this image is probably outside" in last["outside_note"]
    assert (
        '<button type="button" data-scene="everyday">Try Everyday</button>'
        in (last["outside_note"])
    )
    monkeypatch.setattr(callbacks, "outside", lambda session: Outside("nothing", None))
    *_, last = run(callbacks, street)
    assert "see nothing but background" in last["outside_note"]
    assert "button" not in last["outside_note"]


def test_one_network_alone_has_no_agreement(callbacks, street):
    *_, last = run(callbacks, street, "everyday")
    assert last["agreement"] is None
    assert "This scene has only one network" in last["agreement_note"]
    assert last["masks"]["status"] == ""


def test_a_scene_brings_its_first_example_unless_the_image_is_the_visitors(with_examples):
    service = with_examples.service
    for name in ("cat.jpg",):
        path = service.example_folder.folder / name
        path.write_bytes(b"a cat")
    by_file = {e.file: digest for digest, e in service.examples_by_digest.items()}
    chosen = with_examples.example_for_scene("everyday", by_file["avenue.jpg"])
    assert Path(chosen).name == "cat.jpg"
    assert with_examples.example_for_scene("road", by_file["avenue.jpg"]) is None
    assert with_examples.example_for_scene("everyday", "of an upload") is None


def test_a_served_network_takes_the_place_of_another_and_leaves_it(callbacks, networks):
    (update,) = callbacks.replace_network("road", 1, "unet-msrc", {})
    assert update["replacements"] == {"unet-camvid": networks[3].source}
    (update,) = callbacks.replace_network("road", 1, "unet-camvid", update["replacements"])
    assert update["replacements"] == {}
    assert list(callbacks.replace_network("road", 1, "../../etc", {})) == []
    assert list(callbacks.replace_network("road", 7, "unet-msrc", {})) == []


def test_networks_without_a_common_class_state_no_agreement(networks, street):
    names = ("nucleus", "membrane")
    cells = tiny_network(UNet, "unet-cells", "own", names)
    callbacks = Callbacks(ComparisonService([*networks, cells]))
    *_, last = callbacks.run(
        street, "everyday", {"unet-msrc": networks[0].source}, None, "", "areas"
    )
    assert len(last["masks"]["panels"]) == 1
    replaced = {"unet-camvid": cells.source}
    *_, last = callbacks.run(street, "road", replaced, None, "", "areas")
    assert last["masks"]["status"] == strings.NO_COMMON_CLASSES
    assert strings.NO_COMMON_CLASSES in last["agreement_note"]


def test_a_comparison_can_be_shared_as_one_image(callbacks, session):
    for update in callbacks.share(session, ""):
        with Image.open(update["panel_file"]) as image:
            assert image.width == 1600
    (update,) = callbacks.share(None, "0123")
    assert "has expired" in update["image_note"]


def test_what_is_dropped_of_an_image_is_said(callbacks, tmp_path):
    image = Image.new("RGBA", (40, 30), (90, 80, 70, 128))
    image.save(tmp_path / "half.png")
    first, *_ = run(callbacks, str(tmp_path / "half.png"))
    assert strings.TRANSPARENCY in first["image_note"]


# ---- an image that has been deleted ----


def test_an_image_that_expired_is_reported_and_what_is_shown_stays(callbacks, street, session):
    digest = file_digest(Path(street))
    Path(street).unlink()
    (update,) = run(callbacks, street, compared=digest)
    assert list(update) == ["image_note"]
    assert "The image has expired: it was deleted from this server" in update["image_note"]
    for tab, note in (("confidence", "heat_note"), ("downloads", "downloads_note")):
        *_, update = callbacks.fill(tab, session, digest, [])
        assert list(update) == [note]
        assert "has expired" in update[note]
    (update,) = callbacks.judge("label.png", session, digest)
    assert list(update) == ["truth_note"]
    *_, update = callbacks.draw_samples(session, digest, 2)
    assert list(update) == ["uncertainty_note"]
    (update,) = callbacks.download_panel(0, session, digest)
    assert "has expired" in update["image_note"]


def test_a_session_that_expired_is_told_from_one_that_never_was(callbacks):
    (update,) = callbacks.fill("confidence", None, "0123", [])
    assert "has expired" in update["heat_note"]
    (update,) = callbacks.draw_samples(None, "0123", 2)
    assert "has expired" in update["uncertainty_note"]
    (update,) = callbacks.judge("label.png", None, "0123")
    assert "has expired" in update["truth_note"]


def test_an_example_never_expires(with_examples):
    shown = with_examples.welcome("road")
    (update,) = run(with_examples, "/deleted/avenue.jpg", session=shown["session"],
                    compared=shown["compared"])  # fmt: skip
    assert update == {"image_note": ""}


def test_no_message_has_a_path_of_the_server_or_words_of_python(callbacks, street, session):
    folder = str(Path(street).parent)
    Path(street).unlink()
    texts = str(run(callbacks, street)) + str(run(callbacks, street, compared="0123"))
    texts += str(list(callbacks.fill("downloads", session, "0123", []))[-1])
    assert folder not in texts
    assert "Error" not in texts


# ---- tabs ----


@pytest.mark.parametrize(
    ("tab", "component"), [("confidence", "heat"), ("skips", "stages"), ("downloads", "files")]
)
def test_a_tab_is_filled_when_it_is_opened_and_only_once(callbacks, session, tab, component):
    updates = list(callbacks.fill(tab, session, "", ["areas"]))
    assert any(update.get(component) for update in updates)
    assert updates[-1] == {"filled": ["areas", tab]}
    assert list(callbacks.fill(tab, session, "", ["areas", tab])) == []
    (update,) = callbacks.fill(tab, None, "", [])
    assert "Compare an image first" in "".join(update.values())


def test_an_open_tab_is_filled_after_the_run(callbacks, street):
    updates = run(callbacks, street, tab="skips")
    assert updates[-2]["stages"]["panels"][-1]["state"] == "ready"
    assert updates[-1] == {"filled": ["skips"]}


def test_files_exist_while_they_are_handed_over(callbacks, session):
    handed = []
    for update in callbacks.fill("downloads", session, "", []):
        handed += update.get("files", [])
        assert all(Path(file).is_file() for file in update.get("files", []))
    assert len(handed) == 10


def test_one_panels_class_map_can_be_downloaded(callbacks, session):
    for update in callbacks.download_panel(1, session, ""):
        assert Path(update["panel_file"]).name == "my street_unet-camvid.png"
        assert Path(update["panel_file"]).is_file()
    (update,) = callbacks.download_panel(7, session, "")
    assert "failed on this image" in update["image_note"]


def test_what_these_networks_do_not_have_is_explained_in_its_tab(callbacks, street):
    *_, everyday = run(callbacks, street, "everyday")
    (update,) = callbacks.fill("skips", everyday["session"], "", [])
    assert "None of these networks is an FCN" in update["skips_note"]


def test_a_label_is_judged_and_a_wrong_one_explained(callbacks, session, street):
    *_, update = callbacks.judge(street, session, "")
    assert "has the undeclared colour (" in update["truth_note"]
    *_, update = callbacks.judge(street, None, "")
    assert "Compare an image first" in update["truth_note"]
    assert list(callbacks.judge(None, None, "")) == [{"truth_note": ""}]


def test_samples_are_drawn_with_progress_and_networks_without_dropout_named(callbacks, session):
    updates = list(callbacks.draw_samples(session, "", 2))
    notes = [update["uncertainty_note"] for update in updates]
    assert "Drawing 2 samples, network 1 of 2" in notes[0]
    assert "network 2 of 2" in notes[1]
    assert "Drawing" not in notes[-1]
    assert all("not shown: U-Net" in note for note in notes)
    assert updates[-1]["variance"]["panels"][-1]["state"] == "ready"
    (update,) = callbacks.draw_samples(None, "", 2)
    assert "Compare an image first" in update["uncertainty_note"]


def test_a_view_that_fails_says_so_in_its_place_and_is_logged(
    callbacks, session, monkeypatch, caplog
):
    def broken(*_):
        raise RuntimeError("/srv/secret is broken")

    monkeypatch.setattr(callbacks, "confidence", broken)
    monkeypatch.setattr(callbacks, "uncertainty", broken)
    (update,) = callbacks.fill("confidence", session, "", [])
    assert "could not be computed" in update["heat_note"]
    *_, update = callbacks.draw_samples(session, "", 2)
    assert "could not be computed" in update["uncertainty_note"]
    assert "/srv" not in str(update)
    assert "/srv/secret is broken" in caplog.text


# ---- models of the visitor's ----


def test_a_users_model_takes_its_place_and_a_wrong_id_changes_nothing(
    callbacks, networks, monkeypatch
):
    mine = replace(networks[1], source="org/mine")

    def get(hub_id):
        if hub_id != "org/mine":
            raise CheckpointError("no <such> model")
        return mine

    monkeypatch.setattr(callbacks.service.user_models, "get", get)
    slot = networks[0].name
    *_, update = callbacks.add_user_model(slot, "org/mine", {})
    assert update["replacements"] == {slot: "org/mine"}
    assert callbacks.service.sources_of("road", update["replacements"])[0] == "org/mine"
    assert "org/mine is a U-Net with 3 classes: road, sky, car." in update["user_model_note"]
    *_, update = callbacks.add_user_model(slot, "org/other", {})
    assert "replacements" not in update
    assert "no &lt;such&gt; model" in update["user_model_note"]
    assert next(callbacks.reset_models())["replacements"] == {}


def test_networks_run_where_the_page_says(service):
    asked = []

    def on_gpu(function):
        asked.append(function.__name__)
        return function

    Callbacks(service, on_gpu)
    assert asked == ["outside", "compare", "confidence", "skips", "uncertainty"]
