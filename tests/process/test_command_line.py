"""The command line: an error is one line that names the option, and ends the process."""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import frozen

from evproxy.cli.tap import OPTIONS, Options
from evproxy.config.problems import quoted
from tests.support.peers import IPV6
from tests.support.twistd import ROOT, Outcome, run, run_each

REFERENCE = ROOT / "docs" / "reference.md"
UPSTREAM = "--upstream=127.0.0.1:1"
SECONDS = "a number of seconds from 0 to 31536000"
MORE_THAN_ZERO = "a number of seconds from 0.001 to 31536000"


@frozen
class Wrong:
    """A wrong command line, and its error line."""

    arguments: tuple[str, ...]
    line: str


def wrong(*arguments: str, line: str) -> Wrong:
    return Wrong(arguments, f"evproxy: {line}")


def numbers(option: str, expected: str, *values: str) -> Iterator[Wrong]:
    """Return a wrong command line for each of the `values`, which `option` does not accept."""
    for value in values:
        line = f"--{option}: expected {expected}, got {quoted(value)}"
        yield wrong(UPSTREAM, f"--{option}={value}", line=line)


DESTINATIONS = (
    'expected one of "auto", "off", "-", "syslog:" or "twisted:", '
    'or a path with a "/" or a "." in it'
)
BALANCES = (
    'expected one of "round-robin", "least-sessions", "random-two", "source-hash" or "least-time"'
)

