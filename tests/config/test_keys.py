"""
The keys of a pool's tables: the message for every wrong value.
"""

from __future__ import annotations

import re

import pytest

from evproxy.config.addresses import domain_fault
from tests.support.configs import LISTENERS, SOUND, problems

SECONDS = "expected a number of seconds from 0.001 to 31536000"
CHARACTERS = "it may have only letters, digits, hyphens and dots"
LENGTHS = "a label has 1 to 63 characters, and the whole name at most 253"
SERVERS = "HOST:PORT, [v6]:PORT or a client endpoint description"


@pytest.mark.parametrize(
    ("networks", "line"),
    [
        ('["10.0.0.1/8"]', '[0]: expected an IP address or a network, such as "10.0.0.0/8", got'),
        ('["::1", "web"]', "[1]: expected an IP address or a network"),
        ('"10.0.0.0/8"', ': expected an array of networks, got "10.0.0.0/8", did you mean ["10.'),
        ('["10.0.0.0/8", "unix", "::ffff:10.0.0.1"]', None),
    ],
)
def test_proxies_that_must_send_a_header(networks: str, line: str | None) -> None:
    """Each network is checked; its host bits must be zero."""
    found = problems(
        SOUND.replace("[[listeners]]", f"[[listeners]]\naccept_proxy_protocol_from = {networks}", 1)
    )
    if line is None:
        assert found == []
    else:
        [problem] = found
        assert problem.startswith(f"listeners[0].accept_proxy_protocol_from{line}")


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ('weight = "two"', 'expected a whole number from 0 to 256, got "two"'),
        ("weight = 257", "expected a whole number from 0 to 256, got 257"),
        ("weight = -1", "expected a whole number from 0 to 256, got -1"),
        ("weight = 1.0", "expected a whole number from 0 to 256, got 1.0"),
        ("weight = true", "expected a whole number from 0 to 256, got true"),
        (f"weight = 0x{'f' * 6000}", "expected a whole number from 0 to 256, got a huge number"),
        ("weight = []", "expected a whole number from 0 to 256, got an array"),
        ("weight = {}", "expected a whole number from 0 to 256, got a table"),
        ("weight = 1979-05-27", "expected a whole number from 0 to 256, got 1979-05-27"),
        ("backup = 1", "expected true or false, got 1"),
        ('backup = "true"', 'expected true or false, got "true"'),
        ("priority = 65536", "expected a whole number from 0 to 65535, got 65536"),
        ("max_sessions = 1e3", "expected a whole number from 0 to 1000000000, got 1000.0"),
        ("wieght = 1", 'unknown key, did you mean "weight"?'),
        ("zone = 1", "unknown key"),
    ],
)
def test_upstream_keys(key: str, expected: str) -> None:
    """The message for a wrong key of an upstream server has the path of the key."""
    text = f'{LISTENERS}[pools.web]\nupstreams = [{{endpoint = "a:1", {key}}}]\n'
    name = key.partition(" ")[0]
    assert problems(text) == [f"pools.web.upstreams[0].{name}: {expected}"]


@pytest.mark.parametrize(
    ("endpoint", "fault"),
    [
        ("", "there is no port"),
        ("localhost", "there is no port"),
        ("::1", "an IPv6 address goes in brackets, before the port"),
        (":80", "there is no host"),
        ("unix:", "there is no path"),
        ("unix:path=:timeout=3", "there is no path"),
        ("http://a", 'it is a URL, did you mean "a:80"?'),
        ("http://[::1]:81/x", 'it is a URL, did you mean "[::1]:81"?'),
        ("[::x]:80", "there is no IPv6 address in the brackets"),
        ("a:0", "a port is a number from 1 to 65535"),
        ("tcp:host=a:port=99999", "a port is a number from 1 to 65535"),
        ("tcp:host=a:0", "a port is a number from 1 to 65535"),
        ("ssl:port=65536:host=a", "a port is a number from 1 to 65535"),
        ("tls:a\\\\:b:65536", "a port is a number from 1 to 65535"),
        ("tcp:a:65536:timeout=3", "a port is a number from 1 to 65535"),
        (
            " a:1",
            "it is empty, has white space around it, or has a character that cannot be printed",
        ),
    ],
)
def test_endpoints(endpoint: str, fault: str) -> None:
    """A text that no endpoint can have is refused without a look-up."""
    text = f'{LISTENERS}[pools.web]\nupstreams = ["{endpoint}"]\n'
    assert problems(text) == [
        f'pools.web.upstreams[0]: expected {SERVERS}, got "{endpoint}": {fault}'
    ]


