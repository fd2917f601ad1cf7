"""An HTTP client that times out: on a connect that hangs, on silence, and on a slow answer."""

import threading
import urllib.error
import urllib.request
from http.client import IncompleteRead
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

BODY = b"x" * 10_000


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY)

    def log_message(self, *_):
        pass


@pytest.fixture
def proxy(evproxy):
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        yield evproxy("127.0.0.1", server.server_port)
        server.shutdown()


def get(proxy, timeout):
    with urllib.request.urlopen(f"http://{proxy.address}/", timeout=timeout) as answer:
        return answer.read()


def test_it_gets_the_page(proxy):
    assert get(proxy, timeout=5) == BODY


def test_a_connect_that_hangs(proxy):
    with proxy.hang(), pytest.raises(urllib.error.URLError, match="timed out"):
        get(proxy, timeout=0.2)


def test_a_server_that_says_nothing(proxy):
    with proxy.stall(stream="downstream"), pytest.raises(TimeoutError):
        get(proxy, timeout=0.2)


def test_an_answer_that_is_cut_short(proxy):
    with proxy.limit(5_000), pytest.raises(IncompleteRead):
        get(proxy, timeout=5)
