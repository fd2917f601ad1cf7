"""
``python -m evproxy check FILE``, as a shell runs it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from evproxy.cli.main import main
from evproxy.cli.settings_file import SIZE_LIMIT
from evproxy.config.problems import quoted
from tests.support.certificates import Authority
from tests.support.configs import SOUND

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str | bytes) -> tuple[int, str, str]:
    """Return exit status, standard output and standard error of ``python -m evproxy``."""
    done = subprocess.run(
        [sys.executable, "-m", "evproxy", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout, done.stderr


def written(directory: Path, text: str) -> str:
    path = directory / "evproxy.toml"
    path.write_text(text)
    return str(path)


def test_good_file() -> None:
    """A good file is one line on standard output and exit status 0."""
    assert run("check", "examples/evproxy.toml") == (
        0,
        "examples/evproxy.toml: good: 2 listeners, 2 pools, 3 upstream servers,"
        " discovery for 1 pool\n",
        "",
    )


def test_lists_of_networks(tmp_path: Path) -> None:
    """They are read, as at the start and at a reload."""
    (tmp_path / "good.txt").write_text("10.0.0.0/8\n")
    (tmp_path / "bad.txt").write_text("not a network\n")
    lists = 'allow_files = ["good.txt"]\ndeny_files = ["{}"]'
    text = SOUND.replace("[[listeners]]", f"[[listeners]]\n{lists}", 1)
    for name, problem in (("bad.txt", "line 1: "), ("none.txt", "cannot be read: ")):
        code, _, error = run("check", written(tmp_path, text.replace("{}", name)))
        assert code == 1
        assert f"listeners[0].deny_files[0]: {tmp_path}/{name}: {problem}" in error


def test_a_certificate_that_has_ended(tmp_path: Path) -> None:
    """Some hours after its end, there are fewer days left than none."""
    ended = Authority.new().issue([], timedelta(hours=-5)).save(tmp_path / "ended.pem")
    tls = f'tls = {{certificates = ["{ended}"]}}'
    text = SOUND.replace("[[listeners]]", f"[[listeners]]\n{tls}", 1)
    status, out, _ = run("check", written(tmp_path, text))
    assert status == 0
    assert "(-1 days)" in out


@pytest.mark.parametrize("command", ["schema", "check examples/evproxy.toml"])
def test_nobody_reads(command: str) -> None:
    """If the reader of a pipe has left (`| head`), the command prints no error."""
    reads, writes = os.pipe()
    os.close(reads)
    with open(writes, "wb") as output:
        done = subprocess.run(
            [sys.executable, "-m", "evproxy", *command.split()],
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.PIPE,
            timeout=60,
            env={key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"},
        )
    assert (done.returncode, done.stderr) == (1, b"")


def test_bad_file(tmp_path: Path) -> None:
    """Every problem is one line on standard error, with the file's name, and exit status 1."""
    path = written(tmp_path, SOUND + "wieght = 3\n[timeouts]\nidle = true\n")
    assert run("check", path) == (
        1,
        "",
        f"{path}: pools.web.wieght: unknown key\n"
        f"{path}: timeouts.idle: expected a number of seconds from 0 to 31536000,"
        " got true\n",
    )


