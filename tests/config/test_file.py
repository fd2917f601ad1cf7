"""
The configuration file: the settings of each good text, and every problem of each bad text.
"""

from __future__ import annotations

import pytest

from evproxy.config.document import parse
from evproxy.config.reading import Surroundings
from evproxy.errors import SettingsError
from evproxy.model import UpstreamServer
from evproxy.settings import (
    Discover,
    Ejection,
    HealthCheck,
    ListenerSettings,
    PoolSettings,
    Settings,
    Timeouts,
)
from tests.support.configs import EVERYTHING, LISTENERS, POOLS, SOUND, problems

SAME_PLACE = [
    *("tcp:8080:backlog=9", "tcp:port=08080:backlog=9"),
    *("unix:a.sock", "unix:a.sock"),
    *("tcp:8080:interface=::1", "tcp6:8080"),
    *(r"tcp:80:interface=0\:\:1", r"tcp:port=080:interface=\:\:1"),
    *("tcp:81", "tcp:81:interface=0.0.0.0"),
]


def test_everything() -> None:
    """Every key of a file sets its setting."""
    assert parse(EVERYTHING, Surroundings("/etc/evproxy")) == Settings(
        max_sessions=1000,
        relay="stream",
        listeners=(
            ListenerSettings(
                "unix:/etc/evproxy/front.sock:mode=600",
                "web",
                "front",
                accept_proxy_protocol_from=("10.0.0.0/8", "unix"),
            ),
            ListenerSettings(pool="found"),
        ),
        pools=(
            PoolSettings(
                name="web",
                upstreams=(
                    UpstreamServer("tcp:10.0.0.1:80"),
                    UpstreamServer("[2001:db8::1]:80", 0, True, 5, 2),
                    UpstreamServer("unix:/etc/evproxy/app.sock", tags=("a:b",)),
                ),
                balance="least-time",
                connect_timeout=1.0,
                connect_attempts=4,
                queue_timeout=0.0,
                queue_size=0,
                slow_start=30.0,
                send_proxy_protocol=2,
                on_down="reset",
                all_down="try",
                health_check=HealthCheck(
                    "tls", port=443, verify=True, server_name="web", ca="/etc/evproxy/ca.pem"
                ),
                ejection=Ejection(),
            ),
            PoolSettings(name="found", discover=Discover("file", path="/etc/evproxy/servers.json")),
        ),
        timeouts=Timeouts(idle=0.0, half_close=1.5, handshake=5.0, drain=0.0),
    )


def test_smallest() -> None:
    """A missing key has the default of its setting; every listener uses the only pool."""
    assert parse(SOUND, Surroundings()) == Settings(
        listeners=(ListenerSettings(pool="web"),),
        pools=(PoolSettings(name="web", upstreams=(UpstreamServer("a:1"),)),),
    )


def test_times_are_floats() -> None:
    """A whole number of seconds becomes a float, the type of the setting."""
    settings = parse(SOUND + "[timeouts]\nidle = 5\n", Surroundings())
    assert isinstance(settings.timeouts.idle, float)


@pytest.mark.parametrize(
    ("directory", "path", "expected"),
    [
        ("/etc", "x.json", "/etc/x.json"),
        ("/etc/", "../x.json", "/etc/../x.json"),
        ("", "x.json", "x.json"),
        ("conf", "x.json", "conf/x.json"),
        ("/etc", "/srv/x.json", "/srv/x.json"),
    ],
)
def test_paths(directory: str, path: str, expected: str) -> None:
    """A path that is not absolute is relative to the directory of the file."""
    text = f'{LISTENERS}[pools.web]\ndiscover = {{kind = "file", path = "{path}"}}\n'
    discover = parse(text, Surroundings(directory)).pools[0].discover
    assert discover is not None
    assert discover.path == expected


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        ("unix:a.sock", "unix:/e\\:v/a.sock"),
        ("unix:path=a.sock:timeout=3", "unix:path=/e\\:v/a.sock:timeout=3"),
        ("unix:path=/a.sock", "unix:path=/a.sock"),
        ("unix:/a.sock", "unix:/a.sock"),
        ("tcp:a:1", "tcp:a:1"),
    ],
)
def test_socket_paths(endpoint: str, expected: str) -> None:
    """The path of a UNIX socket is relative too; the directory is quoted for endpoints."""
    settings = parse(f"{LISTENERS}[pools.web]\nupstreams = ['{endpoint}']\n", Surroundings("/e:v"))
    assert settings.pools[0].upstreams[0].endpoint == expected


def test_closer_look_at_endpoints() -> None:
    """A further check of an endpoint reports its problem in one line."""
    text = LISTENERS + '[pools.web]\nupstreams = ["a:1", "tls:b:2", {endpoint = "tls:c:3"}]\n'

    def no_tls(endpoint: str) -> str | None:
        return f"{endpoint} is\nTLS" if endpoint.startswith("tls:") else None

    assert problems(text, no_tls) == [
        "pools.web.upstreams[1]: tls:b:2 is\\nTLS",
        "pools.web.upstreams[2].endpoint: tls:c:3 is\\nTLS",
    ]
    assert problems(SOUND + '[[listeners]]\nlisten = "tls:1"\n', None, no_tls) == [
        "listeners[1].listen: tls:1 is\\nTLS"
    ]


