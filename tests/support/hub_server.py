"""A Hugging Face Hub on the loopback interface, in memory: what huggingface_hub asks of the real
one to push and to pull models, with users, organisations, private repositories, branches, pull
requests and, on request, faults."""

import base64
import hashlib
import json
import re
import socket
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

from tests.support.hub_state import LARGE, Refusal, Repository, git_oid, lfs_pointer
from tests.support.hub_validator import card_errors


class LoopbackHub:
    """Starts and stops on one and the same port. `requests` logs "METHOD /path" of each."""

    def __init__(self, users):
        self.users = users  # token -> User
        self.repositories = {}
        self.blobs = {}  # oid -> bytes: SHA-256 of large files, git's SHA-1 of the others
        self.requests, self.faults = [], []
        self.then = {}  # pattern of a request -> what is done, once, before its answer is sent
        self.lock = threading.RLock()
        self.port = 0
        self.start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def start(self):
        self.connections = set()
        handler = type("BoundHandler", (Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), handler)
        self.server.daemon_threads = True
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self):
        """Refuse new connections and break the present ones, as a machine that goes away."""
        self.server.shutdown()
        self.server.server_close()
        for connection in list(self.connections):
            _break(connection)

    def fault(self, method, path):
        for fault in self.faults:
            if fault.times > 0 and re.search(fault.pattern, f"{method} {path}"):
                fault.times -= 1
                return fault.kind
        return None

    def publish(self, name, files, *, private=False, ref="main"):
        """Commit files, {path: content}, without a client; the commit's oid."""
        repository = self.repositories.setdefault(name, Repository(name, private))
        oids = {path: self.store(path, content) for path, content in files.items()}
        return repository.commit(ref, oids, "published")

    def store(self, path, content):
        large = path.endswith(LARGE)
        oid = hashlib.sha256(content).hexdigest() if large else git_oid(content)
        self.blobs[oid] = content
        return oid

    def file(self, name, path, ref="main"):
        """The content of a file of a repository."""
        repository = self.repositories[name]
        return self.blobs[repository.commits[repository.refs[ref]][path]]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: LoopbackHub

    def setup(self):
        super().setup()
        self.hub.connections.add(self.connection)

    def finish(self):
        self.hub.connections.discard(self.connection)
        with suppress(OSError):
            super().finish()

    log_message = lambda *_: None  # noqa: E731

    def handle_one_request(self):
        try:
            super().handle_one_request()
        except (ConnectionError, OSError):
            self.close_connection = True

    def answer(self):
        url = urlsplit(self.path)
        path = unquote(url.path)
        self.query = url.query
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.hub.requests.append(f"{self.command} {path}")
        kind = self.hub.fault(self.command, path)
        if kind == "close":
            self.close_connection = True
            return
        try:
            if isinstance(kind, int):
                raise Refusal(kind, message="out of order")
            with self.hub.lock:
                status, headers, body = self.route(url.path)
        except Refusal as refusal:
            text = {"error": refusal.message or refusal.code}
            headers = {"X-Error-Code": refusal.code, "X-Error-Message": refusal.message}
            status, body = refusal.status, json.dumps(text).encode()
        for pattern in [p for p in self.hub.then if re.search(p, f"{self.command} {path}")]:
            self.hub.then.pop(pattern)()
        self.send(status, headers, body, kind)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = answer  # noqa: N815

    def send(self, status, headers, body, kind):
        if isinstance(body, (dict, list)):
            body = json.dumps(body).encode()
            headers = {"Content-Type": "application/json", **headers}
        self.send_response(status)
        for key, value in headers.items():
            if value:
                self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return None
        if kind == "cut":
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            self.close_connection = True
            return _break(self.connection)
        if kind == "corrupt":
            middle = len(body) // 2
            body = body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]
        return self.wfile.write(body)

    def route(self, path):
        for pattern, method in ROUTES:
            if match := re.fullmatch(pattern, f"{self.command} {path}"):
                return method(self, *map(unquote, match.groups()))
        raise Refusal(404, message=f"no such endpoint: {self.command} {path}")

    # Who asks, and what for

    @property
    def user(self):
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if not token:
            return None
        if token not in self.hub.users:
            raise Refusal(401, message="Invalid credentials in Authorization header")
        return self.hub.users[token]

    @property
    def someone(self):
        if self.user is None:
            raise Refusal(401, message="Invalid username or password.")
        return self.user

    def readable(self, name):
        repository, user = self.hub.repositories.get(name), self.user
        spaces = (*user.writes, *user.reads) if user else ()
        if repository is None or (repository.private and name.split("/")[0] not in spaces):
            raise Refusal(404 if user else 401, "RepoNotFound", "Repository not found")
        return repository

    def writable(self, name):
        repository = self.readable(name)
        if name.split("/")[0] not in self.someone.writes:
            raise Refusal(403, message=f"You don't have the right to write to {name}")
        return repository

    def commit_of(self, repository, revision):
        oid = repository.resolve(revision)
        if oid is None:
            raise Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return oid

    # Endpoints

    def who_am_i(self):
        return 200, {}, {"type": "user", "name": self.someone.name, "orgs": []}

    def create(self):
        wanted, user = json.loads(self.body), self.someone
        space = wanted.get("organization") or user.name
        name = f"{space}/{wanted['name']}"
        if space not in user.writes:
            message = f'You don\'t have the rights to create a model under the namespace "{space}"'
            raise Refusal(403, message=message)
        if name in self.hub.repositories:
            raise Refusal(409, message="You already created this model repo")
        repository = Repository(name, private=wanted.get("visibility") == "private")
        attributes = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"
        self.hub.repositories[name] = repository
        oid = self.hub.store(".gitattributes", attributes)
        repository.commit("main", {".gitattributes": oid}, "initial commit")
        return 200, {}, {"url": f"{self.hub.url}/{name}", "name": name, "id": name}

    def validate_yaml(self):
        errors = card_errors(json.loads(self.body)["content"])
        found = {"errors": [{"message": error} for error in errors], "warnings": []}
        return (400 if errors else 200), {}, found

    def info(self, name, revision="main"):
        repository = self.readable(name)
        oid = self.commit_of(repository, revision)
        known = {"_id": name, "id": name, "sha": oid, "private": repository.private}
        siblings = [{"rfilename": path} for path in repository.commits[oid]]
        return 200, {}, known | {"siblings": siblings, "tags": [], "downloads": 0}

    def models(self):
        """Those of an author, filtered by the library in their card."""
        wanted = {key: values[0] for key, values in parse_qs(self.query).items()}
        found = []
        for name, repository in self.hub.repositories.items():
            oid = repository.commits[repository.refs["main"]].get("README.md")
            card = self.hub.blobs.get(oid, b"").decode()
            tags = re.findall(r"^library_name: (\S+)$", card, re.MULTILINE)
            if name.split("/")[0] == wanted["author"] and wanted.get("filter") in (None, *tags):
                found.append({"_id": name, "id": name, "tags": tags})
        return 200, {}, found

    def tree(self, name, revision):
        repository = self.readable(name)
        files = repository.commits[self.commit_of(repository, revision)]
        return 200, {}, [self.described(path, oid) for path, oid in files.items()]

    def paths_info(self, name, revision):
        repository = self.readable(name)
        files = repository.commits[self.commit_of(repository, revision)]
        paths = parse_qs(self.body.decode()).get("paths", [])  # a form, unlike the others
        return 200, {}, [self.described(path, files[path]) for path in paths if path in files]

    def described(self, path, oid):
        size = len(self.hub.blobs[oid])
        entry = {"type": "file", "path": path, "size": size, "oid": oid}
        if len(oid) == 64:
            pointer = git_oid(lfs_pointer(oid, size))
            lfs = {"oid": oid, "size": size, "pointerSize": len(lfs_pointer(oid, size))}
            entry |= {"oid": pointer, "lfs": lfs}
        return entry

    def branch(self, name, branch):
        repository = self.writable(name)
        if branch in repository.refs:
            raise Refusal(409, message="Reference already exists")
        repository.refs[branch] = repository.refs["main"]
        return 200, {}, {}

    def preupload(self, name, revision):
        repository = self.readable(name) if "create_pr" in self.query else self.writable(name)
        files = repository.commits[self.commit_of(repository, revision)]
        modes = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular",
                "shouldIgnore": False,
                "oid": files.get(file["path"]),
            }
            for file in json.loads(self.body)["files"]
        ]
        return 200, {}, {"files": modes}

    def lfs_batch(self, name):
        self.readable(name)
        objects = []
        for wanted in json.loads(self.body)["objects"]:
            entry = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in self.hub.blobs:
                upload = {"href": f"{self.hub.url}/lfs/{wanted['oid']}"}
                verify = {"href": f"{self.hub.url}/{name}.git/info/lfs/verify"}
                entry["actions"] = {"upload": upload, "verify": verify}
            objects.append(entry)
        return 200, {}, {"transfer": "basic", "objects": objects}

    def lfs_upload(self, oid):
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise Refusal(400, message="wrong hash")
        self.hub.blobs[oid] = self.body
        return 200, {}, b""

    def lfs_verify(self, name):
        self.readable(name)
        wanted = json.loads(self.body)
        if len(self.hub.blobs.get(wanted["oid"], b"")) != wanted["size"]:
            raise Refusal(404, message="not uploaded")
        return 200, {}, {}

    def commit(self, name, revision):
        request = "create_pr" in self.query
        repository = self.readable(name) if request else self.writable(name)
        files = dict(repository.commits[self.commit_of(repository, revision)])
        message = ""
        for line in map(json.loads, self.body.splitlines()):
            key, value = line["key"], line["value"]
            if key == "header":
                message = value["summary"]
            elif key == "file":
                content = base64.b64decode(value["content"])
                files[value["path"]] = self.hub.store(value["path"], content)
            elif key == "lfsFile":
                if value["oid"] not in self.hub.blobs:
                    raise Refusal(400, message="lfs file was not uploaded")
                files[value["path"]] = value["oid"]
            elif key == "deletedFile":
                del files[value["path"]]
        number = 1 + sum(ref.startswith("refs/pr/") for ref in repository.refs)
        ref = f"refs/pr/{number}" if request else revision
        oid = repository.commit(ref, files, message)
        home = f"{self.hub.url}/{name}"
        answer = {"success": True, "commitOid": oid, "commitUrl": f"{home}/commit/{oid}"}
        if request:
            answer["pullRequestUrl"] = f"{home}/discussions/{number}"
        return 200, {}, answer

    def resolve(self, name, revision, path):
        repository = self.readable(name)
        commit = self.commit_of(repository, revision)
        oid = repository.commits[commit].get(path)
        if oid is None:
            raise Refusal(404, "EntryNotFound", "Entry not found")
        content = self.hub.blobs[oid]
        headers = {"ETag": f'"{oid}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if len(oid) == 64:
            headers |= {"X-Linked-Etag": f'"{oid}"', "X-Linked-Size": str(len(content))}
        if match := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            first, last = int(match[1]), int(match[2] or len(content) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
            return 206, headers, content[first : last + 1]
        return 200, headers, content


NAME, REVISION = r"([^/]+/[^/]+)", r"([^/]+)"
ROUTES = [
    (r"GET /api/whoami-v2", Handler.who_am_i),
    (r"POST /api/repos/create", Handler.create),
    (r"POST /api/validate-yaml", Handler.validate_yaml),
    (r"GET /api/models", Handler.models),
    (rf"(?:GET|HEAD) /api/models/{NAME}", Handler.info),
    (rf"(?:GET|HEAD) /api/models/{NAME}/revision/{REVISION}", Handler.info),
    (rf"(?:GET|HEAD) /api/models/{NAME}/tree/{REVISION}/?", Handler.tree),
    (rf"POST /api/models/{NAME}/paths-info/{REVISION}", Handler.paths_info),
    (rf"POST /api/models/{NAME}/branch/{REVISION}", Handler.branch),
    (rf"POST /api/models/{NAME}/preupload/{REVISION}", Handler.preupload),
    (rf"POST /api/models/{NAME}/commit/{REVISION}", Handler.commit),
    (rf"POST /{NAME}\.git/info/lfs/objects/batch", Handler.lfs_batch),
    (r"PUT /lfs/([0-9a-f]{64})", Handler.lfs_upload),
    (rf"POST /{NAME}\.git/info/lfs/verify", Handler.lfs_verify),
    (rf"(?:GET|HEAD) /{NAME}/resolve/{REVISION}/(.+)", Handler.resolve),
]


def _break(connection):
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