@pytest.mark.parametrize(
    "endpoint",
    [
        *("a:1", "a:65535", "[fe80::1%eth0]:80", "tcp:a:1:timeout=3", "tls:a:443", "unix:/a b"),
        *("tcp:port=1:host=99999", "tcp:host=a:port=65535", "x:a:99999"),
    ],
)
def test_possible_endpoints(endpoint: str) -> None:
    """A text that a plugin may accept is not refused here."""
    assert problems(f'{LISTENERS}[pools.web]\nupstreams = ["{endpoint}"]\n') == []


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("connect_timeout = nan", f"{SECONDS}, got nan"),
        ("connect_timeout = inf", f"{SECONDS}, got inf"),
        ("connect_timeout = -inf", f"{SECONDS}, got -inf"),
        ("connect_timeout = 0", f"{SECONDS}, got 0"),
        ("connect_timeout = 31536001", f"{SECONDS}, got 31536001"),
        ("connect_timeout = true", f"{SECONDS}, got true"),
        ('connect_timeout = "5"', f'{SECONDS}, got "5"'),
        (f"connect_timeout = 0x{'f' * 500}", f"{SECONDS}, got a huge number"),
        ('on_down = "stop"', 'expected one of "keep" or "reset", got "stop"'),
        (
            'on_down = "rest"',
            'expected one of "keep" or "reset", got "rest", did you mean "reset"?',
        ),
        ("all_down = 3", 'expected one of "refuse" or "try", got 3'),
        ("health_check = 3", "expected a table, got 3"),
        ("ejection = []", "expected a table, got an array"),
        ("balanse = 3", 'unknown key, did you mean "balance"?'),
        ('"a.b" = 3', "unknown key"),
        ("tls = 3", "expected a table, got 3"),
        ("send_proxy_protocol = 3", "expected a whole number from 0 to 2, got 3"),
        ('name = "web"', "unknown key"),
    ],
)
def test_pool_keys(key: str, expected: str) -> None:
    """The message for a wrong key of a pool has the path of the key."""
    name = key.partition(" ")[0]
    assert problems(f"{SOUND}{key}\n") == [f"pools.web.{name}: {expected}"]


