"""The table of scenes."""

from segmodels.demo.page import EXAMPLES
from segmodels.demo.scenes import SCENES, examples_of, scene_of
from segmodels.inference import comparison


def test_every_scene_that_networks_can_belong_to_has_words():
    assert set(comparison.SCENES.values()) | {"own"} == set(SCENES)
    assert all(scene.label and scene.description for scene in SCENES.values())
    assert scene_of("user") is SCENES["own"]


def test_examples_are_those_whose_files_are_there_each_with_a_caption(tmp_path):
    (tmp_path / "crossing.jpg").touch()
    (tmp_path / "cat.jpg").touch()
    assert [example.key for example in examples_of("road", tmp_path)] == ["crossing"]
    assert [example.key for example in examples_of("own", tmp_path)] == ["crossing", "cat"]
    assert examples_of("road", None) == []
    for name in ("road", "animals"):
        examples = examples_of(name, EXAMPLES)
        assert len(examples) >= 3
        assert all(example.title and example.caption for example in examples)
        assert len({example.key for example in examples}) == len(examples)
