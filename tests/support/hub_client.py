"""The real huggingface_hub, in a process of its own: it reads its environment when it is imported.

As a program: runs pieces of Python, a JSON string a line, and answers each with a line of JSON.
"""

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace


class Client:
    """A process that speaks to the Hub at `endpoint`."""

    def __init__(self, endpoint, home, **environment):
        settings = {
            "HF_ENDPOINT": endpoint,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path]),
        }
        inherited = {key: value for key, value in os.environ.items() if key[:3] != "HF_"}
        self.process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=inherited | settings | environment,
            text=True,
        )

    def run(self, code, **names):
        """Run the code, with JSON-able names; what it leaves as `result`, what it printed, and the
        error that it raised, or None."""
        code = "".join(f"{name} = {value!r}\n" for name, value in names.items()) + code
        self.process.stdin.write(json.dumps(code) + "\n")
        self.process.stdin.flush()
        return SimpleNamespace(**json.loads(self.process.stdout.readline()))

    def result(self, code, **names):
        """`run`'s result, where no error is expected."""
        answer = self.run(code, **names)
        assert answer.error is None, f"{answer.error}: {answer.message}\n{answer.err}"
        return answer.result

    def close(self):
        self.process.communicate()  # its input ends, and so does it


def serve():
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        out, err, scope = io.StringIO(), io.StringIO(), {}
        answer = {"result": None, "error": None, "message": ""}
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                exec(json.loads(line), scope)
                answer["result"] = scope.get("result")
            except Exception as error:
                answer |= {"error": type(error).__name__, "message": str(error)}
        answer |= {"out": out.getvalue(), "err": err.getvalue()}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    serve()