def test_closer_look_at_endpoints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command checks endpoints as the start of the proxy does, as far as a shell can."""
    path = written(
        tmp_path,
        '[[listeners]]\nlisten = "nosuch:1"\n'
        '[[listeners]]\nlisten = "systemd:domain=INET:index=0"\n'
        '[pools.web]\nupstreams = ["nosuch:x", "tls:a:443"]\n',
    )
    assert main(["check", path]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    listen, upstream = err.splitlines()
    assert listen.startswith(f"{path}: listeners[0].listen: 'nosuch:1")
    assert upstream.startswith(f"{path}: pools.web.upstreams[0]: 'nosuch:x' is not an upstream")


@pytest.mark.parametrize(
    ("pool", "problem"),
    [
        (
            'upstreams = ["a:1"]\nhealth_check = {kind = "tls", verify = true, ca = "nosuch.pem"}',
            "health_check.ca: expected a file of PEM certificates, got '{directory}/nosuch.pem'",
        ),
        (
            'upstreams = ["a:1", "unix:a.sock"]\nhealth_check = {port = 80}',
            "health_check.port: cannot check port 80: unix:{directory}/a.sock is not a host and a"
            " port",
        ),
        (
            'upstreams = ["a:1", "unix:a.sock"]\nhealth_check = {kind = "tls", verify = true}',
            "health_check.server_name: a name is needed to verify unix:{directory}/a.sock, which"
            " has no host",
        ),
        *(
            (
                f'upstreams = ["a:1", "{endpoint}"]\nhealth_check = {{kind = "tls"}}',
                f"health_check.kind: a second TLS handshake inside {endpoint} can never succeed",
            )
            for endpoint in ("tls:a:443", "ssl:a:443")
        ),
        (
            'upstreams = ["b:1", "127.0.0.1:8080"]',
            'upstreams[1]: "127.0.0.1:8080" leads back to the listener'
            ' "tcp:8080:interface=127.0.0.1"',
        ),
        *(
            (f'upstreams = ["{endpoint}"]', f"upstreams[0]: '{endpoint}': {fault}")
            for endpoint, fault in (
                ("224.0.0.1:80", "a multicast address takes no connections"),
                ("255.255.255.255:80", "the broadcast address takes no connections"),
                ("[ff02::1]:80", "a multicast address takes no connections"),
                ("[fe80::1]:80", "a link-local address needs its zone, as in [fe80::1%eth0]"),
                (f"unix:/{'x' * 107}", "the path of a UNIX socket has at most 107 bytes"),
                ("a,b:80", "give each server by itself, with its port"),
            )
        ),
        (
            'upstreams = ["a:http"]',
            "upstreams[0]: 'a:http' is not an upstream server: a port is a number from 1 to"
            ' 65535, did you mean "a:80"?',
        ),
        (
            'upstreams = ["unix:a.sock", "unix:{directory}/a.sock"]',
            'upstreams[1]: the same as pools."a.b".upstreams[0], {shown}',
        ),
    ],
)
def test_closer_look_at_pools(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], pool: str, problem: str
) -> None:
    """The command reports the health checks and discoveries that the proxy would refuse."""
    path = written(
        tmp_path, f'[[listeners]]\n[pools."a.b"]\n{pool.replace("{directory}", str(tmp_path))}\n'
    )
    assert main(["check", path]) == 1
    expected = problem.replace("{directory}", str(tmp_path))
    expected = expected.replace("{shown}", quoted(f"unix:{tmp_path}/a.sock"))
    assert capsys.readouterr() == ("", f'{path}: pools."a.b".{expected}\n')


@pytest.mark.parametrize(
    ("listener", "problem"),
    [
        ('listen = "unix:s"\nunix_user = "nosuch"', "unix_user: there is no user 'nosuch'"),
        ('listen = "haproxy:unix:s"\nunix_group = "no"', "unix_group: there is no group 'no'"),
        (
            'listen = "unix:s:mode=600"\nunix_mode = "660"',
            "unix_mode: the endpoint description has a mode already",
        ),
        ('unix_mode = "660"', "unix_mode: it is for UNIX listeners only, and this is not one"),
        (
            'listen = "unix:s"\nunix_mode = 660',
            'unix_mode: expected an octal file mode, such as "660", got 660',
        ),
    ],
)
def test_closer_look_at_permissions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], listener: str, problem: str
) -> None:
    """The command looks up users and groups, and reports impossible permissions."""
    path = written(tmp_path, f'[[listeners]]\n{listener}\n[pools.web]\nupstreams = ["a:1"]\n')
    assert main(["check", path]) == 1
    assert capsys.readouterr() == ("", f"{path}: listeners[0].{problem}\n")


def test_possible_permissions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Permissions with existing users and groups are good, and the command opens nothing."""
    keys = 'unix_mode = "660"\nunix_user = "nobody"\nunix_group = "0"'
    text = f'[[listeners]]\nlisten = "unix:s"\n{keys}\n[pools.web]\nupstreams = ["a:1"]\n'
    assert main(["check", written(tmp_path, text)]) == 0
    assert ": good: " in capsys.readouterr().out
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    "pool",
    [
        'upstreams = ["a:1"]\nhealth_check = {kind = "send-expect", send = "x"}',
        'upstreams = ["tls:a:443"]\nhealth_check = {kind = "http"}',
        'upstreams = ["ssl:a:443"]\nhealth_check = {kind = "tcp"}',
        'upstreams = ["a:8080", "127.0.0.1:8081", "[::1]:8080"]',
        'upstreams = ["[fe80::1%eth0]:1"]\nhealth_check = {kind = "tls"}',
        'upstreams = ["a:1", "tcp:a:2"]\nhealth_check = {port = 80}',
        'upstreams = ["unix:a.sock"]\n'
        'health_check = {kind = "tls", verify = true, server_name = "a"}',
        'discover = {kind = "dns", name = "a.b", port = 1}\nhealth_check = {port = 80}',
        'discover = {kind = "etcd", prefix = "a"}',
        'discover = {kind = "file", path = "nosuch.json"}',
    ],
)
def test_possible_pools(tmp_path: Path, capsys: pytest.CaptureFixture[str], pool: str) -> None:
    """Settings that may work are good, and the check opens nothing."""
    assert main(["check", written(tmp_path, f"[[listeners]]\n[pools.web]\n{pool}\n")]) == 0
    assert ": good: " in capsys.readouterr().out