WRONG = [
    wrong(
        UPSTREAM,
        "--admin=tcp:8081",
        line="--admin-token-file: required, because not only this machine may be able to connect "
        "to 'tcp:8081'",
    ),
    wrong(
        UPSTREAM,
        "--admin=unix:a.sock",
        "--admin-token-file=/nosuch",
        line="--admin-token-file: '/nosuch' cannot be read: No such file or directory",
    ),
    wrong(
        UPSTREAM,
        "--admin-token-file=/nosuch",
        line="--admin-token-file: has no effect without --admin",
    ),
    wrong(
        UPSTREAM,
        "--admin=8081",
        line='--admin: expected a server endpoint description, got "8081": '
        'did you mean "tcp:8081"?',
    ),
    wrong("--nosuch", UPSTREAM, line="option --nosuch not recognized"),
    wrong("--upstream", line="option --upstream requires argument"),
    wrong("--demo=1", line="option --demo must not have an argument"),
    wrong(line="--upstream: at least one is needed (or --demo, or --config)"),
    wrong(UPSTREAM, "more", line="unexpected argument 'more'"),
    wrong("--demo", UPSTREAM, line="--demo: has its own server, leave --upstream out"),
    wrong(UPSTREAM, UPSTREAM, line="--upstream: '127.0.0.1:1' is given twice"),
    wrong(
        UPSTREAM, "--upstream=tcp:127.0.0.1:1", line="--upstream: 'tcp:127.0.0.1:1' is given twice"
    ),
    wrong(
        "--upstream=a:65536",
        line="--upstream: 'a:65536': the port must be from 1 to 65535, got 65536",
    ),
    wrong(
        UPSTREAM,
        "--source=10.0.0.300",
        line="--source: expected an IP address or a range of them (CIDR), "
        "got '10.0.0.300': it is not an IP address",
    ),
    wrong(UPSTREAM, "--source=::1", line="--source: there is no IPv4 address for 127.0.0.1:1"),
    wrong("--upstream=a:0", line="--upstream: 'a:0': the port must be from 1 to 65535, got 0"),
    wrong("--upstream=a..b:80", line="--upstream: 'a..b:80': 'a..b' is not a host"),
    wrong(
        "--upstream=nosuch:x",
        line="--upstream: 'nosuch:x' is not an upstream server: Unknown endpoint type: 'nosuch'",
    ),
    *[
        wrong(
            f"--upstream={description}",
            line=f"--upstream: '{description}' is not an upstream server: "
            f'a port is a number from 1 to 65535, did you mean "{meant}"?',
        )
        for description, meant in (
            ("a:http", "a:80"),
            ("tcp:a:HTTPS", "tcp:a:443"),
            ("[::1]:redis", "[::1]:6379"),
        )
    ],
    *[
        wrong(
            f"--upstream={description}",
            line=f"--upstream: {description!r}: did you mean --upstream=a:80 --upstream=b:81?",
        )
        for description in ("a:80,b:81", "a:80 b:81", "a:80; b:81,")
    ],
    wrong(
        "--upstream=localhost:8080",
        line='--upstream: "localhost:8080" leads back to the listener'
        ' "tcp:8080:interface=127.0.0.1"',
    ),
    wrong(
        UPSTREAM,
        "--upstream=[::ffff:127.0.0.1]:1",
        line="--upstream: '[::ffff:127.0.0.1]:1' is given twice",
    ),
    wrong(
        "--upstream=tls:a",
        line="--upstream: 'tls:a' is not an upstream server: "
        "its arguments are incomplete or unknown",
    ),
    *[
        wrong(
            f"--upstream={description}",
            line=f"--upstream: '{description}' is not an upstream server: {fault}",
        )
        for description, fault in (
            ("127.0.0.1", "there is no port"),
            (":80", "there is no host"),
            ("::1:80", "an IPv6 address goes in brackets, before the port"),
            ("[::1]", "there is no port"),
            ("[zz]:80", "there is no IPv6 address in the brackets"),
            ("https://a/", 'it is a URL, did you mean "tls:a:443"?'),
        )
    ],
    *[
        wrong(
            UPSTREAM,
            f"--listen={description}",
            line=f"--listen: '{description}' cannot be listened on: did you mean \"{meant}\"?",
        )
        for description, meant in (
            ("8080", "tcp:8080"),
            ("127.0.0.1:8080", "tcp:8080:interface=127.0.0.1"),
            ("[::1]:8080", r"tcp:8080:interface=\:\:1"),
        )
    ],
    wrong(
        UPSTREAM,
        "--listen=nosuch:1",
        line="--listen: 'nosuch:1' cannot be listened on: Unknown endpoint type: 'nosuch'",
    ),
    wrong(
        UPSTREAM,
        "--listen=tcp:0:nosuch=1",
        line="--listen: 'tcp:0:nosuch=1' cannot be listened on: "
        "its arguments are incomplete or unknown",
    ),
    wrong(
        UPSTREAM,
        "--listen=tcp:http",
        line="--listen: 'tcp:http' cannot be listened on: "
        'a port is a number from 0 to 65535, did you mean "tcp:80"?',
    ),
    *[
        wrong(
            UPSTREAM,
            f"--listen={description}",
            line=f"--listen: '{description}' cannot be listened on: {fault}",
        )
        for description, fault in (
            ("tcp:0:backlog=many", "'many' is not a number"),
            ("ssl:0:privateKey=/nowhere", "/nowhere: No such file or directory"),
            ("unix:", "there is no path"),
            ("systemd:domain=INET:index=0", "systemd has handed over no such socket"),
        )
    ],
    wrong(
        UPSTREAM,
        "--listen=tcp:9",
        "--listen=tcp:09:interface=0.0.0.0",
        line="--listen: 'tcp:09:interface=0.0.0.0' is given twice",
    ),
    wrong(
        "--upstream=ssl:a:1:caCertsDir=/nowhere",
        line="--upstream: 'ssl:a:1:caCertsDir=/nowhere' is not an upstream server: "
        "/nowhere: No such file or directory",
    ),
    wrong("--upstream=a:80,", line="--upstream: 'a:80,': did you mean --upstream=a:80?"),
    *[
        wrong(
            UPSTREAM,
            f"--listen={description}",
            line=f"--listen: '{description}' cannot be listened on: "
            "a port is a number from 0 to 65535",
        )
        for description in ("tcp:99999", "tcp:-1", "tcp6:port=65536", "ssl:99999:privateKey=x")
    ],
    *[
        wrong(UPSTREAM, f"--listen={description}", f"--{option}={value}", line=f"--{option}: {why}")
        for description, option, value, why in (
            ("unix:/s", "unix-mode", "9", 'expected an octal file mode, such as "660", got "9"'),
            ("unix:/s:mode=600", "unix-mode", "660", "the endpoint description has a mode already"),
            ("haproxy:unix:/s", "unix-user", "nosuch", "there is no user 'nosuch'"),
            ("unix:/s", "unix-group", "nosuch", "there is no group 'nosuch'"),
            ("tcp:0", "unix-mode", "660", "it is for UNIX listeners only, and there is none"),
        )
    ],
    wrong(
        "--config=some.toml",
        "--unix-mode=660",
        line="--unix-mode: cannot be used with --config, set it in the file",
    ),
    wrong(
        UPSTREAM,
        "--balance=fair",
        line=f'--balance: {BALANCES}, got "fair"',
    ),
    wrong(
        UPSTREAM,
        "--balance=least-session",
        line=f'--balance: {BALANCES}, got "least-session", did you mean "least-sessions"?',
    ),
    wrong(
        UPSTREAM,
        "--relay=fast",
        line='--relay: expected one of "auto", "stream" or "socket", got "fast"',
    ),
    wrong(
        UPSTREAM,
        "--access-log=json",
        line=f'--access-log: {DESTINATIONS}, got "json"',
    ),
    wrong(
        UPSTREAM,
        "--access-log=syslog",
        line=f'--access-log: {DESTINATIONS}, got "syslog", did you mean "syslog:"?',
    ),
    wrong(
        UPSTREAM,
        "--access-log-format=jsn",
        line='--access-log-format: expected one of "text", "json" or "tcplog", got "jsn", '
        'did you mean "json"?',
    ),
    wrong(
        "--config=some.toml",
        "--access-log=off",
        line="--access-log: cannot be used with --config, set it in the file",
    ),
    *numbers("connect-timeout", MORE_THAN_ZERO, "0", "-1", "nan", "inf", "soon", "31536001"),
    *numbers("half-close-timeout", MORE_THAN_ZERO, "0", "-1", "nan", "-inf", ""),
    *numbers("idle-timeout", SECONDS, "-0.001", "nan", "1e400", "1h"),
    *numbers("drain-timeout", SECONDS, "-1", "NaN", "Infinity", "x"),
    *numbers("connect-attempts", "a whole number from 1 to 1000", "0", "-1", "1.5", "1001"),
    *numbers("max-sessions", "a whole number from 0 to 1000000000", "-1", "many", "9" * 5000),
    *numbers("keepalive-idle", "a whole number from 1 to 32767", "0", "32768"),
    *numbers("keepalive-interval", "a whole number from 1 to 32767", "0", "x"),
    *numbers("keepalive-probes", "a whole number from 1 to 127", "0", "128"),
    wrong(
        "--config=some.toml",
        "--balance=round-robin",
        line="--balance: cannot be used with --config, set it in the file",
    ),
    wrong(
        "--config=some.toml",
        "--listen=tcp:0",
        line="--listen: cannot be used with --config, set it in the file",
    ),
    wrong("--config=some.toml", "--demo", line="--demo: cannot be used with --config"),
]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[Wrong, Outcome]:
    """The outcome of ``twistd`` for each wrong command line."""
    commands = [["-n", "--pidfile=", "evproxy", *each.arguments] for each in WRONG]
    directory = tmp_path_factory.mktemp("empty")
    found = dict(zip(WRONG, run_each(commands, directory), strict=True))
    assert os.listdir(directory) == []
    return found


