"""Who may use the server, over HTTP."""

import http.client

import pytest

from botformer.serve.access_guard import AccessGuard, access_for, is_loopback

from .running_server import CLASSIFIER, started


@pytest.fixture(scope="module")
def open_server():
    """On all addresses of the machine; the tests come by its loopback."""
    with started({"photos": CLASSIFIER}, host="0.0.0.0") as server:
        yield server


def test_a_host_of_another_name_is_refused(server):
    """DNS rebinding: a page of evil.example whose name leads to 127.0.0.1 is of the same origin to the browser."""
    for host in ("evil.example", f"evil.example:{server.port}", "localhost.evil.example", "127.0.0.1.evil.example", ""):
        reply = server.get("/networks", {"Host": host})
        assert (reply.status, "printed" in reply.detail) == (403, True)
    for host in ("localhost", f"localhost:{server.port}", "127.0.0.1:1", "[::1]:8000", "LOCALHOST"):
        assert server.get("/networks", {"Host": host}).status == 200


def test_pages_of_others_are_refused(server, photo):
    own = f"127.0.0.1:{server.port}"
    for origin in ("http://evil.example", "null", "http://127.0.0.1:1", f"http://{own}.evil.example"):
        for method, path in (("POST", "/predict?network=photos"), ("GET", "/networks"), ("OPTIONS", "/predict")):
            reply = server.ask(method, path, photo, {"Origin": origin, "Host": own})
            assert (reply.status, "may not use" in reply.detail) == (403, True)
            assert "access-control-allow-origin" not in reply.headers
    assert server.post("/predict?network=photos", photo, {"Origin": f"http://{own}", "Host": own}).status == 200


def test_the_token_is_needed_where_others_may_come(open_server, photo):
    token = open_server.access.token
    assert len(token) > 40
    for path in ("/networks", "/metrics"):
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": token}, {"Authorization": "Bearer é"}):
            reply = open_server.get(path, headers)
            assert (reply.status, reply.headers["www-authenticate"]) == (401, "Bearer")
            assert token not in reply.detail
    assert open_server.post("/predict", photo).status == 401
    assert open_server.post("/attention", b"{}").status == 401
    assert open_server.post("/corrections", b"").status == 401
    good = {"Authorization": f"Bearer {token}"}
    assert open_server.get("/networks", good).status == 200
    assert open_server.get("/metrics", good).status == 200
    assert open_server.post("/predict", photo, good).status == 200
    # Any name may be that of the machine.
    assert open_server.get("/networks", good | {"Host": "vision.example"}).status == 200
    assert open_server.get("/networks", good | {"Origin": "http://evil.example"}).status == 403


def test_the_page_itself_needs_no_token(open_server):
    for path in ("/", "/docs", "/docs/style.css", "/openapi.json", "/health", "/examples/nuclei.png"):
        assert open_server.get(path).status == 200
    for path in ("/docs/../networks", "/page/../networks", "/pagenetworks", "//networks"):
        assert open_server.get(path).status in (401, 404)


def test_every_answer_has_the_headers_that_bind_the_browser(server, photo):
    replies = [server.get("/"), server.get("/nothing"), server.get("/health"), server.post("/predict", photo)]
    replies += [server.get("/networks", {"Host": "evil.example"})]
    for reply in replies:
        assert reply.headers["x-content-type-options"] == "nosniff"
        policy = reply.headers["content-security-policy"]
        assert policy.startswith("default-src 'self'; img-src 'self' data: blob:;")
        assert "unsafe" not in policy
        assert "http" not in policy
        assert reply.headers["cross-origin-resource-policy"] == "same-origin"
        assert "server" not in reply.headers


def test_behind_a_proxy_of_a_name():
    access = access_for("127.0.0.1", "Vision.Example")
    assert access.token
    guard = AccessGuard(None, access, ())  # type: ignore[arg-type]

    def asked(**headers):
        return guard._refused("/networks", http_headers(Authorization=f"Bearer {access.token}", **headers))

    assert asked(Host="vision.example", Origin="https://vision.example") is None
    assert asked(Host="127.0.0.1:8000", Origin="https://vision.example") is None  # the proxy replaced the host
    assert asked(Host="evil.example")[0] == 403
    assert asked(Host="127.0.0.1:8000", Origin="null")[0] == 403
    assert asked(Host="127.0.0.1:8000", Origin="https://evil.example")[0] == 403
    assert asked(Host="127.0.0.1:8000", Origin="http://localhost:3000")[0] == 403


def http_headers(**headers):
    from starlette.datastructures import Headers

    return Headers(headers)


def test_what_is_of_this_machine_alone():
    assert [is_loopback(host) for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost")] == [True] * 4
    assert [is_loopback(host) for host in ("0.0.0.0", "::", "192.168.1.2", "no.such.name.invalid")] == [False] * 4
    assert access_for("127.0.0.1", None).token is None
    elsewhere = access_for("0.0.0.0", "vision.example")
    assert (elsewhere.hosts, elsewhere.public_name) == (None, "vision.example")
    assert access_for("0.0.0.0", None).token != access_for("0.0.0.0", None).token


def test_no_path_of_the_machine_is_read(server):
    for name in ("../application.py", "..%2fapplication.py", "%2e%2e/application.py", "/etc/passwd", "__init__.py"):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
        connection.request("GET", f"/page/{name}")
        reply = connection.getresponse()
        assert reply.status == 404
        assert b"import" not in reply.read()
        connection.close()
    assert server.get("/examples/nuclei_labels.png").status == 404