def test_singular(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The summary uses the singular for one."""
    path = written(tmp_path, SOUND)
    assert main(["check", path]) == 0
    assert capsys.readouterr().out == f"{path}: good: 1 listener, 1 pool, 1 upstream server\n"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"a = '\xff'", "not UTF-8 at byte 6"),
        (b"a =", "line 1, column 4: Invalid value"),
    ],
)
def test_unreadable_file(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    content: bytes | None,
    expected: str,
) -> None:
    """A file that cannot be read, or is not TOML, is one line on standard error."""
    path = tmp_path / "evproxy.toml"
    if content is not None:
        path.write_bytes(content)
    assert main(["check", str(path)]) == 1
    assert capsys.readouterr() == ("", f"{path}: {expected}\n")


def test_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A directory is not a file."""
    assert main(["check", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"{tmp_path}: cannot be read: Is a directory\n"


def test_fifo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command does not wait for the writer of a FIFO, or for the end of an endless file."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path in (str(fifo), "/dev/zero"):
        assert main(["check", path]) == 1
        assert capsys.readouterr().err == f"{path}: cannot be read: it is not a regular file\n"


def test_huge_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is too long is not read to its end."""
    path = tmp_path / "huge"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    assert main(["check", str(path)]) == 1
    assert (
        capsys.readouterr().err == f"{path}: cannot be read: it is longer than {SIZE_LIMIT} bytes\n"
    )


def test_name_that_is_not_text(tmp_path: Path) -> None:
    """A file name that no terminal can show is shown escaped."""
    path = os.fsencode(tmp_path) + b"/\xff\n.toml"
    Path(os.fsdecode(path)).write_text(SOUND)
    status, out, err = run("check", path)
    assert (status, err) == (0, "")
    assert out.startswith(f"{tmp_path}/\\udcff\\n.toml: good: ")
    assert out.count("\n") == 1


def test_help() -> None:
    """The help lists the commands."""
    status, out, _ = run("--help")
    assert status == 0
    assert "check     report the problems of configuration files" in out
    assert "schema    print a JSON Schema of the configuration file" in out


def test_no_command() -> None:
    """Without a command, the help is printed."""
    assert run() == run("--help")


def test_the_version() -> None:
    """``--version`` prints the version, and nothing else."""
    status, out, err = run("--version")
    assert (status, err) == (0, "")
    assert re.fullmatch(r"evproxy \d\S*\n", out)


def test_the_console_script() -> None:
    """``evproxy`` is the same as ``python -m evproxy``."""
    script = shutil.which("evproxy", path=str(Path(sys.executable).parent))
    assert script is not None
    done = subprocess.run([script, "--version"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == run("--version")


def test_several_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every file is checked, and one bad file is enough for exit status 1."""
    good = written(tmp_path, SOUND)
    bad = str(tmp_path / "nosuch.toml")
    assert main(["check", bad, good]) == 1
    out, err = capsys.readouterr()
    assert out == f"{good}: good: 1 listener, 1 pool, 1 upstream server\n"
    assert err == f"{bad}: cannot be read: No such file or directory\n"


def test_a_pool_that_no_listener_uses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A pool without a listener is no problem, but the summary names the pool."""
    text = '[[listeners]]\npool = "a"\n' + "".join(
        f'[pools.{name}]\nupstreams = ["127.0.0.1:1"]\n' for name in "abc"
    )
    assert main(["check", written(tmp_path, text)]) == 0
    assert capsys.readouterr().out.endswith(
        ': good: 1 listener, 3 pools, 3 upstream servers, no listener uses "b" and "c"\n'
    )


@pytest.mark.parametrize("arguments", [["check"], ["chekc", "x"]])
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong command line prints the usage and exits with 2."""
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith("usage: evproxy")


@pytest.mark.parametrize(
    ("route", "fault"),
    [
        ("no_such_module:f", "no_such_module:f: ModuleNotFoundError: No module named"),
        ("json:no_such", "json:no_such: AttributeError: "),
        ("json:__name__", "json:__name__ is not a function"),
    ],
)
def test_a_route_that_cannot_be_imported(tmp_path: Path, route: str, fault: str) -> None:
    """The function of a route is looked for when the file is checked."""
    file = tmp_path / "evproxy.toml"
    pool = '[pools.web]\nupstreams = ["127.0.0.1:1"]\n'
    file.write_text(f'[[listeners]]\nroute = "{route}"\n{pool}')
    status, _, err = run("check", str(file))
    assert status == 1
    assert err.startswith(f"{file}: listeners[0].route: {fault}")


def test_a_filter_that_cannot_be_imported(tmp_path: Path) -> None:
    """Each filter of a listener is looked for when the file is checked."""
    file = tmp_path / "filters.toml"
    filters = '["examples.filters:Hexdump", "nowhere:Filter"]'
    pool = '[pools.web]\nupstreams = ["127.0.0.1:9"]\n'
    file.write_text(f"[[listeners]]\nfilters = {filters}\n{pool}")
    status, out, err = run("check", str(file))
    assert (status, out) == (1, "")
    assert err.startswith(f"{file}: listeners[0].filters[1]: nowhere:Filter: ModuleNotFoundError")


def test_pools_of_routes_are_used(tmp_path: Path) -> None:
    """A pool that only a route uses is used."""
    file = tmp_path / "evproxy.toml"
    pools = "".join(f'[pools.{name}]\nupstreams = ["127.0.0.1:1"]\n' for name in "abc")
    file.write_text(f'[[listeners]]\npool = "a"\nroutes = [{{sni = "x", pool = "b"}}]\n{pools}')
    _, out, _ = run("check", str(file))
    assert 'no listener uses "c"' in out


def test_the_example_of_an_edge() -> None:
    """``edge.toml`` is a good file, and every pool in it is used."""
    assert run("check", "examples/edge.toml") == (
        0,
        "examples/edge.toml: good: 3 listeners, 5 pools, 6 upstream servers\n",
        "",
    )


RUNNING = """
[[listeners]]
listen = "tcp:8080:interface=127.0.0.1"

[pools.web]
upstreams = ["127.0.0.1:8000"]
"""


def test_against_what_runs(tmp_path: Path) -> None:
    """``--against`` prints a line for each change that a reload would make."""
    running, new = tmp_path / "running.toml", tmp_path / "new.toml"
    running.write_text(RUNNING)
    new.write_text(RUNNING.replace("8000", "8001"))
    assert run("check", f"--against={running}", str(new)) == (
        0,
        f"{new}: pool web: server 127.0.0.1:8001: added\n"
        f"{new}: pool web: server 127.0.0.1:8000: removed\n",
        "",
    )
    assert run("check", f"--against={running}", str(running)) == (
        0,
        f"{running}: nothing would change\n",
        "",
    )


def test_a_reload_that_would_be_refused(tmp_path: Path) -> None:
    """What needs a restart is a problem, and so is every problem of either file."""
    running, new = tmp_path / "running.toml", tmp_path / "new.toml"
    running.write_text(RUNNING)
    new.write_text('relay = "stream"' + RUNNING)
    problem = f'{new}: relay: "auto" -> "stream", which needs a restart\n'
    assert run("check", f"--against={running}", str(new)) == (1, "", problem)
    new.write_text("nonsense = 1" + RUNNING)
    running.unlink()
    status, out, err = run("check", f"--against={running}", str(new))
    assert (status, out) == (1, "")
    assert err.splitlines() == [
        f"{running}: cannot be read: No such file or directory",
        f"{new}: nonsense: unknown key",
    ]
    status, out, err = run("check", f"--against={running}", str(new), str(new))
    assert (status, out, err) == (2, "", "evproxy check: --against: expected one FILE\n")
