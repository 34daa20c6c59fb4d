"""Uploads: what they are called outside the server, and what is left of one that fails."""

import asyncio
import errno
import json
from pathlib import Path

import pytest
from starlette.datastructures import Headers
from starlette.formparsers import MultiPartException

from segmodels.demo.uploads import CleanParser, UploadFolder, map_paths, storage_problem
from tests.support import loops

FILE = b'--x\r\nContent-Disposition: form-data; name="files"; filename="%s"\r\n\r\n%s\r\n--x--\r\n'


def test_a_client_names_files_of_the_folder_and_no_others(tmp_path):
    uploads = UploadFolder(tmp_path)
    assert uploads.real_path("/files/a/b c.png") == str(tmp_path / "a" / "b c.png")
    address = "https://any.host/seg/gradio_api/file=/files/a/b.png"  # what a result's `url` is
    assert uploads.real_path(address) == str(tmp_path / "a" / "b.png")
    for path in (
        *("", "a.png", "/etc/passwd", str(tmp_path / "a"), "/filesystem/a", "/files", "/files/"),
        *("/files/../a", "/files/a/../../b", "/files/a\0b", "/files/..\\a", "../files/a"),
        *("http://host/a.png", "file:///etc/passwd", "http://h/gradio_api/file=/etc/passwd"),
    ):
        real = uploads.real_path(path)
        assert real is None or real == str(tmp_path), path


@pytest.mark.parametrize("name", ["plain", "with space", "ünïcode", 'quo"te'])
def test_responses_do_not_contain_the_folder(tmp_path, name):
    folder = tmp_path / name
    uploads = UploadFolder(folder)
    from gradio_client.utils import encode_file_path

    answer = json.dumps(
        {
            "path": f"{folder}/a/b.png",
            "url": f"http://host/gradio_api/file={encode_file_path(f'{folder}/a/b.png')}",
        }
    ).encode()
    hidden = json.loads(uploads.hide(answer))
    assert hidden == {
        "path": "/files/a/b.png",
        "url": "http://host/gradio_api/file=/files/a/b.png",
    }


def test_paths_are_mapped_wherever_they_are_in_a_call(tmp_path):
    uploads = UploadFolder(tmp_path)
    data = {"data": [{"path": "/files/a.png"}, [{"path": "/files/b.png"}], {"path": None}, "path"]}
    assert map_paths(data, uploads.real_path) == {
        "data": [
            {"path": str(tmp_path / "a.png")},
            [{"path": str(tmp_path / "b.png")}],
            {"path": None},
            "path",
        ]
    }
    with pytest.raises(ValueError, match="/etc/passwd"):
        map_paths({"data": [[{"path": "/etc/passwd"}]]}, uploads.real_path)


def parse(folder, *chunks, **options):
    """The form of a body that comes in these chunks, of which one may be an exception."""

    async def stream():
        for chunk in chunks:
            if isinstance(chunk, BaseException):
                raise chunk
            yield chunk

    headers = Headers({"Content-Type": "multipart/form-data; boundary=x"})
    parser = CleanParser(headers, stream(), upload_dir=folder, max_file_size=1000, **options)
    return loops.run(parser.parse())


def test_a_whole_upload_is_a_file(tmp_path):
    form = parse(tmp_path, FILE % (b"a.png", b"content"))
    (file,) = form.getlist("files")
    assert (file.filename, Path(file.file.name).read_bytes()) == ("a.png", b"content")


@pytest.mark.parametrize("name", [b"..", b".", b"../..", b"a/.."])
def test_a_name_that_is_no_name_is_left_to_gradio(tmp_path, name):
    (file,) = parse(tmp_path, FILE % (name, b"content")).getlist("files")
    assert not file.filename


@pytest.mark.parametrize(
    "end",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        asyncio.CancelledError(),
        ConnectionResetError(),
        MultiPartException("too many"),
    ],
)
def test_an_upload_that_fails_leaves_nothing_behind(tmp_path, end):
    begun = (FILE % (b"a.png", bytes(500)))[:300]
    with pytest.raises(type(end)):
        parse(tmp_path, begun, end)
    assert list(tmp_path.iterdir()) == []


def test_a_form_that_holds_no_file_or_is_none_is_refused_in_words(tmp_path):
    field = b'--x\r\nContent-Disposition: form-data; name="files"\r\n\r\ntext\r\n--x--\r\n'
    with pytest.raises(MultiPartException, match="does not contain a file"):
        parse(tmp_path, field)
    with pytest.raises(MultiPartException):
        parse(tmp_path, b"no form at all")
    from gradio.route_utils import FileUploadProgress

    tracked = {"upload_id": "1", "upload_progress": FileUploadProgress()}
    with pytest.raises(MultiPartException, match="cannot be read"):
        parse(tmp_path, field, **tracked)  # Gradio takes every field for a file then
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "status"),
    [(errno.ENOSPC, 507), (errno.EDQUOT, 507), (errno.EROFS, 503), (errno.EACCES, 503)],
)
def test_a_full_disk_is_told_from_one_that_is_not_writable(number, status):
    assert storage_problem(OSError(number, "?"))[0] == status
