"""A psycopg pool that reconnects, after its connections are reset and the server is away."""

import os

import psycopg
import pytest
from psycopg_pool import ConnectionPool

PORT = int(os.environ.get("POSTGRES_PORT", "5432"))


@pytest.fixture
def proxy(evproxy):
    return evproxy("127.0.0.1", PORT)


@pytest.fixture
def pool(proxy):
    where = f"host={proxy.host} port={proxy.port} user=postgres dbname=postgres sslmode=disable"
    with ConnectionPool(
        where, min_size=2, timeout=5, reconnect_timeout=5, check=ConnectionPool.check_connection
    ) as pool:
        pool.wait()
        yield pool


def answer(pool, question="select 6 * 7", timeout=5):
    with pool.connection(timeout) as connection:
        return connection.execute(question).fetchone()


def test_it_replaces_connections_that_were_reset(proxy, pool):
    assert proxy.reset() == 2
    assert answer(pool) == (42,)


def test_it_comes_back_after_an_outage(proxy, pool):
    with proxy.cut(), pytest.raises(psycopg.OperationalError):
        answer(pool, timeout=0.2)
    assert answer(pool) == (42,)


def test_a_query_that_breaks_off_is_an_error(proxy, pool):
    with proxy.end(2_000), pytest.raises(psycopg.OperationalError):
        answer(pool, "select repeat('x', 10000)")
    assert answer(pool) == (42,)