@pytest.mark.parametrize(
    "case", WRONG, ids=lambda case: " ".join(case.arguments)[:40] or "no options"
)
def test_a_wrong_option_is_one_line(case: Wrong, outcomes: dict[Wrong, Outcome]) -> None:
    """The line is on standard error, the status is 1, and standard output is empty."""
    assert outcomes[case] == Outcome(1, "", f"{case.line}\n")


def told(*arguments: str) -> str:
    """Return the error line of a ``twistd -n`` that cannot listen; check for no traceback."""
    outcome = run("-n", "--pidfile=", "evproxy", UPSTREAM, *arguments)
    assert outcome.status == 1
    assert "Traceback" not in outcome.out
    assert outcome.err.count("\n") == 1
    return outcome.err.removesuffix("\n")


def test_a_port_in_use() -> None:
    """A port in use is one line of error."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = told(f"--listen=tcp:{port}:interface=127.0.0.1")
    assert line == f"evproxy: --listen: cannot listen on 127.0.0.1:{port}: Address already in use"


def test_an_access_log_that_cannot_be_written(tmp_path: Path) -> None:
    """A log file without its directory is one line of error, and nothing listens."""
    path = tmp_path / "missing" / "access.log"
    line = told("--listen=tcp:0:interface=127.0.0.1", f"--access-log={path}")
    assert line == f"evproxy: cannot write the access log to {path}: No such file or directory"


@pytest.mark.skipif(not IPV6, reason="there is no IPv6 here")
def test_an_ipv6_port_in_use() -> None:
    """In the error, an IPv6 address is in brackets."""
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as taken:
        port = taken.getsockname()[1]
        line = told(f"--listen=tcp6:{port}:interface=\\:\\:1")
    assert line == f"evproxy: --listen: cannot listen on [::1]:{port}: Address already in use"


def test_the_second_listener_cannot_bind() -> None:
    """If one of several listeners cannot be bound, evproxy does not start."""
    line = told("--listen=tcp:0:interface=127.0.0.1", "--listen=tcp:0:interface=192.0.2.1")
    assert line == (
        "evproxy: --listen: cannot listen on 192.0.2.1:0: Cannot assign requested address"
    )


@pytest.mark.parametrize("missing", ["", "directory/"])
def test_a_path_that_cannot_be_written(tmp_path: Path, missing: str) -> None:
    """A UNIX socket without its directory, or with too long a name, is one line."""
    path = f"{tmp_path}/{missing}{'' if missing else 'x' * 200}"
    line = told(f"--listen=unix:{path}:lockfile=0", "--access-log=off")
    assert line.startswith(f"evproxy: --listen: cannot listen on {path}: ")


def test_a_path_whose_lock_cannot_be_written(tmp_path: Path) -> None:
    """A UNIX socket whose lock file cannot be made is one line too."""
    path = f"{tmp_path}/missing/socket"
    assert told(f"--listen=unix:{path}") == (
        f"evproxy: --listen: cannot listen on {path}: No such file or directory"
    )


def test_a_wrapped_port_that_is_too_high() -> None:
    """An error that only occurs at the bind is one line too."""
    assert told("--listen=haproxy:tcp:99999") == (
        "evproxy: --listen: cannot listen on haproxy:tcp:99999: bind(): port must be 0-65535."
    )


def test_a_privileged_port() -> None:
    """A port below 1024 is one line for a user who may not bind it."""
    if not os.geteuid() and Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").exists():
        pytest.skip("root may bind every port")
    line = told("--listen=tcp:1:interface=127.0.0.1")
    assert line == "evproxy: --listen: cannot listen on 127.0.0.1:1: Permission denied"


def test_a_port_in_use_when_it_daemonizes(tmp_path: Path) -> None:
    """A daemon reports the error to its shell and to the log, and leaves no pid file."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        listen = f"--listen=tcp:{port}:interface=127.0.0.1"
        outcome = run("evproxy", UPSTREAM, listen, cwd=tmp_path)
    assert outcome.status == 1
    assert "evproxy: --listen: cannot listen on 127.0.0.1:" in outcome.err
    log = (tmp_path / "twistd.log").read_text()
    assert f"--listen: cannot listen on 127.0.0.1:{port}: Address already in use" in log
    # The daemon removes the pid file after it has reported to the shell.
    deadline = time.monotonic() + 20
    while (tmp_path / "twistd.pid").exists():
        assert time.monotonic() < deadline


