"""The tabs for videos and the camera, without a browser."""

from types import SimpleNamespace

import gradio as gr
import pytest

from segmodels.demo import video_tab
from segmodels.demo.video_tab import CameraTab, VideoTab
from tests.support import loops
from tests.support.clips import read_clip, write_clip


def laid_out(build):
    """What `build` returns, called in a page, and the page; in an event loop, as outside of one
    Gradio makes some that stay."""

    async def call():
        with gr.Blocks() as page:
            return build(), page

    return loops.run(call())


@pytest.fixture
def tab(service, tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "work"))
    monkeypatch.setattr(video_tab, "LOOK", 0)
    return laid_out(lambda: VideoTab(service, lambda function: function))[0]


def test_the_result_is_a_playable_file_named_after_the_video(tab, tmp_path):
    clip = write_clip(tmp_path / "street.mp4", sound=True)
    notes = []
    for result, note in tab.run(str(clip), "everyday", {}, 0, False):
        notes.append(note)
        if isinstance(result, str):
            assert result.endswith("/street_masks.mp4")
            assert len(read_clip(result)[0]) == 6
    assert "Frame 1 of 6" in notes[1]
    assert "6 frames" in notes[-1]
    assert "The sound is left out" in notes[-1]
    assert list((tmp_path / "work").iterdir()) == []


def test_what_is_wrong_is_said_and_nothing_is_left(tab, tmp_path):
    (tmp_path / "notes.mp4").write_text("no video at all")
    long = write_clip(tmp_path / "long.mp4", times=[0, 1, 2, 3, 4, 300])
    for path, words in (
        (None, "Choose a video first"),
        (tmp_path / "gone.mp4", "Choose a video first"),
        (tmp_path / "notes.mp4", "notes.mp4 is not a video"),
        (long, "longer than 20 seconds"),
    ):
        *_, (result, note) = tab.run(path and str(path), "everyday", {}, 0, False)
        assert result is None
        assert words in note
        assert str(tmp_path) not in note
    assert list((tmp_path / "work").iterdir()) == []


def test_stopping_leaves_nothing(tab, tmp_path):
    running = tab.run(str(write_clip(tmp_path / "clip.mp4")), "everyday", {}, 0, False)
    next(running)
    next(running)
    running.close()
    assert list((tmp_path / "work").iterdir()) == []


def test_without_pyav_the_tab_says_how_to_install_it(service, monkeypatch):
    monkeypatch.setattr(video_tab, "find_spec", lambda name: None)

    def build():
        VideoTab(service, lambda function: function).wire(gr.Radio(), gr.State({}))

    _, page = laid_out(build)
    texts = [block.value for block in page.blocks.values() if isinstance(block, gr.Markdown)]
    assert any('pip install "segmodels[demo,video]"' in text for text in texts)


def test_a_frame_that_is_none_is_answered_with_its_number(service):
    camera, _ = laid_out(lambda: CameraTab(service, lambda function: function))
    event = SimpleNamespace(number=3, image="nothing")
    _, answer = camera.answer_frame("weights_card/unet-camvid", event)
    assert answer["number"] == 3
    assert "expected a camera frame" in answer["problem"]
