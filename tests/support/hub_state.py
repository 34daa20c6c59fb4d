"""What a Hub holds: users, repositories and their commits; and the faults that a test asks for."""

import hashlib
import json
from dataclasses import dataclass, field

LARGE = (".safetensors", ".onnx", ".png", ".bin")


@dataclass
class User:
    """writes: the namespaces, the own one and organisations', in which the user may write."""

    name: str
    writes: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()


@dataclass
class Repository:
    name: str
    private: bool
    commits: dict[str, dict[str, str]] = field(default_factory=dict)  # oid -> {path: blob's oid}
    messages: dict[str, str] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def commit(self, ref, files, message):
        text = json.dumps([files, message, len(self.commits), self.name])
        oid = hashlib.sha1(text.encode()).hexdigest()
        self.commits[oid], self.messages[oid], self.refs[ref] = files, message, oid
        return oid

    def resolve(self, revision):
        return revision if revision in self.commits else self.refs.get(revision)


@dataclass
class Fault:
    """What happens to the next `times` requests whose method and path match: "close" the connection
    unanswered, "cut" it half way through the body, "corrupt" one byte of the body, or a status."""

    pattern: str
    kind: str | int
    times: int = 1


class Refusal(Exception):  # noqa: N818  # an answer of the protocol
    def __init__(self, status, code="", message=""):
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


def git_oid(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def lfs_pointer(oid, size):
    text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {size}\n"
    return text.encode()
