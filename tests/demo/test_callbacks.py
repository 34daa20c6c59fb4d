"""What happens when the page is used."""

from dataclasses import replace
from pathlib import Path

import pytest

from segmodels import CheckpointError
from segmodels.demo.callbacks import CLEARED, Callbacks


@pytest.fixture
def callbacks(service, street):
    return Callbacks(service, Path(street))


@pytest.fixture
def session(callbacks, street):
    *_, last = callbacks.run(street, "road", {}, None, "areas")
    return last["session"]


def test_a_run_clears_the_page_first_and_then_fills_it(callbacks, street):
    changes = list(callbacks.run(street, "road", {}, None, "areas"))
    assert changes[0] == CLEARED
    assert [change["session"] is None for change in changes[1:]] == [True, True, True, False]


def test_the_same_question_is_not_answered_twice_unless_asked_again(callbacks, street, session):
    assert list(callbacks.run(street, "road", {}, session, "areas")) == []
    assert len(list(callbacks.run_again(street, "road", {}, session, "areas"))) == 5
    assert len(list(callbacks.run(street, "everyday", {}, session, "areas"))) == 3


def test_the_welcome_is_compared_once_for_all(callbacks, street, monkeypatch):
    first = callbacks.welcome()
    assert first["picture"] == street
    monkeypatch.setattr(callbacks, "compare", None)
    second = callbacks.welcome()
    assert second["masks"] is first["masks"]
    assert list(callbacks.run(street, "road", {}, second["session"], "areas")) == []


def test_no_picture_clears_the_page_and_the_button_asks_for_one(callbacks):
    assert list(callbacks.run(None, "road", {}, None, "areas")) == [CLEARED]
    *_, last = callbacks.run_again(None, "road", {}, None, "areas")
    assert "Choose a picture first" in last["picture_note"]


def test_what_is_no_picture_is_told_beside_it(callbacks, tmp_path):
    (tmp_path / "notes.png").write_text("no picture")
    *_, last = callbacks.run(str(tmp_path / "notes.png"), "road", {}, None, "areas")
    assert last["masks"] is None
    assert "notes.png is not a picture" in last["picture_note"]


@pytest.mark.parametrize(
    ("tab", "component"), [("confidence", "heat"), ("skips", "stages"), ("downloads", "files")]
)
def test_a_tab_is_filled_when_it_is_opened_and_only_once(callbacks, session, tab, component):
    changes = list(callbacks.fill(tab, session, ["areas"]))
    assert any(change.get(component) for change in changes)
    assert changes[-1] == {"filled": ["areas", tab]}
    assert list(callbacks.fill(tab, session, ["areas", tab])) == []
    (change,) = callbacks.fill(tab, None, [])
    assert "Compare a picture first" in "".join(change.values())


def test_an_open_tab_is_filled_after_the_run(callbacks, street):
    changes = list(callbacks.run(street, "road", {}, None, "skips"))
    assert changes[-2]["stages"]["panels"][-1]["state"] == "ready"
    assert changes[-1] == {"filled": ["skips"]}


def test_files_exist_while_they_are_handed_over(callbacks, session):
    for change in callbacks.fill("downloads", session, []):
        assert all(Path(file).is_file() for file in change.get("files", []))


def test_what_cannot_be_shown_is_explained_in_its_tab(callbacks, street, session):
    *_, everyday = callbacks.run(street, "everyday", {}, None, "areas")
    (change,) = callbacks.fill("skips", everyday["session"], [])
    assert "None of these networks is an FCN" in change["skips_note"]
    Path(street).unlink()
    *_, change = callbacks.fill("downloads", session, [])
    assert "no longer on this server: choose it again" in change["downloads_note"]


def test_a_label_is_judged_and_a_wrong_one_explained(callbacks, session, street):
    *_, change = callbacks.judge(street, session)
    assert "colours of no class" in change["truth_note"]
    *_, change = callbacks.judge(street, None)
    assert "Compare a picture first" in change["truth_note"]
    assert list(callbacks.judge(None, None)) == [{"truth_note": ""}]


def test_samples_are_drawn_and_who_has_none_is_named(callbacks, session):
    changes = list(callbacks.draw_samples(session, 2))
    assert "U-Net" in changes[0]["uncertainty_note"]
    assert changes[-1]["variance"]["panels"][-1]["state"] == "ready"
    (change,) = callbacks.draw_samples(None, 2)
    assert "Compare a picture first" in change["uncertainty_note"]


def test_a_guest_takes_its_place_and_a_wrong_id_changes_nothing(callbacks, networks, monkeypatch):
    mine = replace(networks[1], source="org/mine")

    def get(hub_id):
        if hub_id != "org/mine":
            raise CheckpointError("no <such> model")
        return mine

    monkeypatch.setattr(callbacks.service.user_models, "get", get)
    slot = networks[0].name
    *_, change = callbacks.add_user_model(slot, "org/mine", {})
    assert change["replacements"] == {slot: "org/mine"}
    assert callbacks.service.sources_of("road", change["replacements"])[0] == "org/mine"
    assert "org/mine is a U-Net with 3 classes: road, sky, car." in change["user_model_note"]
    *_, change = callbacks.add_user_model(slot, "org/other", {})
    assert "replacements" not in change
    assert "no &lt;such&gt; model" in change["user_model_note"]
    assert next(callbacks.reset_models())["replacements"] == {}


def test_networks_run_where_the_page_says(service, street):
    asked = []

    def on_gpu(function):
        asked.append(function.__name__)
        return function

    Callbacks(service, Path(street), on_gpu)
    assert asked == ["compare", "confidence", "skips", "uncertainty"]


def test_a_view_that_fails_says_so_where_it_would_be(callbacks, session, monkeypatch, caplog):
    def broken(*_):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(callbacks, "confidence", broken)
    monkeypatch.setattr(callbacks, "uncertainty", broken)
    (change,) = callbacks.fill("confidence", session, [])
    assert "RuntimeError: out of memory" in change["heat_note"]
    *_, change = callbacks.draw_samples(session, 2)
    assert "RuntimeError: out of memory" in change["uncertainty_note"]
    assert "out of memory" in caplog.text
