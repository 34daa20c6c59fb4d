"""Every snippet and command of README and documentation runs, on small networks and data.

Pages are run one after the other in one process that talks to a Hub on the loopback interface. Of
each page the snippets run from top to bottom, with one namespace, in a folder that looks like a
clone of the repository: `weights_card/` holds small networks by the published names, `my-data` a
tiny dataset, and the images in `examples/` are small. Trainings and benchmarks are made short.
"""

import os
import re
import runpy
import shutil
import subprocess
import sys
import tomllib

import pytest
from PIL import Image

from segmodels import FCN, SegNet, UNet
from segmodels.cli.main import COMMANDS
from segmodels.evaluation.engines import ENGINES
from tests.support.datasets import CLASS_NAMES, write_camvid
from tests.support.hub_client import Client
from tests.support.server import GATED, running
from tests.support.serving import ROOT
from tests.support.snippets import commands, snippets

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md"))]
PAGES = [page for page in PAGES if page.is_file()]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NAMES = [command.__name__.rpartition(".")[2] for command in COMMANDS]
NOT_RUN = {"", "text", "json", "yaml", "toml", "bibtex"}  # languages of what is no code
SHORT = ["--device", "cpu", "--epochs", "1", "--half-size-epochs", "0", "--batch-size", "1"]
SHORT += ["--crop", "32", "32", "--frozen", "0"]
SMALL = {"fcn": ["--head-channels", "8"], "unet": ["--base-channels", "2"]}
SMALL["segnet"] = ["--variant", "basic"]
RUN = """
import os
from segmodels.cli.main import main
from segmodels.evaluation import benchmark

benchmark.measure_memory = lambda *_: {}  # tests/evaluation and test_packaging.py measure it
os.chdir(folder)
scope = {"__name__": "snippet"}
for line, kind, code, variables in cells:
    try:
        before = dict(os.environ)
        os.environ.update(variables)
        if kind == "python":
            exec(compile(code, f"{page}:{line}", "exec"), scope)
        elif (status := main(code)) != 0:
            raise RuntimeError(f"exit status {status}")
    except BaseException as error:
        raise RuntimeError(f"{page}:{line}: {code}: {type(error).__name__}: {error}") from error
    finally:
        os.environ.clear()
        os.environ.update(before)
"""


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """Small networks by the names of the published ones."""
    folder = tmp_path_factory.mktemp("networks")
    names = ["sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car"]
    road = {"class_names": [*names, "pedestrian", "bicyclist"], "working_size": 64}
    UNet(base_channels=2, **road).save_pretrained(folder / "unet-camvid")
    FCN(head_channels=8, **road).save_pretrained(folder / "fcn-camvid")
    SegNet(variant="basic", dropout=0.5, **road).save_pretrained(folder / "segnet-camvid")
    return folder


@pytest.fixture(scope="module")
def address(networks, tmp_path_factory):
    """A page that serves them, and compares no example before it is asked to."""
    served = ",".join(str(path) for path in sorted(networks.iterdir()))
    with running(served, tmp_path_factory.mktemp("page"), prelude=GATED) as (url, _):
        yield url


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    """The repository's examples, their images small."""
    folder = tmp_path_factory.mktemp("clone") / "examples"
    shutil.copytree(ROOT / "examples", folder)
    for path in (*folder.glob("*.jpg"), *folder.glob("*.png")):
        with Image.open(path) as image:
            image.thumbnail((96, 96))
            image.save(path)
    return folder


@pytest.fixture(scope="module")
def alice(hub, tmp_path_factory):
    """A process that is logged in to the Hub and may write to `org`."""
    process = Client(hub.url, tmp_path_factory.mktemp("hf-home"), HF_TOKEN="alice-token")
    yield process
    process.close()


@pytest.fixture
def clone(networks, examples, vgg16_file, hub, tmp_path):
    """A folder that looks like a clone of the repository, with what a user would have there."""
    shutil.copytree(networks, tmp_path / "weights_card")
    shutil.copytree(examples, tmp_path / "examples")
    shutil.copy(tmp_path / "examples" / "avenue.jpg", tmp_path / "street.jpg")
    (tmp_path / "photos").mkdir()
    shutil.copy(tmp_path / "street.jpg", tmp_path / "photos")
    shutil.copy(vgg16_file, tmp_path / "VGG16.safetensors")
    write_camvid(tmp_path / "my-data", train=3, val=2, test=2)
    for network in networks.iterdir():
        files = {path.name: path.read_bytes() for path in network.iterdir()}
        hub.publish(f"org/{network.name}", files)
    return tmp_path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_snippet_runs(page, clone, alice, request):
    text = page.read_text(encoding="utf-8")
    if "127.0.0.1:7860" in text and "gradio_client" in text:
        text = text.replace("http://127.0.0.1:7860", request.getfixturevalue("address"))
    if "my-unet" in text and "--out my-unet" not in text:
        UNet(class_names=CLASS_NAMES, base_channels=2).save_pretrained(clone / "my-unet")
    text = text.replace("TrainingConfig(", "TrainingConfig(base_channels=2, ")
    cells = []
    for snippet in snippets(text):
        if snippet.language == "python":
            cells.append((snippet.line, "python", snippet.code, {}))
        elif snippet.language == "bash":
            for command in commands(snippet.code):
                if arguments := checked(command.words):
                    cells.append((snippet.line, "command", arguments, command.environment))
        else:
            assert snippet.language in NOT_RUN, f"{page.name}:{snippet.line}"
    if cells:
        alice.result(RUN, folder=str(clone), page=page.name, cells=cells)


