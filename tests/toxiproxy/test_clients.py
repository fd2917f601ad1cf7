"""Clients of Toxiproxy, unchanged, with a Redis and a PostgreSQL behind their proxies."""

from __future__ import annotations

import os
import socket
import subprocess
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from tests.support import server_kinds
from tests.support.programs import missing, requires_program
from tests.support.real_servers import RealServers, free_port
from tests.support.toxiproxy_server import ToxiproxyServer, wait_until

NODE_CLIENT = (
    Path(__file__).resolve().parents[2] / ".node" / "node_modules" / "toxiproxy-node-client"
)


@pytest.fixture
def toxiproxy(toxiproxy_server: ToxiproxyServer) -> Iterator[Any]:
    """The client of ``toxiproxy-python``."""
    with warnings.catch_warnings():
        # It uses a package that is made for Python 2 as well.
        warnings.simplefilter("ignore")
        from toxiproxy import Toxiproxy
    client = Toxiproxy()
    client.update_api_consumer("127.0.0.1", toxiproxy_server.port)
    yield client
    client.destroy_all()


@pytest.fixture
def redis_port(real_servers: RealServers) -> int:
    """The port of a Redis server."""
    port = free_port()
    server_kinds.redis(real_servers, port).start()

    def answers() -> bool:
        try:
            with redis.Redis(port=port) as client:
                return bool(client.ping())
        except redis.ConnectionError:
            return False

    wait_until(answers, "Redis answers")
    return port


def client_of(proxy: Any, **options: Any) -> redis.Redis:
    """A Redis client of a proxy, which does not retry."""
    port = int(proxy.listen.rpartition(":")[2])
    return redis.Redis(port=port, retry=None, **options)  # type: ignore[arg-type]


def seconds_of(client: redis.Redis) -> float:
    """How long one question takes."""
    began = time.monotonic()
    client.ping()
    return time.monotonic() - began


@pytest.mark.peers("redis-server")
def test_toxiproxy_python_with_redis(toxiproxy: Any, redis_port: int) -> None:
    """Every toxic of the client does to a Redis client what it says."""
    assert toxiproxy.running()
    assert b"2.12.0" in toxiproxy.version()
    proxy = toxiproxy.create(f"127.0.0.1:{redis_port}", "redis")
    assert list(toxiproxy.proxies()) == ["redis"]
    with client_of(proxy) as client:
        client.ping()
        proxy.add_toxic(type="latency", attributes={"latency": 150, "jitter": 20})
        assert seconds_of(client) > 0.12
        assert proxy.get_toxic("latency_downstream").attributes == {"latency": 150, "jitter": 20}
        proxy.destroy_toxic("latency_downstream")
        assert proxy.toxics() == {}

        client.set("long", b"x" * 30_000)
        proxy.add_toxic(type="bandwidth", attributes={"rate": 100})
        began = time.monotonic()
        assert client.get("long") == b"x" * 30_000
        assert 0.25 < time.monotonic() - began < 10
        proxy.destroy_toxic("bandwidth_downstream")

        proxy.add_toxic(
            type="slicer",
            attributes={"average_size": 10_000, "size_variation": 10, "delay": 50_000},
        )
        began = time.monotonic()
        assert client.get("long") == b"x" * 30_000
        assert 0.1 < time.monotonic() - began < 10
        toxiproxy.reset()
        assert proxy.toxics() == {}

        proxy.add_toxic(type="limit_data", attributes={"bytes": 1000})
        with pytest.raises(redis.ConnectionError, match="closed by server"):
            client.get("long")
        proxy.destroy_toxic("limit_data_downstream")

        client.ping()
        proxy.add_toxic(type="reset_peer", stream="upstream", attributes={"timeout": 50})
        with pytest.raises(redis.ConnectionError, match="reset by peer"):
            client.ping()
        proxy.destroy_toxic("reset_peer_upstream")

    with client_of(proxy, socket_timeout=0.2) as client:
        client.ping()
        proxy.add_toxic(type="timeout", attributes={"timeout": 0})
        with pytest.raises(redis.TimeoutError):
            client.ping()
        proxy.destroy_toxic("timeout_downstream")
        client.ping()

    with client_of(proxy) as client:
        client.ping()
        with proxy.down():
            with pytest.raises(redis.ConnectionError):
                client.ping()
            with pytest.raises(redis.ConnectionError, match="refused"):
                client.ping()
        client.ping()
        proxy.add_toxic(type="slow_close", attributes={"delay": 150})
        began = time.monotonic()
        client.connection_pool.disconnect()
        with socket.create_connection(("127.0.0.1", int(proxy.listen.rpartition(":")[2]))) as peer:
            peer.sendall(b"QUIT\r\n")
            assert peer.recv(100) == b"+OK\r\n"
            assert peer.recv(100) == b""
        assert time.monotonic() - began > 0.15
    proxy.destroy()
    assert toxiproxy.proxies() == {}