def test_errors() -> None:
    """The error is one line, with the first problem and the number of the others."""
    with pytest.raises(SettingsError) as one:
        parse(SOUND + "x = 1", Surroundings())
    assert str(one.value) == "pools.web.x: unknown key"
    with pytest.raises(SettingsError) as two:
        parse("", Surroundings())
    assert str(two.value) == "listeners: at least one is needed, as [[listeners]] (and 1 more)"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a = 1\nb =", "line 2, column 4: Invalid value"),
        ("a = 1\nb = ?", "line 2, column 5: Invalid value"),
        ("\ufeff=", "line 1, column 1: Invalid statement"),
        ("a = 1\na = 2", "line 2, column 6: this key is given twice"),
        ("[x]\n[x]", "line 2, column 3: this table is declared twice"),
        ("a = '\ud800'", "line 1, column 6: a character that cannot be UTF-8"),
        ("a = " + "1" * 5000, "a number has too many digits"),
        ("a = " + "[" * 5000, "arrays or tables are nested too deeply"),
    ],
)
def test_not_toml(text: str, expected: str) -> None:
    """For a text that is not TOML, the error is one line with the line and column."""
    assert problems(text) == [expected]


def test_byte_order_mark() -> None:
    """A byte order mark, which some editors write, is ignored."""
    assert parse("\ufeff" + SOUND, Surroundings()) == parse(SOUND, Surroundings())


