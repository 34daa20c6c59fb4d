"""The table of scenes, and folders of examples."""

import json

import pytest
from PIL import Image

from segmodels.demo import scenes
from segmodels.demo.page import EXAMPLES
from segmodels.demo.scenes import SCENES, ExampleFolder, ExamplesError, Note, scene_of
from segmodels.inference import comparison


def keys(examples):
    return [example.key for example in examples]


def test_every_scene_that_networks_can_belong_to_has_words():
    assert set(comparison.SCENES.values()) | {"own"} == set(SCENES)
    assert all(scene.label and scene.description for scene in SCENES.values())
    assert scene_of("user") is SCENES["own"]


def test_road_comes_first_and_scenes_without_words_last():
    order = scenes.in_order(["own-2", "everyday", "biomedical", "own", "road", "animals"])
    assert order == ["road", "animals", "biomedical", "everyday", "own", "own-2"]


def test_examples_are_those_whose_files_are_there(tmp_path):
    (tmp_path / "crossing.jpg").touch()
    (tmp_path / "cat.jpg").touch()
    folder = ExampleFolder(tmp_path)
    assert keys(folder.examples("road")) == ["crossing"]
    assert keys(folder.examples("own")) == keys(folder.all) == ["crossing", "cat"]
    assert ExampleFolder(None).examples("road") == []


@pytest.mark.parametrize("scene", ["road", "animals", "biomedical"])
def test_every_scene_has_its_examples_each_with_a_caption(scene):
    examples = ExampleFolder(EXAMPLES).examples(scene)
    assert examples == list(SCENES[scene].examples)
    assert len(examples) == 6
    assert all(example.title and example.caption for example in examples)
    assert len(set(keys(examples))) == len(examples)
    assert all(0 < x < 1 for example in examples for n in example.notes for x in (n.x, n.y))


@pytest.fixture
def own(tmp_path):
    for name in ("b.png", "a-cell.png"):
        Image.new("RGB", (4, 3)).save(tmp_path / name)
    return tmp_path


def write(folder, words):
    (folder / "examples.json").write_text(json.dumps(words))
    return ExampleFolder(folder, is_own=True)


def test_an_operators_images_are_offered_in_every_scene(own):
    folder = ExampleFolder(own, is_own=True)
    assert [e.title for e in folder.examples("road")] == ["A cell", "B"]
    assert folder.introduction is None
    scene = folder.scene("own-2", ["nucleus", "membrane"])
    assert scene.label == "Own: nucleus, membrane"
    assert scene.description.endswith("Classes: nucleus, membrane.")


def test_an_operators_words_and_order_come_first(own):
    entry = {"file": "b.png", "title": "Beta", "caption": "Look.", "scene": "own",
             "notes": [{"text": "here", "x": 0.5, "y": 0.25}]}  # fmt: skip
    words = {"introduction": "Cells.", "scenes": {"own": {"label": "Cells", "description": "D."}}}
    folder = write(own, {**words, "examples": [entry]})
    assert keys(folder.examples("own")) == ["b", "a-cell"]
    assert keys(folder.examples("road")) == ["a-cell"]
    assert folder.examples("own")[0].notes == (Note("here", 0.5, 0.25),)
    assert folder.introduction == "Cells."
    assert folder.scene("own", ["x"]).label == "Cells"
    assert folder.scene("own", ["x"]).description == "D."


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"examples": [{"title": "no file"}]}, "is not a valid example; expected an object with"),
        ({"examples": [{"file": "c.png"}]}, "lists c.png, which is not in"),
        ({"examples": [{"file": "b.png", "notes": [{"where": 1}]}]}, "is not a valid example"),
        ([], "contains a list; expected an object"),
    ],
)
def test_wrong_words_are_explained(own, words, message):
    with pytest.raises(ExamplesError, match=message):
        write(own, words)


def test_the_environment_names_an_operators_folder(own, monkeypatch):
    monkeypatch.setenv("SEGMODELS_EXAMPLES", str(own))
    assert keys(scenes.example_folder(EXAMPLES).all) == ["a-cell", "b"]
    monkeypatch.setenv("SEGMODELS_EXAMPLES", str(own / "none"))
    with pytest.raises(ExamplesError, match="expected a folder of images"):
        scenes.example_folder(EXAMPLES)
    monkeypatch.delenv("SEGMODELS_EXAMPLES")
    assert "avenue" in keys(scenes.example_folder(EXAMPLES).all)
