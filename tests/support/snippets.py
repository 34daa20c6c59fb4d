"""The code in Markdown files: fenced blocks, and the commands in those of a shell."""

import re
import shlex
from dataclasses import dataclass, field

FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<code>.*?)^ *```$", re.M | re.S)


@dataclass(frozen=True)
class Snippet:
    """One fenced block.

    Attributes:
        language: what stands behind the opening fence, "" for none.
        code: its lines, without the fences' indentation.
        line: number of its first line in the file.
    """

    language: str
    code: str
    line: int


@dataclass(frozen=True)
class Command:
    """One command of a shell.

    Attributes:
        words: the command and its arguments.
        environment: variables that are set in front of it.
    """

    words: list[str]
    environment: dict[str, str] = field(default_factory=dict)


def snippets(markdown: str) -> list[Snippet]:
    """The fenced blocks of a Markdown text, in its order."""
    found = []
    for match in FENCE.finditer(markdown):
        indent = len(match["indent"])
        code = "".join(line[indent:] for line in match["code"].splitlines(keepends=True))
        line = markdown[: match.start("code")].count("\n") + 1
        found.append(Snippet(match["language"], code, line))
    return found


def commands(code: str) -> list[Command]:
    """The commands of a shell block: a line each, `&&` between two, comments left out."""
    found = []
    for line in code.replace("\\\n", " ").splitlines():
        words: list[str] = []
        for word in [*shlex.split(line, comments=True), "&&"]:
            if word != "&&":
                words.append(word)
            elif words:
                found.append(_command(words))
                words = []
    return found


def _command(words: list[str]) -> Command:
    environment = {}
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        name, _, environment[name] = words[0].partition("=")
        words = words[1:]
    return Command(words, environment)