def test_document_order() -> None:
    """One run reports every problem, in the order of the file."""
    text = """
relay = 1
[pools.web]
queue_size = -1
upstreams = ["a", {weight = "two", endpoint = "b:1", wait = 1}, 3]
balance = "x"
[timeouts]
[pools.api]
ejection = 3
[[listeners]]
lisen = "tcp:1"
"""
    assert [line.partition(":")[0] for line in problems(text)] == [
        "relay",
        "pools.web.queue_size",
        "pools.web.upstreams[0]",
        "pools.web.upstreams[1].weight",
        "pools.web.upstreams[1].wait",
        "pools.web.upstreams[2]",
        "pools.web.balance",
        "pools.api",
        "pools.api.ejection",
        "listeners[0].pool",
        "listeners[0].lisen",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "",
            [
                "listeners: at least one is needed, as [[listeners]]",
                "pools: at least one is needed, as [pools.NAME]",
            ],
        ),
        (
            "listeners = {}\npools = []\ntimeouts = 3",
            [
                "listeners: expected an array of tables, got a table",
                "pools: expected a table of tables, got an array",
                "timeouts: expected a table, got 3",
            ],
        ),
        ("listeners = [3]\n" + POOLS, ["listeners[0]: expected a table, got 3"]),
        (LISTENERS + "[pools]\nweb = 3", ["pools.web: expected a table, got 3"]),
        (
            LISTENERS + "[pools.web]",
            ["pools.web: there is no server: upstreams or discover is required"],
        ),
        (
            LISTENERS + "[pools.web]\nupstreams = []",
            ["pools.web: there is no server: upstreams or discover is required"],
        ),
        (
            LISTENERS + "[pools.web]\nupstreams = ['10.0.0.1:1']\nsource = ['::1', '10.0.0.5/28']",
            [
                "pools.web.source[1]: expected an IP address or a range of them (CIDR), "
                'got "10.0.0.5/28": did you mean 10.0.0.0/28?'
            ],
        ),
        (
            LISTENERS + "[pools.web]\nupstreams = ['a:1', '10.0.0.1:1', '[::2]:1']\nsource = '::1'",
            ["pools.web.source: there is no IPv4 address for 10.0.0.1:1"],
        ),
        (
            LISTENERS + "[pools.web]\nupstreams = 'a:1'",
            [
                'pools.web.upstreams: expected an array of upstream servers, got "a:1", did you'
                ' mean ["a:1"]?'
            ],
        ),
        (
            LISTENERS + "[pools.web]\nupstreams = 'a:1, b:1'",
            [
                'pools.web.upstreams: expected an array of upstream servers, got "a:1, b:1", did'
                ' you mean ["a:1", "b:1"]?'
            ],
        ),
        (
            LISTENERS + "[pools.web]\nupstreams = [{weight = 2}]",
            ["pools.web.upstreams[0].endpoint: required, but missing"],
        ),
        (
            LISTENERS + "[pools.web]\nupstreams = ['a:1', 'b:1', {endpoint = 'tcp:a:1'}, 'a:1']",
            [
                'pools.web.upstreams[2]: the same as pools.web.upstreams[0], "a:1"',
                'pools.web.upstreams[3]: the same as pools.web.upstreams[0], "a:1"',
            ],
        ),
        (
            LISTENERS + '[pools."a b"]\nupstreams = ["a:1"]',
            ['pools."a b": expected a name of letters, digits, "_", "-" and ".", got "a b"'],
        ),
        (
            LISTENERS + 'pool = "wbe"\n' + POOLS,
            ['listeners[0].pool: there is no pool "wbe", did you mean "web"?'],
        ),
        (LISTENERS + 'pool = "x"\n' + POOLS, ['listeners[0].pool: there is no pool "x"']),
        (
            SOUND + "[pools.api]\nupstreams = ['a:1']",
            ['listeners[0].pool: required, as there is more than one pool: "web" and "api"'],
        ),
        (
            LISTENERS + LISTENERS + POOLS,
            [
                "listeners[1].listen: the same as listeners[0].listen,"
                ' "tcp:8080:interface=127.0.0.1"'
            ],
        ),
        (
            LISTENERS + 'name = "a"\n' + LISTENERS + 'name = "a"\nlisten = "tcp:1"\n' + POOLS,
            ['listeners[1].name: the same as listeners[0].name, "a"'],
        ),
        (
            "".join(f"{LISTENERS}listen = '{each}'\n" for each in SAME_PLACE) + POOLS,
            [
                f'listeners[{index}].listen: the same as listeners[{index - 1}].listen, "{shown}"'
                for index, shown in (
                    (1, "tcp:8080:backlog=9"),
                    (3, "unix:a.sock"),
                    (7, r"tcp:80:interface=\\:\\:1"),
                    (9, "tcp:81"),
                )
            ],
        ),
        (2 * (LISTENERS + 'listen = "tcp:0:interface=::1"\n') + POOLS, []),
        (
            LISTENERS + 'listen = "tcp:65536"\n' + POOLS,
            [
                'listeners[0].listen: expected a server endpoint description, got "tcp:65536":'
                " a port is a number from 0 to 65535"
            ],
        ),
        (
            LISTENERS + "routes = 3\n" + POOLS,
            ["listeners[0].routes: expected an array of tables, got 3"],
        ),
        (LISTENERS + 'allow = []\ndeny = ["10.0.0.0/8"]\n' + POOLS, []),
        (
            LISTENERS + "tls = {}\n" + POOLS,
            ["listeners[0].tls.certificates: required, but missing"],
        ),
        (
            LISTENERS
            + 'tls = {certificates = ["a.pem"], client_certificate = "required"}\n'
            + POOLS,
            ["listeners[0].tls.client_ca: required, as clients are asked for a certificate"],
        ),
        (
            LISTENERS + 'tls = {certificates = ["a.pem"], client_ca = "ca.pem"}\n' + POOLS,
            [
                "listeners[0].tls.client_ca: it has no effect without "
                'client_certificate = "optional" or "required"'
            ],
        ),
        (
            '[[listeners]]\nlisten = "ssl:0"\ntls = {certificates = ["a.pem"]}\n' + POOLS,
            ["listeners[0].tls: the endpoint has TLS itself: use tcp:"],
        ),
        (SOUND + "[admins]\n", ['admins: unknown key, did you mean "admin"?']),
        (
            SOUND + '[access_log]\npath = "stdout"\nformat = "clf"\nstart = 1\ninterval = -1\n',
            [
                'access_log.path: expected one of "auto", "off", "-", "syslog:" or "twisted:", '
                'or a path with a "/" or a "." in it, got "stdout"',
                'access_log.format: expected one of "text", "json" or "tcplog", got "clf"',
                "access_log.start: expected true or false, got 1",
                "access_log.interval: expected a number of seconds from 0 to 31536000, got -1",
            ],
        ),
        (SOUND + "[keepalive]\n", ["keepalive: unknown key"]),
        (SOUND + "[timeout]\n", ['timeout: unknown key, did you mean "timeouts"?']),
        (SOUND + '["a\\nb\\u2028"]\n', ['"a\\nb\\u2028": unknown key']),
        (SOUND + f"[{'timeouts' * 100}]\n", [f"{'timeouts' * 100}: unknown key"]),
        (
            SOUND + "[timeouts]\ndrain = -1\n",
            ["timeouts.drain: expected a number of seconds from 0 to 31536000, got -1"],
        ),
        (
            SOUND + "ejection = {base_time = 400, max_percent = 101}\n",
            [
                "pools.web.ejection.base_time: base_time (400) is more than max_time (300.0)",
                "pools.web.ejection.max_percent: expected a whole number from 0 to 100, got 101",
            ],
        ),
        (
            'relay = "splice"\nmax_sessions = -1\n' + SOUND,
            [
                'relay: expected one of "auto", "stream" or "socket", got "splice"',
                "max_sessions: expected a whole number from 0 to 1000000000, got -1",
            ],
        ),
    ],
)
def test_whole_files(text: str, expected: list[str]) -> None:
    """Problems of the whole file, and between keys, are one line each."""
    assert problems(text) == expected
