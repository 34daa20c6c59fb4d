"""The direction of imports: app -> comparison and drawing -> Segmenter -> pictures, tensors ->
networks -> nothing of ours."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "segmodels"
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py"))
COMMANDS = sorted(path.stem for path in (PACKAGE / "commands").glob("*.py"))
NETWORKS = ["fcn", "unet", "segnet"]
DATA = ["labels", "layouts", "data", "survey"]
TRAINING = ["train", "resume", "trainer", "batches", "batch_norms", "losses", "recipe", "augment"]
TRAINING += [*DATA, "processes", "memory", "evaluate", "metrics", "grid", "report"]
WITH_GRADIO = ["widgets", "api"]
DEMO = ["compare", "maps", "viewer", "visit", "host", "actions", "draw", "texts", "share", "take"]
DEMO += ["truth", "guests", *WITH_GRADIO]


def imports_of(module):
    """(our modules, top-level names of others) that a module imports, anywhere in it."""
    ours, others = set(), set()
    for node in ast.walk(ast.parse((PACKAGE / f"{module}.py").read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            source = "segmodels" if node.level else ""
            source = ".".join(filter(None, [source, node.module]))
            names = [source, *(f"{source}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            first, _, rest = name.partition(".")
            if first != "segmodels":
                others.add(first)
            elif rest.split(".")[0] in (*MODULES, "commands"):
                ours.add(rest.split(".")[0])
    return ours, others


def everything_behind(module):
    """Our modules that a module needs, directly or through others."""
    found, left = set(), [module]
    while left:
        new = imports_of(left.pop())[0] - found - {"commands"}
        found |= new
        left.extend(new)
    return found


def test_the_reader_of_imports_sees_them():
    assert imports_of("fcn") == ({"checks", "hub"}, {"collections", "torch"})
    assert "checkpoint" in everything_behind("fcn")


@pytest.mark.parametrize("module", NETWORKS)
def test_networks_know_nothing_of_ours_but_their_base_class_and_its_checks(module):
    ours, others = imports_of(module)
    assert ours == {"hub", "checks"}
    assert others <= {"collections", "torch"}


def test_the_base_class_knows_only_its_files_checks_and_colours():
    files = {"checkpoint", "config", "pull", "push"}
    assert imports_of("hub")[0] == {*files, "checks", "palette"}
    for module in files:
        assert everything_behind(module) <= {"checkpoint", "checks", "files"}
    assert imports_of("checks")[0] == imports_of("palette")[0] == set()
    assert imports_of("vgg16")[0] == {"checkpoint", "hub", "pull"}


@pytest.mark.parametrize("module", [*NETWORKS, "hub", "pull", "push", "palette", "vgg16"])
def test_nothing_behind_a_network_knows_pictures_pages_or_command_lines(module):
    for behind in {module, *everything_behind(module)}:
        assert not imports_of(behind)[1] & {"PIL", "gradio", "argparse", "tqdm", "kornia"}


@pytest.mark.parametrize("module", TRAINING)
def test_training_knows_nothing_of_the_demo(module):
    for behind in {module, *everything_behind(module)}:
        ours, others = imports_of(behind)
        assert not ours & {*DEMO, "cli"}
        assert not others & {"gradio", "app"}


def test_inference_knows_nothing_of_training():
    for behind in {"segmenter", *everything_behind("segmenter")}:
        assert not imports_of(behind)[0] & {*TRAINING, *DEMO, "benchmark", "cli"}
        assert not imports_of(behind)[1] & {"kornia", "accelerate"}


@pytest.mark.parametrize("module", [*DATA, "evaluate", "metrics", "grid", "report", "card"])
def test_data_and_evaluation_know_nothing_of_training(module):
    training = {"train", "resume", "trainer", "batches", "batch_norms", "losses", "augment"}
    assert not everything_behind(module) & training


def test_only_the_page_knows_its_server():
    for module in MODULES:
        assert "server" not in imports_of(module)[0]


@pytest.mark.parametrize("module", DEMO)
def test_the_demo_knows_nothing_of_training_and_gradio_only_where_it_must(module):
    ours, others = imports_of(module)
    assert not ours & {"train", "trainer", "recipe", "data", "augment", "evaluate"}
    assert module in WITH_GRADIO or "gradio" not in others
    assert not others & {"kornia", "scipy"}


def test_comparisons_know_nothing_of_the_page():
    for behind in {"compare", "maps", *everything_behind("compare")}:
        assert not imports_of(behind)[0] & set(DEMO) - {"compare", "maps"}


def test_pictures_know_no_network():
    assert not everything_behind("pictures") & {*NETWORKS, "hub", "segmenter"}


@pytest.mark.parametrize("module", MODULES)
def test_the_package_imports_no_app_and_only_main_the_command_line(module):
    assert "app" not in imports_of(module)[1]
    assert module == "__main__" or "cli" not in imports_of(module)[0]
    assert module == "cli" or "commands" not in imports_of(module)[0]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_know_neither_the_command_line_nor_the_app(command):
    ours, others = imports_of(f"commands/{command}")
    assert "cli" not in ours
    assert "app" not in others


def test_imports_have_one_direction():
    modules = [module for module in MODULES if not module.startswith("__")]
    order = list(TopologicalSorter({m: imports_of(m)[0] for m in modules}).static_order())
    assert order.index("hub") < order.index("fcn")


def loaded_with(module):
    code = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=True
    )
    return set(result.stdout.split())


def test_importing_the_package_loads_neither_gradio_nor_training_libraries():
    loaded = loaded_with("segmodels")
    assert {"segmodels", "torch"} <= loaded
    assert not loaded & {"gradio", "kornia", "scipy", "sklearn", "accelerate", "app"}


def test_the_page_needs_no_library_of_an_extra():
    loaded = loaded_with("app")
    assert {"app", "gradio"} <= loaded
    assert not loaded & {"kornia", "scipy", "sklearn", "onnx"}