@pytest.mark.parametrize(
    ("check", "expected"),
    [
        ('kind = "https"', None),
        ("interval = 0", [f".interval: {SECONDS}, got 0"]),
        ("rise = 0", [".rise: expected a whole number from 1 to 1000, got 0"]),
        ("port = 65536", [".port: expected a whole number from 0 to 65535, got 65536"]),
        ('path = "/"', ['.path: belongs to kind "http", and this is "tcp"']),
        (
            'kind = "redis", send = "x"',
            ['.send: belongs to kind "send-expect", and this is "redis"'],
        ),
        ("fast_interval = 3", [".fast_interval: fast_interval (3) is more than interval (2.0)"]),
        ('kind = "tls", ca = "x"', [".ca: has no effect without verify = true"]),
        ('kind = "tls", verify = true, server_name = "::1"', []),
        (
            'kind = "tls", server_name = "::1"',
            [
                ".server_name: has no effect without verify = true: an address is not sent in a"
                " handshake"
            ],
        ),
        (
            'kind = "tls", verify = true, server_name = "fe80::1%eth0"',
            [],
        ),
        (
            'kind = "tls", server_name = "a..b"',
            [f'.server_name: expected a host name or an IP address, got "a..b": {LENGTHS}'],
        ),
        (
            'kind = "tls", server_name = "a:b"',
            [f'.server_name: expected a host name or an IP address, got "a:b": {CHARACTERS}'],
        ),
        (
            f'kind = "tls", server_name = "{"a" * 64}.org"',
            [f'.server_name: expected a host name or an IP address, got "{"a" * 60}…": {LENGTHS}'],
        ),
        (
            'kind = "http", path = "healthz"',
            [
                ".path: expected a path that starts with /, in ASCII, without spaces and #, got"
                ' "healthz"'
            ],
        ),
        (
            'kind = "http", expect_status = [200, 199, "x", 100]',
            [
                ".expect_status[1]: expected a whole number from 200 to 599, got 199",
                '.expect_status[2]: expected a whole number from 200 to 599, got "x"',
                ".expect_status[3]: expected a whole number from 200 to 599, got 100",
            ],
        ),
        (
            'kind = "http", expect_status = 200',
            [
                ".expect_status: expected an array of whole numbers from 200 to 599, got 200,"
                " did you mean [200]?"
            ],
        ),
        (
            'kind = "http", expect_status = "200"',
            ['.expect_status: expected an array of whole numbers from 200 to 599, got "200"'],
        ),
        (
            'kind = "http", expect_status = true',
            [".expect_status: expected an array of whole numbers from 200 to 599, got true"],
        ),
        ('kind = "http", host = "a/b"', ['.host: expected HOST or HOST:PORT, in ASCII, got "a/b"']),
        (
            'kind = "http", method = "GET /"',
            ['.method: expected an HTTP method, got "GET /"'],
        ),
        (
            'kind = "send-expect", expect = "a", expect_pattern = "b"',
            [".expect_pattern: cannot be used together with expect"],
        ),
        (
            'kind = "send-expect", expect_pattern = "("',
            [
                '.expect_pattern: expected a regular expression, got "(":'
                " missing ), unterminated subpattern"
            ],
        ),
        (
            "kind = 'send-expect', expect_pattern = '\\N{DASH}'",
            ['.expect_pattern: expected a regular expression, got "\\\\N{DASH}": bad escape \\N'],
        ),
        (
            f"kind = 'send-expect', expect_pattern = '{'(' * 5000}'",
            [
                f'.expect_pattern: expected a regular expression, got "{"(" * 60}…":'
                " it is nested too deeply"
            ],
        ),
        (
            r"kind = 'send-expect', send = 'QUIT\q'",
            [
                r".send: expected a string, with \r, \n, \t, \0, \\ and \xHH as its only"
                r' backslashes, got "QUIT\\q"'
            ],
        ),
        (r"kind = 'send-expect', send = 'QUIT\r\n', expect = '\x00\\'", []),
        ('kind = "http", expect_status = [], expect_text = "ok", method = "OPTIONS"', []),
        ('kind = "http", expect_status = [200, 204], method = "HEAD"', []),
        (f'kind = "http", expect_text = "{"x" * 65536}"', []),
        (
            'kind = "http", expect_status = [], expect_text = "ok", method = "HEAD"',
            [".expect_text: the answer to HEAD has no body"],
        ),
        (
            'kind = "http", expect_status = [204, 200, 304], expect_text = "ok"',
            [
                f".expect_status: an answer of status {status} has no body for expect_text"
                for status in (204, 304)
            ],
        ),
        (
            f'kind = "http", expect_text = "x{"ü" * 32768}"',
            [".expect_text: it is longer than the 65536 bytes that a check reads of a body"],
        ),
        (
            'kind = "http", method = "CONNECT"',
            [".method: CONNECT asks for a tunnel, not for a path"],
        ),
        ("kind = 'send-expect', expect = '" + 16384 * r"\x00" + "'", []),
        (
            "kind = 'send-expect', expect = '" + 16385 * r"\x00" + "'",
            [".expect: it is longer than the 16384 bytes that a check reads of an answer"],
        ),
        (
            'kind = "send-expect", expect_pattern = ".*"',
            [".expect_pattern: it matches an empty answer, so the check would not wait for one"],
        ),
        ('kind = "send-expect", expect_pattern = ".+"', []),
        ('kind = "postgresql", fast_interval = 0.5', []),
        ("", []),
    ],
)
def test_health_check_keys(check: str, expected: list[str] | None) -> None:
    """Every wrong key of a health check, and every key of another kind, gets a message."""
    if expected is None:
        expected = [
            '.kind: expected one of "tcp", "tls", "http", "send-expect", "redis", "smtp" or'
            ' "postgresql", got "https", did you mean "http"?'
        ]
    told = problems(f"{SOUND}health_check = {{{check}}}\n")
    assert told == ["pools.web.health_check" + line for line in expected]