def test_the_help_lists_every_option() -> None:
    """``--help`` has each option with its default, and says what an ADDRESS is."""
    outcome = run("-n", "evproxy", "--help")
    assert outcome.status == 0
    for name in Options().longOpt:
        assert re.search(rf"^ +--{name.rstrip('=')}\b", outcome.out, re.MULTILINE), name
    text = "".join(outcome.out.split())
    for option in OPTIONS:
        said = f"{option.meaning} ({option.rule.expected}) [default: {option.default}]"
        assert "".join(said.split()) in text
    assert "ADDRESSisHOST:PORT,[v6]:PORTor" in text


def test_the_version() -> None:
    """``--version`` prints the versions of evproxy and Twisted."""
    outcome = run("-n", "evproxy", "--version")
    assert outcome.status == 0
    assert re.fullmatch(r"evproxy \d\S*, Twisted \d\S*\n", outcome.out)


def test_the_reference_lists_every_option() -> None:
    """Each option is in ``docs/reference.md`` once, and nothing that is not an option."""
    documented = re.findall(r"^\| `--([a-z-]+)` ", REFERENCE.read_text(), re.MULTILINE)
    assert sorted(documented) == sorted(name.rstrip("=") for name in Options().longOpt)


@pytest.mark.parametrize("value", ["0", "0.5", "31536000", "1e3"])
def test_extremes_are_accepted(value: str) -> None:
    """Every value in the table is accepted."""
    options = Options()
    options.parseOptions([UPSTREAM, f"--idle-timeout={value}", f"--drain-timeout={value}"])
    assert options.settings.timeouts.idle == options.settings.timeouts.drain == float(value)
