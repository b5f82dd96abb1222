import base64
import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from safetensors import safe_open

import botformer
from botformer import cli, hub
from botformer.errors import InputError

FIXTURES = Path(__file__).parents[1] / "fixtures"
RUN = FIXTURES / "classifier_run"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return hub.prepare_folder(RUN, tmp_path_factory.mktemp("hub") / "prepared", "anna/shapes", licence="Apache-2.0")


class Hub(ThreadingHTTPServer):
    """The few requests of an upload, answered on this machine as the hub answers them."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.status = 200
        self.asked: list[tuple[str, str, bytes, str | None]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def uploaded(self) -> dict[str, bytes]:
        commits = [body for _, path, body, _ in self.asked if "/commit/" in path]
        lines = [json.loads(line) for body in commits for line in body.splitlines()]
        return {
            line["value"]["path"]: base64.b64decode(line["value"]["content"]) for line in lines if line["key"] == "file"
        }


class Answer(BaseHTTPRequestHandler):
    server: Hub

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        self.server.asked.append((self.command, self.path, body, self.headers.get("authorization")))
        content: dict = {"errors": [], "warnings": []}
        if self.path == "/api/repos/create":
            content = {"url": f"{self.server.address}/anna/shapes", "name": "anna/shapes", "id": "1"}
        elif "/preupload/" in self.path:
            names = [file["path"] for file in json.loads(body)["files"]]
            content = {"files": [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]}
        elif "/commit/" in self.path:
            content = {
                "success": True,
                "commitOid": "0" * 40,
                "commitUrl": f"{self.server.address}/anna/shapes/commit/0",
            }
        elif self.server.status != 200:
            content = {"error": "no"}
        data = json.dumps(content).encode()
        self.send_response(self.server.status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST  # noqa: N815 - the name is that of http.server

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def server(monkeypatch) -> Iterator[Hub]:
    server = Hub()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.address)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # which the tests' environment forbids
    yield server
    server.shutdown()
    server.server_close()


def test_a_prepared_folder_has_the_network_twice_and_a_card(folder):
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert json.loads(file.metadata()["botformer"]) == config["model_config"] == botformer.load(RUN).model_config
    assert config["library_name"] == "botformer"


def test_a_card_that_somebody_wrote_in_stays(folder, tmp_path):
    there = shutil.copytree(folder, tmp_path / "there")
    (there / "README.md").write_text("mine")
    hub.prepare_folder(RUN, there)
    assert (there / "README.md").read_text() == "mine"
    with pytest.raises(InputError, match="not written anew"):
        hub.prepare_folder(RUN, there, licence="mit")
    with pytest.raises(InputError, match="card of another network"):
        hub.prepare_folder(FIXTURES / "detector_run", there)
    assert (there / "README.md").read_text() == "mine"
    assert botformer.load(there).model_config["task"] == "classification"


def test_a_folder_that_cannot_be_one(folder, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        hub.prepare_folder(RUN, tmp_path / "file")
    with pytest.raises(InputError, match="holds .* itself"):
        hub.prepare_folder(folder, folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_files_of_others_are_not_replaced(tmp_path, name):
    (tmp_path / name).write_text('{"mine": 1}')
    with pytest.raises(InputError, match=rf"has another {name}; name another folder"):
        hub.prepare_folder(RUN, tmp_path)
    assert [path.read_text() for path in tmp_path.iterdir()] == ['{"mine": 1}']


def test_what_is_uploaded_is_the_folder_and_nothing_else_in_it(server, folder, tmp_path):
    there = shutil.copytree(folder, tmp_path / "there")
    (there / "secret.txt").write_text("secret")
    address = hub.upload_folder(there, "anna/shapes", private=True, token="hf_of_the_test")
    assert address == f"{server.address}/anna/shapes"
    assert server.uploaded == {path.name: path.read_bytes() for path in folder.iterdir()}
    made = json.loads(next(body for _, path, body, _ in server.asked if path == "/api/repos/create"))
    assert (made["organization"], made["name"]) == ("anna", "shapes")
    assert made.get("private") is True or made.get("visibility") == "private"
    posts = [token for kind, path, _, token in server.asked if kind == "POST"]
    assert set(posts) == {"Bearer hf_of_the_test"}


def test_push_is_both_steps(server):
    botformer.push_to_hub(RUN, "anna/shapes", licence="mit", token="hf_of_the_test")
    assert b"license: mit" in server.uploaded["README.md"]
    assert b"hf://anna/shapes" in server.uploaded["README.md"]


@pytest.mark.parametrize(("status", "words"), [(401, "may not write there"), (403, "may not write"), (500, "refused")])
def test_what_the_hub_refuses_is_said(server, folder, status, words, monkeypatch):
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)  # between its attempts
    server.status = status
    with pytest.raises(InputError, match=words):
        hub.upload_folder(folder, "anna/shapes", token="hf_of_the_test")


def test_without_a_connection_the_folder_is_kept_for_later(folder, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    with pytest.raises(InputError, match="cannot be reached"):
        hub.upload_folder(folder, "anna/shapes", token="hf_of_the_test")


def test_an_unfinished_folder_is_not_uploaded(tmp_path):
    with pytest.raises(InputError, match=r"has no model\.safetensors, config\.json, README\.md"):
        hub.upload_folder(tmp_path, "anna/shapes")


@pytest.mark.parametrize("name", ["shapes", "anna/shapes/x", "anna/sha pes", "../shapes", "anna/a--b", "änna/x"])
def test_a_repository_is_owner_and_name(name, folder):
    with pytest.raises(InputError, match="expected owner/name"):
        hub.upload_folder(folder, name)


def test_the_command_writes_first_and_uploads_then(server, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_test")
    there = tmp_path / "to look at"
    assert cli.main(["push", str(RUN), "anna/shapes", "--licence", "mit", "--folder", str(there)]) == 0
    assert "README.md" in capsys.readouterr().out
    assert not server.asked
    (there / "README.md").write_text((there / "README.md").read_text() + "\nIt was fun.\n")
    assert cli.main(["push", str(there), "anna/shapes"]) == 0
    assert server.uploaded["README.md"].endswith(b"It was fun.\n")
    assert cli.main(["push", str(there), "anna/shapes", "--licence", "mit"]) == 2
    assert cli.main(["push", str(RUN), "shapes"]) == 2