@pytest.mark.peers("redis-server")
def test_errors_of_toxiproxy_python(toxiproxy: Any, redis_port: int) -> None:
    """Its exceptions come from the statuses of the API."""
    from toxiproxy.exceptions import InvalidToxic, NotFound, ProxyExists

    upstream = f"127.0.0.1:{redis_port}"
    made = toxiproxy.populate([{"name": "one", "upstream": upstream, "listen": "127.0.0.1:0"}])
    [proxy] = made
    with pytest.raises(ProxyExists):
        toxiproxy.create(upstream, "one")
    with pytest.raises(InvalidToxic):
        proxy.add_toxic(type="nothing")
    with pytest.raises(InvalidToxic):
        proxy.add_toxic(type="latency", stream="sideways")
    with pytest.raises(NotFound):
        proxy.destroy_toxic("latency_downstream")
    proxy.add_toxic(type="latency")
    with pytest.raises(ProxyExists):
        proxy.add_toxic(type="latency")


@pytest.mark.peers("postgres", "initdb")
def test_toxiproxy_python_with_postgresql(toxiproxy: Any, real_servers: RealServers) -> None:
    """A latency, and a server that is down for a moment."""
    port = free_port()
    server_kinds.postgresql(real_servers, port).start()

    def connect(port: int) -> psycopg.Connection[Any]:
        where = f"host=127.0.0.1 port={port} user=postgres dbname=postgres sslmode=disable"
        return psycopg.connect(where, connect_timeout=5, autocommit=True)

    def answers() -> bool:
        try:
            connect(port).close()
        except psycopg.OperationalError:
            return False
        return True

    wait_until(answers, "PostgreSQL answers")
    proxy = toxiproxy.create(f"127.0.0.1:{port}", "postgres")
    proxied = int(proxy.listen.rpartition(":")[2])
    with connect(proxied) as connection:
        proxy.add_toxic(type="latency", stream="upstream", attributes={"latency": 100})
        began = time.monotonic()
        assert connection.execute("select 6 * 7").fetchone() == (42,)
        assert 0.1 < time.monotonic() - began < 10
        toxiproxy.reset()
        with proxy.down(), pytest.raises(psycopg.OperationalError):
            connection.execute("select 1")
        connection.close()
    with connect(proxied) as connection:
        assert connection.execute("select 6 * 7").fetchone() == (42,)


SCRIPT = """
const assert = require("node:assert");
const net = require("node:net");
const {Toxiproxy} = require(process.argv[2]);
const upstream = "127.0.0.1:" + process.argv[4];

function ping(listen) {
  return new Promise((resolve, reject) => {
    const began = Date.now();
    const socket = net.connect(listen.split(":")[1], "127.0.0.1", () => socket.write("PING\\r\\n"));
    socket.on("data", (data) => { socket.destroy(); resolve([String(data), Date.now() - began]); });
    socket.on("error", reject);
    socket.on("end", () => reject(new Error("ended")));
  });
}

async function main() {
  const toxiproxy = new Toxiproxy("http://127.0.0.1:" + process.argv[3]);
  assert.match(await toxiproxy.getVersion(), /2\\.12\\.0/);
  const made = {name: "one", listen: "127.0.0.1:0", upstream};
  const proxy = await toxiproxy.createProxy(made);
  await assert.rejects(toxiproxy.createProxy(made), /proxy already exists|409/);
  assert.equal((await ping(proxy.listen))[0], "+PONG\\r\\n");
  const body = {name: "slow", type: "latency", stream: "downstream", toxicity: 1,
    attributes: {latency: 150, jitter: 0}};
  const toxic = await proxy.addToxic(body);
  assert.deepEqual((await proxy.getToxic("slow")).toJson(), body);
  assert.ok((await ping(proxy.listen))[1] >= 149);
  const changed = await toxic.update({attributes: {latency: 1, jitter: 0}});
  assert.equal(changed.attributes.latency, 1);
  await toxic.remove();
  await assert.rejects(proxy.getToxic("slow"), /toxic not found|404/);
  await proxy.addToxic({...body, name: "reset", type: "reset_peer", attributes: {timeout: 0}});
  await assert.rejects(ping(proxy.listen), {code: "ECONNRESET"});
  const down = await proxy.update({enabled: false, listen: proxy.listen, upstream});
  assert.equal(down.enabled, false);
  await assert.rejects(ping(proxy.listen), {code: "ECONNREFUSED"});
  await toxiproxy.reset();
  assert.equal((await ping(proxy.listen))[0], "+PONG\\r\\n");
  const populated = await toxiproxy.populate([{...made, name: "two"}]);
  assert.deepEqual(Object.keys(populated), ["two"]);
  assert.deepEqual(Object.keys(await toxiproxy.getAll()).sort(), ["one", "two"]);
  assert.equal((await toxiproxy.get("two")).upstream, upstream);
  await proxy.remove();
  await assert.rejects(toxiproxy.get("one"), /proxy not found|404/);
  console.log("good");
}

main().catch((error) => { console.error(error); process.exit(1); });
"""


@pytest.mark.peers("redis-server", "node")
def test_toxiproxy_node_client(
    toxiproxy_server: ToxiproxyServer, toxiproxy: Any, redis_port: int, tmp_path: Path
) -> None:
    """The client for Node.js; that for Python removes what is left."""
    if not NODE_CLIENT.exists():
        missing("toxiproxy-node-client", os.environ)
    script = tmp_path / "script.js"
    script.write_text(SCRIPT)
    ports = [str(toxiproxy_server.port), str(redis_port)]
    ran = subprocess.run(
        [requires_program("node"), str(script), str(NODE_CLIENT), *ports],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.stdout == "good\n", ran.stderr