@pytest.mark.parametrize(
    ("discover", "expected"),
    [
        ("", [".kind: required, but missing"]),
        ('kind = "dns"', ['.name: required for kind "dns"', '.port: required for kind "dns"']),
        ('kind = "dns-srv"', ['.name: required for kind "dns-srv"']),
        ('kind = "file"', ['.path: required for kind "file"']),
        ('kind = "etcd"', ['.prefix: required for kind "etcd"']),
        (
            'kind = "srv"',
            [
                '.kind: expected one of "dns", "dns-srv", "file" or "etcd", got "srv", did you mean'
                ' "dns-srv"?'
            ],
        ),
        (
            'kind = "dns-srv", name = "_a._tcp.b", port = 3',
            ['.port: belongs to kind "dns", and this is "dns-srv"'],
        ),
        (
            'kind = "file", path = "x.json", nameservers = []',
            ['.nameservers: belongs to kind "dns" and "dns-srv", and this is "file"'],
        ),
        (
            'kind = "file", path = ""',
            ['.path: expected a path that ends in .toml or .json, got ""'],
        ),
        (
            'kind = "dns", name = "a b", port = 0',
            [
                f'.name: expected a domain name, got "a b": {CHARACTERS}',
                ".port: expected a whole number from 1 to 65535, got 0",
            ],
        ),
        (
            'kind = "dns-srv", name = "a", interval = 0.5',
            [".interval: min_interval (1.0) is more than interval (0.5)"],
        ),
        (
            'kind = "dns-srv", name = "a", nameservers = ["1.2.3.4:53", "ns.org", "::1", "[::1]"]',
            [
                '.nameservers[1]: expected ADDRESS or ADDRESS:PORT, got "ns.org": a name server'
                " needs an IP address",
                '.nameservers[3]: expected ADDRESS or ADDRESS:PORT, got "[::1]": an IPv6 address'
                " with a port goes in brackets",
            ],
        ),
        (
            'kind = "etcd", prefix = "/x", endpoints = []',
            [".endpoints: expected an array of URLs, at least one, got an array that is empty"],
        ),
        (
            'kind = "etcd", prefix = "/x", endpoints = ["http://a:1", "a:1", "http://a:x"]',
            [
                '.endpoints[1]: expected a URL, got "a:1": it needs http:// or https:// and a'
                " host, in ASCII",
                '.endpoints[2]: expected a URL, got "http://a:x": Port could not be cast to integer'
                " value as 'x'",
            ],
        ),
        (
            'kind = "dns-srv", name = "a..b"',
            [f'.name: expected a domain name, got "a..b": {LENGTHS}'],
        ),
        (
            f'kind = "dns-srv", name = "{"ü" * 63}.org"',
            [f'.name: expected a domain name, got "{"ü" * 60}…": {LENGTHS}'],
        ),
        (
            f'kind = "dns-srv", name = "{".".join(["a" * 63] * 3 + ["a" * 62])}"',
            [f'.name: expected a domain name, got "{"a" * 60}…": {LENGTHS}'],
        ),
        (
            'kind = "file", path = "servers.txt"',
            ['.path: expected a path that ends in .toml or .json, got "servers.txt"'],
        ),
        ('kind = "file", path = "a.toml", min_interval = 2', []),
        ('kind = "dns-srv", name = "_pg._tcp.example.org."', []),
        *(
            (
                f'kind = "dns", port = 1, name = "{name}"',
                [f'.name: expected a domain name, got "{name}": it is an address, not a name'],
            )
            for name in ("10.0.0.1", "10.0.0.1.", "::1")
        ),
        *(
            (
                f'kind = "etcd", prefix = "/x", endpoints = ["{url}"]',
                [
                    f'.endpoints[0]: expected a URL, got "{url}": it may have only a host,'
                    " a port from 1 to 65535, and a path"
                ],
            )
            for url in ("http://a:0", "http://u:p@a", "http://a/?x", "http://a#x")
        ),
        (
            'kind = "etcd", prefix = "/x", endpoints = "http://a,http://b"',
            [
                '.endpoints: expected an array of URLs, at least one, got "http://a,http://b",'
                ' did you mean ["http://a", "http://b"]?'
            ],
        ),
        ('kind = "etcd", prefix = "/x", endpoints = ["https://a:1/etcd/"]', []),
        ('kind = "dns", name = "a.b", port = 80, nameservers = ["[::1]:53"]', []),
        ('kind = "etcd", prefix = "/x", interval = 3', []),
    ],
)
def test_discover_keys(discover: str, expected: list[str]) -> None:
    """Every wrong, missing or misplaced key of a discovery gets a message."""
    told = problems(f"{LISTENERS}[pools.web]\ndiscover = {{{discover}}}\n")
    assert told == ["pools.web.discover" + line for line in expected]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (
            "queue_timeout = 0\nqueue_size = 9",
            [".queue_size: has no effect with queue_timeout = 0"],
        ),
        (
            "queue_timeout = 9\nqueue_size = 0",
            [".queue_timeout: has no effect with queue_size = 0"],
        ),
        ("queue_timeout = 0\nqueue_size = 0", []),
        ("queue_timeout = 9", [".queue_timeout: has no effect: no server has max_sessions"]),
        ("queue_size = 9", [".queue_size: has no effect: no server has max_sessions"]),
        ('queue_timeout = 9\ndiscover = {kind = "file", path = "a.toml"}', []),
        ("queue_timeout = 0", []),
        (
            'on_down = "reset"',
            [".on_down: has no effect without health_check: no server goes down"],
        ),
        (
            'on_down = "reset"\nejection = {}',
            [".on_down: has no effect without health_check: no server goes down"],
        ),
        ('on_down = "reset"\nhealth_check = {}', []),
        ('on_down = "keep"\nall_down = "refuse"\nslow_start = 0', []),
        ('all_down = "try"', [".all_down: has no effect without health_check or ejection"]),
        ('all_down = "try"\nejection = {}', []),
        ('all_down = "try"\nhealth_check = {}', []),
        (
            "slow_start = 1",
            [".slow_start: has no effect without health_check, ejection or discover"],
        ),
        ("slow_start = 1\nejection = {}", []),
        ('slow_start = 1\ndiscover = {kind = "file", path = "a.toml"}', []),
    ],
)
def test_keys_of_no_use(keys: str, expected: list[str]) -> None:
    """A key of a pool that other keys leave without effect gets a message."""
    assert problems(f"{SOUND}{keys}\n") == ["pools.web" + line for line in expected]


