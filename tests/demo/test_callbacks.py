"""What happens when the page is used."""

from dataclasses import replace
from pathlib import Path

import pytest

from segmodels import CheckpointError
from segmodels.demo.callbacks import CLEARED, Actions


@pytest.fixture
def actions(host, street):
    return Actions(host, Path(street))


@pytest.fixture
def visit(actions, street):
    *_, last = actions.run(street, "road", {}, None, "areas")
    return last["visit"]


def test_a_run_clears_the_page_first_and_then_fills_it(actions, street):
    changes = list(actions.run(street, "road", {}, None, "areas"))
    assert changes[0] == CLEARED
    assert [change["visit"] is None for change in changes[1:]] == [True, True, True, False]


def test_the_same_question_is_not_answered_twice_unless_asked_again(actions, street, visit):
    assert list(actions.run(street, "road", {}, visit, "areas")) == []
    assert len(list(actions.run_again(street, "road", {}, visit, "areas"))) == 5
    assert len(list(actions.run(street, "everyday", {}, visit, "areas"))) == 3


def test_the_welcome_is_compared_once_for_all(actions, street, monkeypatch):
    first = actions.welcome()
    assert first["picture"] == street
    monkeypatch.setattr(actions, "compare", None)
    second = actions.welcome()
    assert second["masks"] is first["masks"]
    assert list(actions.run(street, "road", {}, second["visit"], "areas")) == []


def test_no_picture_clears_the_page_and_the_button_asks_for_one(actions):
    assert list(actions.run(None, "road", {}, None, "areas")) == [CLEARED]
    *_, last = actions.run_again(None, "road", {}, None, "areas")
    assert "Choose a picture first" in last["picture_note"]


def test_what_is_no_picture_is_told_beside_it(actions, tmp_path):
    (tmp_path / "notes.png").write_text("no picture")
    *_, last = actions.run(str(tmp_path / "notes.png"), "road", {}, None, "areas")
    assert last["masks"] is None
    assert "notes.png is not a picture" in last["picture_note"]


@pytest.mark.parametrize(
    ("tab", "component"), [("confidence", "heat"), ("skips", "stages"), ("take", "files")]
)
def test_a_tab_is_filled_when_it_is_opened_and_only_once(actions, visit, tab, component):
    changes = list(actions.fill(tab, visit, ["areas"]))
    assert any(change.get(component) for change in changes)
    assert changes[-1] == {"filled": ["areas", tab]}
    assert list(actions.fill(tab, visit, ["areas", tab])) == []
    (change,) = actions.fill(tab, None, [])
    assert "Compare a picture first" in "".join(change.values())


def test_an_open_tab_is_filled_after_the_run(actions, street):
    changes = list(actions.run(street, "road", {}, None, "skips"))
    assert changes[-2]["stages"]["panels"][-1]["state"] == "ready"
    assert changes[-1] == {"filled": ["skips"]}


def test_files_exist_while_they_are_handed_over(actions, visit):
    for change in actions.fill("take", visit, []):
        assert all(Path(file).is_file() for file in change.get("files", []))


def test_what_cannot_be_shown_is_explained_in_its_tab(actions, street, visit):
    *_, everyday = actions.run(street, "everyday", {}, None, "areas")
    (change,) = actions.fill("skips", everyday["visit"], [])
    assert "None of these networks is an FCN" in change["skips_note"]
    Path(street).unlink()
    *_, change = actions.fill("take", visit, [])
    assert "no longer on this server: choose it again" in change["take_note"]


def test_a_label_is_judged_and_a_wrong_one_explained(actions, visit, street):
    *_, change = actions.judge(street, visit)
    assert "colours of no class" in change["truth_note"]
    *_, change = actions.judge(street, None)
    assert "Compare a picture first" in change["truth_note"]
    assert list(actions.judge(None, None)) == [{"truth_note": ""}]


def test_samples_are_drawn_and_who_has_none_is_named(actions, visit):
    changes = list(actions.draw_samples(visit, 2))
    assert "U-Net" in changes[0]["uncertainty_note"]
    assert changes[-1]["variance"]["panels"][-1]["state"] == "ready"
    (change,) = actions.draw_samples(None, 2)
    assert "Compare a picture first" in change["uncertainty_note"]


def test_a_guest_takes_its_place_and_a_wrong_id_changes_nothing(actions, networks, monkeypatch):
    mine = replace(networks[1], source="org/mine")

    def get(hub_id):
        if hub_id != "org/mine":
            raise CheckpointError("no <such> model")
        return mine

    monkeypatch.setattr(actions.host.guests, "get", get)
    slot = networks[0].name
    *_, change = actions.invite(slot, "org/mine", {})
    assert change["guests"] == {slot: "org/mine"}
    assert actions.host.line_up("road", change["guests"])[0] == "org/mine"
    assert "org/mine is a U-Net with 3 classes: road, sky, car." in change["guest_note"]
    *_, change = actions.invite(slot, "org/other", {})
    assert "guests" not in change
    assert "no &lt;such&gt; model" in change["guest_note"]
    assert next(actions.send_away())["guests"] == {}


def test_networks_run_where_the_page_says(host, street):
    asked = []

    def on_gpu(function):
        asked.append(function.__name__)
        return function

    Actions(host, Path(street), on_gpu)
    assert asked == ["compare", "confidence", "skips", "uncertainty"]


def test_a_view_that_fails_says_so_where_it_would_be(actions, visit, monkeypatch, caplog):
    def broken(*_):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(actions, "confidence", broken)
    monkeypatch.setattr(actions, "uncertainty", broken)
    (change,) = actions.fill("confidence", visit, [])
    assert "RuntimeError: out of memory" in change["heat_note"]
    *_, change = actions.draw_samples(visit, 2)
    assert "RuntimeError: out of memory" in change["uncertainty_note"]
    assert "out of memory" in caplog.text
