"""Set up and run, with nothing but Python 3.11 or newer:

    python3 run.py demo          the page that compares the networks (options as `segmodels demo`)
    python3 run.py test          linters, type checker and tests (options as pytest)
    python3 run.py COMMAND ...   any other `segmodels` command: predict, train, evaluate, ...

It makes a virtual environment in .venv, installs this repository and what it needs there, once and
again when pyproject.toml changes, and goes on in it.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
ENVIRONMENT = Path(os.environ.get("SEGMODELS_VENV") or HERE / ".venv")
BIN = ENVIRONMENT / ("Scripts" if os.name == "nt" else "bin")
EXTRAS = {"demo": "", "predict": "", "export": "[export]", "push": "[export]", "test": "[test]"}
CHECKS = (["ruff", "format", "--check"], ["ruff", "check"], ["mypy"])


def main() -> int:
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print(__doc__)
        return 2
    if sys.version_info < (3, 11):  # noqa: UP036  # the point is to say so on an older one
        print(f"Python 3.11 or newer is needed; this is {sys.version.split()[0]}", file=sys.stderr)
        return 1
    command, arguments = sys.argv[1], sys.argv[2:]
    set_up(EXTRAS.get(command, "[train]"))
    if command != "test":
        return subprocess.call([BIN / "python", "-m", "segmodels", command, *arguments])
    for check in CHECKS:
        if subprocess.call([BIN / "python", "-m", *check], cwd=HERE):
            return 1
    return subprocess.call([BIN / "python", "-m", "pytest", *arguments], cwd=HERE)


def set_up(extra: str) -> None:
    """Install into the environment, unless that was done for this pyproject.toml."""
    wanted = hashlib.sha256((HERE / "pyproject.toml").read_bytes()).hexdigest()
    stamp = ENVIRONMENT / f"installed{extra}"
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    if not BIN.is_dir():
        print(f"making a virtual environment in {ENVIRONMENT} ...", flush=True)
        try:
            venv.create(ENVIRONMENT, with_pip=True)
        except (ImportError, subprocess.CalledProcessError) as error:
            shutil.rmtree(ENVIRONMENT, ignore_errors=True)
            raise SystemExit(
                f"no virtual environment could be made ({error}); on Debian and Ubuntu: "
                "apt install python3-venv"
            ) from error
    print("installing; the first time this takes some minutes ...", flush=True)
    subprocess.check_call(
        [BIN / "python", "-m", "pip", "install", "--quiet", "--editable", f"{HERE}{extra}"]
    )
    stamp.write_text(wanted)


if __name__ == "__main__":
    sys.exit(main())