@pytest.mark.parametrize(
    ("pool", "expected"),
    [
        ('upstreams = [{endpoint = "a:1", weight = 0}]', True),
        ('upstreams = [{endpoint = "a:1", weight = 0, backup = true}, "b:1"]', False),
        (
            'upstreams = [{endpoint = "a:1", weight = 0}]\n'
            'discover = {kind = "file", path = "a.toml"}',
            False,
        ),
    ],
)
def test_servers_without_weight(pool: str, expected: bool) -> None:
    """A pool in which no server can ever get a session gets a message."""
    line = "pools.web.upstreams: no server would get a session: every weight is 0"
    assert problems(f"{LISTENERS}[pools.web]\n{pool}\n") == [line] * expected


@pytest.mark.parametrize(
    ("pool", "expected"),
    [
        ('upstreams = ["unix:/a", {endpoint = "unix:b"}]', True),
        ('upstreams = ["unix:/a", "b:1"]', False),
        ('upstreams = ["unix:/a"]\ndiscover = {kind = "file", path = "a.toml"}', False),
    ],
)
def test_a_source_for_unix_sockets(pool: str, expected: bool) -> None:
    """A source is for TCP only."""
    line = "pools.web.source: has no effect: every server is a UNIX socket"
    text = f'{LISTENERS}[pools.web]\nsource = "127.0.0.9"\n{pool}\n'
    assert problems(text) == [line] * expected