def checked(words):
    """The arguments of `segmodels` that this command runs, None where it is checked otherwise."""
    if words[0] == "segmodels":
        return runnable(words[1:])
    if words[:2] == ["python3", "run.py"]:
        if words[2] in ("test", "docs"):
            return None
        return runnable(words[2:])
    program = words[0]
    if program == "pip":
        extras = set(re.findall(r"[\w-]+", words[-1].partition("[")[2]))
        assert words[1] == "install"
        assert extras <= set(PROJECT["optional-dependencies"])
    elif program == "python":
        module = words[2].replace(".", "/") + ".py" if words[1] == "-m" else words[1]
        assert (ROOT / module).is_file(), words
    else:  # run in the tests below, or by hand
        assert program in ("cd", "git", "hf", "rm", "accelerate", "torchrun", "pre-commit"), words
    return None


def runnable(arguments):
    """The same command, made short."""
    name = arguments[0]
    assert name in NAMES, arguments
    if name == "demo":  # serves until it is stopped: tests/demo and `address` do
        return [*arguments[:1], "--help"] if "--help" in arguments else None
    if name == "train" and "--help" not in arguments:
        network = next((word for word in arguments if word in SMALL), "unet")
        return [*arguments, *SHORT, *SMALL[network]]
    if name == "benchmark":
        short = [*arguments, "--seconds", "0.01", "--case", "480x360", "--image", "street.jpg"]
        if "--against" in arguments:
            assert set(arguments[arguments.index("--against") + 1].split(",")) <= set(ENGINES)
            short += ["--against", "openvino"]  # tests/evaluation measures the others
        return short
    return arguments


def test_the_parser_of_snippets_sees_blocks_and_commands():
    markdown = "a\n\n```bash\nA=1 x --b \\\n  'c d' && y  # why\n```\n"
    markdown += "\n- item\n\n  ```python\n  z()\n  ```\n"
    shell, python = snippets(markdown)
    assert (shell.language, shell.line) == ("bash", 4)
    first, second = commands(shell.code)
    assert (first.words, first.environment) == (["x", "--b", "c d"], {"A": "1"})
    assert (second.words, second.environment) == (["y"], {})
    assert python.code == "z()\n"


@pytest.mark.weights
@pytest.mark.parametrize("file", [ROOT / "README.md", ROOT / "docs" / "training.md"], ids=str)
def test_tables_are_those_of_weights_and_code(file):
    """`python docs/tables.py` writes them anew."""
    tables = runpy.run_path(str(ROOT / "docs" / "tables.py"))
    assert file in tables["TABLES"]
    assert file.read_text(encoding="utf-8") == tables["updated"](file)


@pytest.mark.skipif(not shutil.which("git-lfs"), reason="git-lfs is not installed")
def test_the_commands_for_a_space_push_a_clone_with_git_lfs(tmp_path):
    """As docs/hub.md has them; the clone is a small repository, the Space a bare one."""
    page = (ROOT / "docs" / "hub.md").read_text(encoding="utf-8")
    (block,) = (s.code for s in snippets(page) if "git lfs" in s.code)
    origin, space = tmp_path / "origin", tmp_path / "space.git"
    (origin / "weights_card" / "net").mkdir(parents=True)
    (origin / "weights_card" / "net" / "model.safetensors").write_bytes(bytes(1000))
    (origin / "app.py").write_text("print()\n")
    environment = os.environ | {"GIT_CONFIG_GLOBAL": str(tmp_path / "config")}
    environment |= {"GIT_TERMINAL_PROMPT": "0"}
    (tmp_path / "config").write_text("[user]\nname = A\nemail = a@example.org\n")

    def shell(script):
        run = ["bash", "-euo", "pipefail", "-c", script]
        result = subprocess.run(
            run, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    shell("cd origin && git init -q && git add . && git commit -qm one")
    shell(f"git init -q --bare --initial-branch main {space}")
    block = block.replace("https://github.com/segmodels/segmodels", f"file://{origin}")
    block = block.replace("https://huggingface.co/spaces/ORG/NAME", f"file://{space}")
    shell(block)
    pointer = shell(f"git -C {space} show main:weights_card/net/model.safetensors")
    assert pointer.startswith("version https://git-lfs.github.com/spec/v1")


@pytest.mark.slow
def test_the_site_builds_strictly(tmp_path):
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    for page in (tmp_path / "site").rglob("*.html"):
        loaded = re.findall(
            r"<(?:script|img|link rel=\"stylesheet\")[^>]*(?:src|href)=\"(https?:[^\"]*)",
            page.read_text(),
        )
        assert not loaded, page.name
