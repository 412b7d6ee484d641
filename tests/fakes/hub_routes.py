"""What the Hub's double answers: one function a route."""

import base64
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote

from fakes.hub_card import card_problems
from fakes.hub_repository import BORN_WITH, Commit, File, Repository, entries, is_lfs

if TYPE_CHECKING:
    from fakes.hub import Hub

SIGNATURE = "X-Amz-Signature=5ecre7"


@dataclass(frozen=True)
class Question:
    method: str
    path: str
    parts: tuple[str, ...]
    query: Mapping[str, str]
    host: str
    token: str | None
    range: str | None
    body: bytes


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


class Refused(Exception):
    def __init__(self, status: int, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.answer = refusal(status, message, code=code)


def refusal(status: int, message: str, *, code: str | None = None, headers: Mapping[str, str] | None = None) -> Answer:
    told = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {}), "X-Request-Id": "Root=1-double"}
    return Answer(status, json.dumps({"error": message}).encode(), {**told, **(headers or {})})


def told(content: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    return Answer(status, json.dumps(content).encode(), {"Content-Type": "application/json", **(headers or {})})


def api(hub: "Hub", question: Question) -> Answer:
    """The endpoint: a route by its words, as `GET /api/models/OWNER/NAME/tree/REVISION`."""
    try:
        if question.token is not None and question.token not in hub.accounts:
            raise Refused(401, "Invalid credentials in Authorization header")
        return routed(hub, question)
    except Refused as refused:
        return refused.answer


def routed(hub: "Hub", question: Question) -> Answer:
    fixed = {"api/whoami-v2": whoami, "api/repos/create": create, "api/validate-yaml": validate_yaml}
    match question.parts:
        case parts if "/".join(parts) in fixed:
            return fixed["/".join(parts)](hub, question)
        case ("api", "models" | "datasets" as kind, owner, name, *rest):
            return of_repository(hub, question, repository=visible(hub, question, kind=kind, name=f"{owner}/{name}"), rest=rest)
        case ("datasets", owner, name, *rest):
            return of_files(hub, question, kind="datasets", name=f"{owner}/{name}", rest=rest)
        case (owner, name, *rest):
            return of_files(hub, question, kind="models", name=f"{owner}/{name}", rest=rest)
        case _:
            raise Refused(404, "Sorry, we can't find the page you are looking for.")


def of_repository(hub: "Hub", question: Question, *, repository: Repository, rest: list[str]) -> Answer:
    routes: dict[str, Callable[..., Answer]] = {"tree": tree, "paths-info": paths_info, "preupload": preupload, "commit": commit}
    match rest:
        case []:
            return info(hub, repository, revision="main")
        case ["revision", revision]:
            return info(hub, repository, revision=revision)
        case ["auth-check"]:
            opened(hub, question, repository)
            return told({})
        case ["refs"]:
            return refs(repository)
        case [word, revision, *path] if word in routes:
            return routes[word](hub, question, repository=repository, revision=revision, path="/".join(path))
        case _:
            raise Refused(404, f"the double has no route {question.path}")


def of_files(hub: "Hub", question: Question, *, kind: str, name: str, rest: list[str]) -> Answer:
    repository = visible(hub, question, kind=kind, name=name.removesuffix(".git"))
    match rest:
        case ["resolve", revision, *path]:
            return resolve(hub, question, repository=repository, revision=revision, path="/".join(path))
        case ["info", "lfs", "objects", "batch"]:
            return lfs_batch(hub, question, repository=repository)
        case ["info", "lfs", "verify"]:
            return lfs_verify(question, repository=repository)
        case _:
            raise Refused(404, "Entry not found", code="EntryNotFound")


# Who may do what


def visible(hub: "Hub", question: Question, *, kind: str, name: str) -> Repository:
    """To an anonymous reader a private repository and none at all look the same."""
    repository = hub.repositories.get((kind, name))
    account = hub.accounts.get(question.token or "")
    if repository is not None and (not repository.private or (account and account.name == repository.owner)):
        return repository
    if account is None:
        raise Refused(401, "Invalid username or password.")
    raise Refused(404, "Repository not found", code="RepoNotFound")


def opened(hub: "Hub", question: Question, repository: Repository) -> None:
    """A gated repository lists its files to everybody and gives them to those who were granted access."""
    account = hub.accounts.get(question.token or "")
    if not repository.gated or (account and account.name in {repository.owner, *repository.granted}):
        return
    what = f"Access to {repository.kind[:-1]} {repository.name} is restricted"
    if account is None:
        message = f"{what}. You must have access to it and be authenticated to access it. Please log in."
        raise Refused(401, message, code="GatedRepo")
    page = f"{hub.endpoint}/{repository.name}"
    raise Refused(403, f"{what} and you are not in the authorized list. Visit {page} to ask for access.", code="GatedRepo")


def writable(hub: "Hub", question: Question, repository: Repository) -> None:
    account = hub.accounts.get(question.token or "")
    if account is None:
        raise Refused(401, "Invalid username or password.")
    if account.role != "write" or account.name != repository.owner:
        raise Refused(403, "Forbidden: pass `create_pr=1` as a query parameter to create a Pull Request")


def found(repository: Repository, revision: str) -> Commit:
    commit = repository.find(revision)
    if commit is None:
        raise Refused(404, f"Invalid rev id: {revision}", code="RevisionNotFound")
    return commit


# Routes


def whoami(hub: "Hub", question: Question) -> Answer:
    account = hub.accounts.get(question.token or "")
    if account is None:
        raise Refused(401, "Invalid username or password.")
    access = {"displayName": "a token of the tests", "role": account.role}
    return told({"type": "user", "name": account.name, "orgs": [], "auth": {"type": "access_token", "accessToken": access}})


def create(hub: "Hub", question: Question) -> Answer:
    wish = json.loads(question.body)
    account = hub.accounts.get(question.token or "")
    if account is None:
        raise Refused(401, "Invalid username or password.")
    kind, owner = wish.get("type", "model"), wish.get("organization") or account.name
    if account.role != "write" or owner != account.name:
        raise Refused(403, f'You don\'t have the rights to create a {kind} under the namespace "{owner}"')
    name = f"{owner}/{wish['name']}"
    if (f"{kind}s", name) in hub.repositories:
        raise Refused(409, f"You already created this {kind} repo")
    hub.new_repo(f"{kind}s", name, BORN_WITH, private=wish.get("visibility") == "private")  # pyright: ignore[reportArgumentType]
    return told({"url": f"{hub.endpoint}/{name}", "name": name})


def validate_yaml(hub: "Hub", question: Question) -> Answer:
    content = json.loads(question.body)["content"]
    errors, warnings = card_problems(content)
    return told({"errors": errors, "warnings": warnings}, status=400 if errors else 200)


def info(hub: "Hub", repository: Repository, *, revision: str) -> Answer:
    commit = found(repository, revision)
    return told(
        {
            "id": repository.name,
            "author": repository.owner,
            "sha": commit.oid,
            "private": repository.private,
            "gated": "auto" if repository.gated else False,
            "disabled": False,
            "tags": [],
            "downloads": 0,
            "likes": 0,
            "siblings": [{"rfilename": path} for path in sorted(commit.files)],
        }
    )


def refs(repository: Repository) -> Answer:
    def listed(names: Mapping[str, str], *, kind: str) -> list[dict[str, str]]:
        return [{"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": oid} for name, oid in names.items()]

    heads, tags = listed(repository.branches, kind="heads"), listed(repository.tags, kind="tags")
    return told({"branches": heads, "tags": tags, "converts": [], "pullRequests": []})


def tree(hub: "Hub", question: Question, *, repository: Repository, revision: str, path: str) -> Answer:
    recursive = question.query.get("recursive", "").lower() == "true"
    every = entries(found(repository, revision), below=path, recursive=recursive)
    start = int(question.query.get("cursor", 0))
    end = start + hub.page
    headers: dict[str, str] = {}
    if end < len(every):
        url = f"{hub.endpoint}{question.path.split('?')[0]}?recursive={recursive}&cursor={end}"
        headers["Link"] = f'<{url}>; rel="next"'
    return told(every[start:end], headers=headers)


def paths_info(hub: "Hub", question: Question, *, repository: Repository, revision: str, path: str) -> Answer:
    every = {entry["path"]: entry for entry in entries(found(repository, revision), below="", recursive=True)}
    wanted = [value for key, value in parse_qsl(question.body.decode(), keep_blank_values=True) if key == "paths"]
    return told([every[name] for name in wanted if name in every])


def preupload(hub: "Hub", question: Question, *, repository: Repository, revision: str, path: str) -> Answer:
    writable(hub, question, repository)
    there = found(repository, revision).files
    ignored = there[".gitignore"].data.decode().splitlines() if ".gitignore" in there else []
    answers = list[dict[str, Any]]()
    for file in json.loads(question.body)["files"]:
        lfs = is_lfs(file["path"], size_bytes=file["size"], sample=base64.b64decode(file["sample"]))
        known = there.get(file["path"])
        answer = {"path": file["path"], "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": file["path"] in ignored}
        answers.append({**answer, "oid": known.etag if known else None})
    return told({"files": answers})


def lfs_batch(hub: "Hub", question: Question, *, repository: Repository) -> Answer:
    writable(hub, question, repository)
    home = f"{hub.endpoint}/{'datasets/' if repository.kind == 'datasets' else ''}{repository.name}.git/info/lfs"
    where = f"{repository.kind}/{repository.name}"
    objects = list[dict[str, Any]]()
    for wish in json.loads(question.body)["objects"]:
        upload = {"href": f"{hub.storage}/lfs/{where}/{wish['oid']}?{SIGNATURE}"}
        actions = {"upload": upload, "verify": {"href": f"{home}/verify"}}
        objects.append({**wish, **({} if wish["oid"] in repository.uploaded else {"actions": actions})})
    return told({"transfer": "basic", "objects": objects})


def lfs_verify(question: Question, *, repository: Repository) -> Answer:
    wish = json.loads(question.body)
    data = repository.uploaded.get(wish["oid"])
    if data is None or len(data) != wish["size"]:
        raise Refused(400, "Uploaded object does not match")
    return told({})


def commit(hub: "Hub", question: Question, *, repository: Repository, revision: str, path: str) -> Answer:
    writable(hub, question, repository)
    found(repository, revision)
    if revision not in repository.branches:
        raise Refused(404, f"Invalid rev id: {revision}", code="RevisionNotFound")
    lines = [json.loads(line) for line in question.body.splitlines()]
    header = lines[0]["value"]
    head = repository.branches[revision]
    if not head.startswith(header.get("parentCommit", "")):
        raise Refused(412, "A commit has happened since. Please refresh and try again.")
    files = dict(repository.commits[head].files)
    for line in lines[1:]:
        change(files, repository, key=line["key"], value=line["value"])
    made = repository.commit(files, title=header["summary"], branch=revision)
    return told({"success": True, "commitOid": made.oid, "commitUrl": f"{hub.endpoint}/{repository.name}/commit/{made.oid}"})


def change(files: dict[str, File], repository: Repository, *, key: str, value: dict[str, Any]) -> None:
    path = value["path"]
    if key == "file":
        data = base64.b64decode(value["content"])
        if path == "README.md" and (problems := card_problems(data.decode())[0]):
            raise Refused(400, f"Invalid metadata in README.md: {problems[0]['message']}")
        files[path] = File(data, lfs=False)
    elif key == "lfsFile":
        if value["oid"] not in repository.uploaded:
            raise Refused(400, "Your push was rejected because an LFS pointer pointed to a file that does not exist.")
        files[path] = File(repository.uploaded[value["oid"]], lfs=True)
    else:
        gone = [name for name in files if name == path or (key == "deletedFolder" and name.startswith(path.rstrip("/") + "/"))]
        if not gone:
            raise Refused(404, "A file with this name doesn't exist", code="EntryNotFound")
        for name in gone:
            del files[name]


def resolve(hub: "Hub", question: Question, *, repository: Repository, revision: str, path: str) -> Answer:
    opened(hub, question, repository)
    commit = found(repository, revision)
    file = commit.files.get(path)
    if file is None:
        raise Refused(404, "Entry not found", code="EntryNotFound")
    headers = {"X-Repo-Commit": commit.oid, "ETag": f'"{file.etag}"'}
    if not file.lfs:
        return ranged(file.data, question=question, headers=headers)
    place = f"{hub.storage}/lfs/{repository.kind}/{quote(repository.name)}/{file.sha256}?{SIGNATURE}"
    linked = {"Location": place, "X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(len(file.data))}
    return Answer(302, f"Found. Redirecting to {place}".encode(), {**headers, **linked})


def storage(hub: "Hub", question: Question) -> Answer:
    """The other host: content by its sha256, for whoever has the signed URL."""
    if question.token is not None:
        return refusal(400, "Only one auth mechanism allowed")
    if SIGNATURE not in question.path or question.parts[0] != "lfs":
        return refusal(403, "SignatureDoesNotMatch")
    _, kind, owner, name, oid = question.parts
    repository = hub.repositories[kind, f"{owner}/{name}"]
    if question.method == "PUT":
        if File(question.body, lfs=True).sha256 != oid:
            return refusal(400, "BadDigest")
        repository.uploaded[oid] = question.body
        return Answer(200)
    if oid not in repository.uploaded:
        return refusal(404, "NoSuchKey")
    return ranged(repository.uploaded[oid], question=question, headers={"ETag": f'"{oid}"'})


def ranged(data: bytes, *, question: Question, headers: Mapping[str, str]) -> Answer:
    asked = re.fullmatch(r"bytes=(\d+)-(\d*)", question.range or "")
    if asked is None:
        return Answer(200, data, {**headers, "Accept-Ranges": "bytes", "Content-Length": str(len(data))})
    start, end = int(asked[1]), min(int(asked[2] or len(data)), len(data) - 1)
    if start >= len(data):
        return Answer(416, b"", {"Content-Range": f"bytes */{len(data)}"})
    part = data[start : end + 1]
    whole = {"Content-Range": f"bytes {start}-{end}/{len(data)}", "Content-Length": str(len(part))}
    return Answer(206, part, {**headers, **whole})