def test_the_host_and_the_path_of_a_request() -> None:
    """The path of a request has no fragment, and a host is more than a colon."""
    check = 'health_check = {kind = "http", host = ":", path = "/a#b"}'
    host, path = problems(f"{SOUND}{check}\n")
    assert path.startswith("pools.web.health_check.path: expected a path that starts with /")
    assert host.startswith("pools.web.health_check.host: expected HOST or HOST:PORT")


@pytest.mark.parametrize("endpoint", ["a:1,b:2", "a:1, [::1]:2", "tcp:a:1;b:2", "a:1 b:2"])
def test_several_servers_in_one(endpoint: str) -> None:
    """The message for a list in one string shows the right form."""
    text = f'{LISTENERS}[pools.web]\nupstreams = ["{endpoint}"]\n'
    [line] = problems(text)
    first, second = re.split("[ ,;]+", endpoint)
    assert line.endswith(f'give each server by itself, did you mean "{first}" and "{second}"?')


def test_domain_names() -> None:
    """A name that DNS cannot carry is refused before any look-up."""
    for good in ("a", "_pg._tcp.example.org.", "bücher.example", "a" * 63):
        assert domain_fault(good) is None
    for bad in ("", ".", "a..b", "a" * 64, ".".join(["a" * 60] * 5), "ü" * 63, "a b"):
        assert domain_fault(bad) is not None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f'log = "stdout"\n{SOUND}', "log: unknown key, in evproxy it is access_log"),
        (f"maxconn = 3\n{SOUND}", "maxconn: unknown key, in evproxy it is max_sessions"),
        (f"{SOUND}timeout = 3\n", "pools.web.timeout: unknown key, in evproxy it is "),
        (
            f"{SOUND}proxy_pass = 3\n",
            "pools.web.proxy_pass: unknown key, in evproxy it is upstreams",
        ),
        (
            f"{SOUND}server = 3\n",
            "pools.web.server: unknown key, in evproxy it is upstreams of a pool",
        ),
        (f"{SOUND}[backend]\n", "backend: unknown key, in evproxy it is a pool, [pools.NAME]"),
        (
            f"{SOUND}[[frontend]]\n",
            "frontend: unknown key, in evproxy it is a listener, [[listeners]]",
        ),
        (
            f"{SOUND}default-backend = 1\n",
            "pools.web.default-backend: unknown key, in evproxy it is ",
        ),
    ],
)
def test_keys_of_other_proxies(text: str, expected: str) -> None:
    """The message for a key of HAProxy, nginx or Envoy names the key of evproxy."""
    [problem] = problems(text)
    assert problem.startswith(expected)


