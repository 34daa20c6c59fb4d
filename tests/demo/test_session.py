"""What the server remembers of a comparison."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from segmodels.demo.session import ExpiredError, new_session
from segmodels.inference.comparison import ModelFailure, ModelResult, compare
from segmodels.inference.decoded_image import file_digest


def test_answers_come_back_as_they_were(networks, street):
    answers = [*compare(networks[:2], street), ModelFailure(networks[2], "no memory")]
    session = new_session(file_digest(Path(street)), street, "road", answers)
    assert session.sources == tuple(network.source for network in networks[:3])
    by_source = {network.source: network for network in networks}
    first, second, failure = session.answers(by_source.__getitem__)
    for before, after in zip(answers, (first, second), strict=False):
        assert isinstance(after, ModelResult)
        assert after.network is before.network
        assert after.seconds == before.seconds
        assert np.array_equal(after.segmentation.class_map, before.segmentation.class_map)
        assert np.array_equal(after.segmentation.array, before.segmentation.array)
    assert failure == answers[2]
    assert session.has_results
    assert not new_session("", street, "road", [failure]).has_results


def test_what_is_remembered_is_small_and_holds_no_image(networks, street):
    picture = np.zeros((1000, 1500, 3), np.uint8)
    session = new_session(
        file_digest(Path(street)), street, "road", list(compare(networks[1:2], picture))
    )
    assert len(pickle.dumps(session)) < 100_000  # the class map alone has 1.5 million bytes


def test_a_picture_that_was_deleted_is_asked_for_again(networks, street):
    session = new_session(
        file_digest(Path(street)), street, "road", list(compare(networks[1:2], street))
    )
    Path(street).unlink()
    with pytest.raises(ExpiredError, match=r"^my street\.png has expired$"):
        session.image()


def test_the_same_question_is_known_by_picture_scene_and_networks(street, tmp_path):
    (tmp_path / "copy.png").write_bytes(Path(street).read_bytes())
    one = new_session(file_digest(Path(street)), street, "road", [])
    assert one.key == new_session(file_digest(tmp_path / "copy.png"), "copy", "road", []).key
    assert one.key != new_session(file_digest(Path(street)), street, "everyday", []).key
