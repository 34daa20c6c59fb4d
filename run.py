"""Set up and run. Requires only Python 3.11 or newer:

    python3 run.py demo          serve the page that compares the networks
    python3 run.py test          linters, type checker and tests (options as pytest;
                                 --lowest: the tests with the lowest supported versions)
    python3 run.py docs          build the documentation in site/ (docs serve: watch and serve it)
    python3 run.py COMMAND ...   any other `segmodels` command: predict, train, evaluate, ...

It creates a virtual environment in .venv and installs this repository there, with what the command
needs. Later runs reuse it until pyproject.toml changes. SEGMODELS_VENV names another folder.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
ENVIRONMENT = Path(os.environ.get("SEGMODELS_VENV") or HERE / ".venv")
# The extra of pyproject.toml that a command needs; commands not named here need "train".
EXTRAS = {"demo": "demo", "predict": "", "export": "export", "push": "export"}
EXTRAS |= {"test": "test", "docs": "docs"}
# pytest's processes, one more than processors, since tests also wait; tests/conftest.py groups the
# tests. Each process computes in one thread, and so do those that tests start.
PARALLEL = (f"--numprocesses={min((os.cpu_count() or 1) + 1, 4)}", "--no-loadscope-reorder")
CHECKS = ("ruff format --check", "ruff check", "lint-imports")


def main() -> int:
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print(__doc__)
        return 0 if len(sys.argv) > 1 else 2
    if sys.version_info < (3, 11):  # noqa: UP036  # the point is to say so on an older one
        print(f"Python 3.11 or newer is needed; this is {sys.version.split()[0]}", file=sys.stderr)
        return 1
    command, arguments = sys.argv[1], sys.argv[2:]
    lowest = command == "test" and "--lowest" in arguments
    environment = ENVIRONMENT.with_name(f"{ENVIRONMENT.name}-lowest") if lowest else ENVIRONMENT
    python = set_up(environment, EXTRAS.get(command, "train"), lowest=lowest)
    if command == "docs":
        subcommand = arguments or ["build", "--strict"]
        return subprocess.call([python, "-m", "mkdocs", *subcommand], cwd=HERE)
    if command != "test":
        return subprocess.call([python, "-m", "segmodels", command, *arguments])
    environ = {"OMP_NUM_THREADS": "1", **os.environ}
    environ.pop("PYTHONDONTWRITEBYTECODE", None)  # tests start many processes
    pytest: list[str | Path] = [python, "-m", "pytest", *PARALLEL, *arguments]
    if lowest:
        pytest.remove("--lowest")
        return subprocess.call(pytest, cwd=HERE, env=environ)
    for tool, *options in map(str.split, CHECKS):
        if subprocess.call([python.with_name(tool), *options], cwd=HERE):
            return 1
    # mypy takes half a minute, so it runs beside the tests.
    with subprocess.Popen([python.with_name("mypy")], cwd=HERE, stdout=subprocess.PIPE) as mypy:
        status = subprocess.call(pytest, cwd=HERE, env=environ)
        print(mypy.communicate()[0].decode())
    return status or mypy.returncode


def set_up(environment: Path, extra: str, *, lowest: bool = False) -> Path:
    """Install the repository with an extra, unless that was done for this pyproject.toml.

    Returns:
        The environment's Python.
    """
    python = environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    project = (HERE / "pyproject.toml").read_bytes()
    wanted = hashlib.sha256(project).hexdigest()
    stamp = environment / f"installed-{extra or 'core'}"
    if stamp.is_file() and stamp.read_text() == wanted:
        return python
    if not python.exists():
        print(f"creating a virtual environment in {environment} ...", flush=True)
        try:
            venv.create(environment, with_pip=True)
        except (ImportError, subprocess.CalledProcessError) as error:
            shutil.rmtree(environment, ignore_errors=True)
            raise SystemExit(
                f"cannot create a virtual environment ({error}); on Debian and Ubuntu: "
                "apt install python3-venv"
            ) from error
    print("installing; the first time this takes some minutes ...", flush=True)
    options: list[str | Path] = []
    if lowest:
        constraints = environment / "lowest.txt"
        constraints.write_text("\n".join(lowest_versions(project.decode())) + "\n")
        options = ["--constraint", constraints]
    target = f"{HERE}[{extra}]" if extra else f"{HERE}"
    subprocess.check_call(
        [python, "-m", "pip", "install", "--quiet", *options, "--editable", target]
    )
    stamp.write_text(wanted)
    return python


def lowest_versions(project: str) -> list[str]:
    """The lower bound of every dependency of users, as pip's constraints."""
    import tomllib  # not in the Pythons that `main` refuses

    metadata = tomllib.loads(project)["project"]
    groups = [metadata["dependencies"]]
    for extra, dependencies in metadata["optional-dependencies"].items():
        if extra not in ("test", "docs"):
            groups.append(dependencies)
    bounds = (re.match(r"([\w-]+)[^>]*>=([\d.]+)", line) for group in groups for line in group)
    return sorted(f"{found[1]}=={found[2]}" for found in bounds if found)


if __name__ == "__main__":
    sys.exit(main())