def test_a_near_key_comes_before_that_of_another_proxy() -> None:
    """A key that only lacks a letter counts as a typo, not as a key of another proxy."""
    [problem] = problems(f"{SOUND}upstream = []\n")
    assert problem == 'pools.web.upstream: unknown key, did you mean "upstreams"?'


ROUTE = SOUND.replace("[[listeners]]", "[[listeners]]\nroutes = [{ROUTE}]", 1)


@pytest.mark.parametrize(
    ("route", "line"),
    [
        ('{sni = "*.a.org", pool = "web"}', None),
        ('{peer = "10.0.0.0/8", pool = "web"}', None),
        ('{sni = "a"}', "listeners[0].routes[0].pool: required, but missing"),
        (
            '{sni = "a", pool = "wep"}',
            'listeners[0].routes[0].pool: there is no pool "wep", did you mean "web"?',
        ),
        ('{sni = "a*", pool = "web"}', 'listeners[0].routes[0].sni: expected a name, "*" or'),
        ('{peer = "10.0.0.1/8", pool = "web"}', "listeners[0].routes[0].peer: expected an IP"),
        (
            '{sni = "a", http_host = "b", pool = "web"}',
            'listeners[0].routes[0]: no client can match "sni" and "http_host" at once',
        ),
        (
            '{alpn = "h2", postgres_user = "b", pool = "web"}',
            'listeners[0].routes[0]: no client can match "alpn" and "postgres_user" at once',
        ),
        (
            '{snj = "a", pool = "web"}',
            'listeners[0].routes[0].snj: unknown key, did you mean "sni"',
        ),
    ],
)
def test_routes(route: str, line: str | None) -> None:
    """Each route has a pool that is there, and conditions that one client can match."""
    found = problems(ROUTE.replace("{ROUTE}", route))
    if line is None:
        assert found == []
    else:
        [problem] = found
        assert problem.startswith(line)


@pytest.mark.parametrize(
    ("route", "count"),
    [
        ('{sni = "a", http_host = "b", pool = "web"}', 0),
        ('{alpn = "postgresql", postgres_user = "b", pool = "web"}', 0),
        ('{http_host = "a", postgres_user = "b", pool = "web"}', 1),
    ],
)
def test_routes_by_tls_and_what_is_inside(route: str, count: int) -> None:
    """Where evproxy ends TLS, both can decide."""
    text = ROUTE.replace("{ROUTE}", route).replace(
        "[[listeners]]", '[[listeners]]\ntls = {certificates = ["a.pem"], alpn = ["postgresql"]}', 1
    )
    assert len(problems(text)) == count


def test_a_route_beside_routes() -> None:
    """A function would choose in place of the routes."""
    text = ROUTE.replace("{ROUTE}", '{sni = "a", pool = "web"}')
    [line] = problems(text.replace("routes =", 'route = "a:b"\nroutes ='))
    assert line == "listeners[0].route: it would choose in place of routes: give only one of them"


@pytest.mark.parametrize("route", ["a", "a:b:c", "1:b", "a b:c"])
def test_a_route_that_names_no_function(route: str) -> None:
    """A function is named by its module and its name."""
    text = SOUND.replace("[[listeners]]", f'[[listeners]]\nroute = "{route}"', 1)
    [line] = problems(text)
    assert line.startswith('listeners[0].route: expected "MODULE:FUNCTION", got')


def test_a_protocol_that_is_read_first() -> None:
    """evproxy knows one, and its clients have no HTTP host."""
    text = ROUTE.replace("{ROUTE}", '{http_host = "a", pool = "web"}')
    [line] = problems(text.replace("routes =", 'preread = "postgres"\nroutes ='))
    assert line.startswith("listeners[0].routes[0].http_host: no PostgreSQL client has one")
    [line] = problems(SOUND.replace("[[listeners]]", '[[listeners]]\npreread = "mysql"', 1))
    assert line == 'listeners[0].preread: expected one of "" or "postgres", got "mysql"'
