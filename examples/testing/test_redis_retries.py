"""A redis client that retries: it survives a reset in the middle of an answer."""

import os
import time

import pytest
import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

PORT = int(os.environ.get("REDIS_PORT", "6379"))


@pytest.fixture
def proxy(evproxy):
    return evproxy("127.0.0.1", PORT)


def client_of(proxy, **options):
    return redis.Redis(host=proxy.host, port=proxy.port, **options)


def test_it_retries_after_a_reset(proxy):
    retry = Retry(ConstantBackoff(0.01), 3)
    with client_of(proxy, retry=retry, retry_on_error=[redis.ConnectionError]) as client:
        client.set("key", "value")
        # The connection that is open now, and the first answer on the next one.
        proxy.reset_next(bytes=3)
        proxy.reset()
        assert client.get("key") == b"value"
    sessions = proxy.wait_for_sessions(3)
    assert sessions[1].reason.code == "proxy fault relaying"


def test_it_gives_up_after_its_timeout(proxy):
    with client_of(proxy, socket_timeout=0.2, retry=None) as client:
        client.ping()
        with proxy.stall():
            began = time.monotonic()
            with pytest.raises(redis.TimeoutError):
                client.ping()
            assert time.monotonic() - began < 2
