"""The paths of UNIX listeners: stale, in use, or not a socket; and their owners."""

from __future__ import annotations

import errno
import fcntl
import grp
import os
import pwd
import signal
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.error import CannotListenError

from evproxy import ProxyService, SettingsError
from evproxy.sockets.unix_path import claimed
from tests.support.blocking_clients import rest
from tests.support.peers import END, converse, turn
from tests.support.proxies import Proxied
from tests.support.services import Ground
from tests.support.twistd import PATIENCE, TWISTD, Running

pytestmark = pytest.mark.oldest_twisted


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may change its user")

NOBODY = pwd.getpwnam("nobody")
GROUP = grp.getgrgid(NOBODY.pw_gid)

DESCRIPTIONS = ["unix:{}", "unix:{}:lockfile=0", "haproxy:unix:{}", "haproxy:unix:{}:lockfile=0"]


@contextmanager
def somebody_else() -> Iterator[None]:
    """For the ``with`` block, the process runs as user nobody, without privileges."""
    os.seteuid(NOBODY.pw_uid)
    try:
        yield
    finally:
        os.seteuid(0)


def make_stale(path: Path, kind: int = socket.SOCK_STREAM) -> None:
    """Leave a socket and a lock at `path`, as a killed process with number 1 does."""
    with socket.socket(socket.AF_UNIX, kind) as killed:
        killed.bind(str(path))
        if kind == socket.SOCK_STREAM:
            killed.listen()
    # A process with the number in the lock runs: in a container it is the new process.
    Path(f"{path}.lock").symlink_to(str(os.getpid()))


@pytest.mark.parametrize("description", DESCRIPTIONS)
async def test_a_stale_path_is_replaced(proxied: Proxied, tmp_path: Path, description: str) -> None:
    """The path of a killed process is replaced, with a lock or without, wrapped or not."""
    path = tmp_path / "socket"
    make_stale(path)
    await proxied.start(listen=description.format(path))
    client = proxied.client()
    if description.startswith("haproxy"):
        await client.send(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n")
    await converse(client, await proxied.upstream.accept())
    lock = Path(f"{path}.lock")
    assert os.readlink(lock) == str(os.getpid())


async def test_a_stale_path_of_datagrams_is_replaced(ground: Ground, tmp_path: Path) -> None:
    """A socket of any kind that no process has open is stale."""
    path = tmp_path / "socket"
    make_stale(path, socket.SOCK_DGRAM)
    service = ground.service(f"unix:{path}")
    service.startService()
    await ground.session(service)
    await service.drain(0)
    assert list(tmp_path.iterdir()) == []


def refusal(service: ProxyService) -> str:
    """Return the error with which the service does not start."""
    with pytest.raises(CannotListenError) as raised:
        service.startService()
    error = raised.value.socketError
    assert error.errno == errno.EADDRINUSE
    found: str = error.strerror
    return found


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda path: path.write_text("kept"), "a regular file"),
        (lambda path: path.mkdir(), "a directory"),
        (lambda path: os.mkfifo(path), "a FIFO"),
        (lambda path: path.symlink_to("other"), "a symbolic link"),
    ],
    ids=["file", "directory", "fifo", "link"],
)
@pytest.mark.parametrize("lock", ["lockfile=1", "lockfile=0"])
def test_what_is_no_socket_stays(
    ground: Ground, tmp_path: Path, lock: str, make: Callable[[Path], object], what: str
) -> None:
    """Only a socket is ever removed, not even a link to a stale socket."""
    path = tmp_path / "path"
    make_stale(tmp_path / "other")
    make(path)
    before = {each: os.lstat(each).st_ino for each in tmp_path.iterdir()}
    service = ground.service(f"unix:{path}:{lock}")
    assert refusal(service) == f"Address already in use: {what} is there, not a socket"
    assert {each: os.lstat(each).st_ino for each in tmp_path.iterdir()} == before


@contextmanager
def listening(path: Path, kind: int = socket.SOCK_STREAM) -> Iterator[socket.socket]:
    """A socket of another program at `path`, with an accept queue for one."""
    with socket.socket(socket.AF_UNIX, kind) as other:
        other.bind(str(path))
        if kind == socket.SOCK_STREAM:
            other.listen(0)
        yield other


@pytest.mark.parametrize("lock", ["lockfile=1", "lockfile=0"])
def test_a_path_where_a_process_listens_stays(ground: Ground, tmp_path: Path, lock: str) -> None:
    """evproxy finds out with a connect, and the process there sees only an end."""
    path = tmp_path / "socket"
    service = ground.service(f"unix:{path}:{lock}")
    with listening(path) as other:
        assert refusal(service) == "Address already in use: a process listens there"
        client, _ = other.accept()
        with client:
            client.settimeout(PATIENCE)
            assert rest(client) == (b"", END)
        assert list(tmp_path.iterdir()) == [path]


def test_a_full_accept_queue_is_in_use(ground: Ground, tmp_path: Path) -> None:
    """A process with a full accept queue counts as listening, and evproxy does not wait."""
    path = tmp_path / "socket"
    with listening(path), ExitStack() as clients:
        while True:
            client = clients.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            if client.connect_ex(str(path)) == errno.EAGAIN:
                break
        assert refusal(ground.service(f"unix:{path}")) == (
            "Address already in use: a process listens there, and its accept queue is full"
        )
        assert list(tmp_path.iterdir()) == [path]


def test_a_socket_of_another_kind_is_in_use(ground: Ground, tmp_path: Path) -> None:
    """A datagram socket that a process has open takes no stream connect, and stays."""
    path = tmp_path / "socket"
    with listening(path, socket.SOCK_DGRAM):
        assert refusal(ground.service(f"unix:{path}")) == (
            "Address already in use: it cannot be told whether a process listens there:"
            " Protocol wrong type for socket"
        )
        assert list(tmp_path.iterdir()) == [path]


@as_root
def test_a_socket_that_may_not_be_connected_is_in_use(
    ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A socket stays if this process may not connect to it."""
    monkeypatch.chdir(tmp_path)
    tmp_path.chmod(0o777)
    path = Path("socket")
    with listening(path):
        path.chmod(0)
        with somebody_else():
            told = refusal(ground.service(f"unix:{path}"))
        assert told == (
            "Address already in use: it cannot be told whether a process listens there:"
            " Permission denied"
        )
        assert list(tmp_path.iterdir()) == [tmp_path / path]


async def test_a_path_that_another_took_stays(
    ground: Ground, tmp_path: Path, warnings_logged: list[str]
) -> None:
    """A listener removes only its own socket and lock, not those of another process."""
    path, lock = tmp_path / "socket", tmp_path / "socket.lock"
    service = ground.service(f"unix:{path}")
    service.startService()
    path.unlink()
    with listening(path):
        await service.stopService()
        assert set(tmp_path.iterdir()) == {path, lock}
    assert warnings_logged == [
        f"Something else is at the path of the UNIX listener {path} now, it stays"
    ]


async def test_a_restart_in_the_same_place(ground: Ground, tmp_path: Path) -> None:
    """The next process takes the path while the first drains; the first then leaves it."""
    path = tmp_path / "socket"
    first, second = (ground.service(f"unix:{path}", drain_timeout=3600) for _ in range(2))
    first.startService()
    client, server = await ground.session(first)
    stopped = first.stopService()
    while path.exists():
        await turn(ground.reactor)
    second.startService()
    client.close()
    await server.rest()
    server.close()
    await stopped
    await ground.session(second)


@pytest.mark.parametrize("shared", [False, True], ids=["stored", "from a process"])
async def test_a_path_that_somebody_removed(ground: Ground, tmp_path: Path, shared: bool) -> None:
    """A socket that is taken over without its path is replaced by a new one at the path."""
    path = tmp_path / "socket"
    with listening(path) as other:
        path.unlink()
        service = ground.service(f"unix:{path}")
        service.plane.listening.handed.offer([os.dup(other.fileno())], shared)
        service.startService()
        client, server = await ground.session(service)
        client.close()
        await server.rest()
        server.close()
    await service.drain(0)
    assert list(tmp_path.iterdir()) == []


def test_a_claim_is_one_process_at_a_time(ground: Ground, tmp_path: Path) -> None:
    """While one process has bound and does not listen yet, another fails and removes nothing."""
    path = tmp_path / "socket"
    with claimed(bytes(path)), socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))
        before = set(tmp_path.iterdir())
        assert refusal(ground.service(f"unix:{path}")) == (
            "Address already in use: another process starts to listen there"
        )
        assert set(tmp_path.iterdir()) == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_claim_that_was_left_is_no_obstacle(tmp_path: Path) -> None:
    """The claim file of a killed process is taken over, and removed."""
    path = tmp_path / "socket"
    claim = tmp_path / "socket.flock"
    claim.touch()
    with claimed(bytes(path)):
        assert claim.exists()
    assert not claim.exists()


def test_a_claim_that_ends_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock on a claim file that was removed does not count: the file there now is locked."""
    path, claim = tmp_path / "socket", tmp_path / "socket.flock"
    flock, ends = fcntl.flock, [claim.unlink]

    def late(descriptor: int, operation: int) -> None:
        while ends:
            ends.pop()()
        flock(descriptor, operation)

    monkeypatch.setattr("fcntl.flock", late)
    with claimed(bytes(path)), claim.open() as other, pytest.raises(BlockingIOError):
        flock(other.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize("name", ["socket.flock", "socket.lock"])
@pytest.mark.parametrize(
    "make", [lambda path: path.write_text("kept"), lambda path: path.mkdir()], ids=["file", "dir"]
)
def test_a_file_in_place_of_a_lock_stays(
    ground: Ground, tmp_path: Path, name: str, make: Callable[[Path], object]
) -> None:
    """A file that is not evproxy's is not removed for a claim or a lock; the error names it."""
    make(tmp_path / name)
    with pytest.raises(CannotListenError) as raised:
        ground.service(f"unix:{tmp_path}/socket").startService()
    assert f"{tmp_path}/{name} is in the way: " in str(raised.value.socketError)
    assert list(tmp_path.iterdir()) == [tmp_path / name]


def race(path: Path, starters: int) -> list[int]:
    """Let `starters` processes take `path` at once; return the inodes of the bound sockets."""
    start_read, start_write = os.pipe()
    end_read, end_write = os.pipe()
    told_read, told_write = os.pipe()
    children = []
    for _ in range(starters):
        child = os.fork()
        if not child:
            os.close(start_write)
            os.close(end_write)
            os.read(start_read, 1)
            try:
                with claimed(bytes(path)), socket.socket(socket.AF_UNIX) as one:
                    one.bind(str(path))
                    inode = os.lstat(path).st_ino
                    one.listen()
                    os.write(told_write, b"%20d" % inode)
                    # Release the claim, and keep the socket until all processes are done.
                    keep = one.dup()
                os.read(end_read, 1)
                keep.close()
            except OSError as error:
                os.write(told_write, b"%20d" % (0 if error.errno == errno.EADDRINUSE else -1))
            finally:
                os._exit(0)
        children.append(child)
    for each in (start_read, start_write):
        os.close(each)
    told = [int(os.read(told_read, 20)) for _ in range(starters)]
    winners = [inode for inode in told if inode > 0]
    assert -1 not in told
    assert winners == [path.lstat().st_ino]
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    for each in (end_read, end_write, told_read, told_write):
        os.close(each)
    for child in children:
        os.waitpid(child, 0)
    return winners


def test_several_that_start_at_once(tmp_path: Path) -> None:
    """Of several processes that take one stale path, one gets it, and its socket stays."""
    for number in range(20):
        path = tmp_path / str(number)
        make_stale(path)
        assert len(race(path, 6)) == 1


def permissions_of(path: Path) -> tuple[str, int, int]:
    found = path.lstat()
    return f"{stat.S_IMODE(found.st_mode):o}", found.st_uid, found.st_gid


@pytest.mark.parametrize("wrapper", ["", "haproxy:"])
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param({}, ("666", None, None), id="none"),
        pytest.param({"unix_mode": "640"}, ("640", None, None), id="mode"),
        pytest.param(
            {"unix_mode": "0600", "unix_user": "nobody", "unix_group": GROUP.gr_name},
            ("600", NOBODY.pw_uid, GROUP.gr_gid),
            marks=as_root,
            id="names",
        ),
        pytest.param(
            {"unix_user": "12345", "unix_group": "54321"},
            ("666", 12345, 54321),
            marks=as_root,
            id="numbers",
        ),
        pytest.param({"unix_user": "0012345"}, ("666", 12345, None), marks=as_root, id="user"),
    ],
)
async def test_who_may_connect(
    ground: Ground, tmp_path: Path, wrapper: str, given: dict[str, str], expected: tuple[Any, ...]
) -> None:
    """The path has the mode, user and group of the settings; other listeners are not changed."""
    path = tmp_path / "socket"
    service = ground.service(f"{wrapper}unix:{path}", "tcp:0:interface=127.0.0.1", **given)
    service.startService()
    mode, user, group = expected
    user = os.geteuid() if user is None else user
    group = os.getegid() if group is None else group
    assert permissions_of(path) == (mode, user, group)
    await service.drain(0)


@as_root
def test_options_and_keys(tmp_path: Path) -> None:
    """An option is for all UNIX listeners, a key of the file for its own listener."""
    file = tmp_path / "evproxy.toml"
    file.write_text(
        '[[listeners]]\nlisten = "unix:c"\nunix_mode = "600"\nunix_user = "nobody"\n'
        '[[listeners]]\nlisten = "unix:d"\n[pools.p]\nupstreams = ["127.0.0.1:1"]\n'
    )
    options = ["--unix-mode=660", "--unix-group=nogroup"]
    listeners = [f"--listen=unix:{tmp_path}/{name}" for name in "ab"]
    with (
        Running("evproxy", "--demo", *listeners, "--listen=tcp:0", *options) as one,
        Running("evproxy", f"--config={file}") as other,
    ):
        for proxy in (one, other):
            proxy.says("evproxy .* listens on")
        nogroup = grp.getgrnam("nogroup").gr_gid
        assert permissions_of(tmp_path / "a") == ("660", 0, nogroup)
        assert permissions_of(tmp_path / "b") == ("660", 0, nogroup)
        assert permissions_of(tmp_path / "c") == ("600", NOBODY.pw_uid, os.getegid())
        assert permissions_of(tmp_path / "d") == ("666", 0, os.getegid())


async def test_nobody_connects_before(
    ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The permissions are set before the socket listens, so no other client gets in."""
    path = tmp_path / "socket"
    seen = []
    listen = socket.socket.listen

    def watched(self: socket.socket, *arguments: int) -> None:
        seen.append(permissions_of(path)[0])
        listen(self, *arguments)

    monkeypatch.setattr("socket.socket.listen", watched)
    ground.service(f"unix:{path}", unix_mode="600").startService()
    assert seen == ["600"]


@as_root
def test_a_path_that_may_not_be_given_away(
    ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only root can give a path to another user; others get one error, and nothing is left."""
    monkeypatch.chdir(tmp_path)
    tmp_path.chmod(0o777)
    service = ground.service("unix:socket", unix_user="daemon")
    with somebody_else(), pytest.raises(CannotListenError) as raised:
        service.startService()
    assert raised.value.socketError.strerror == (
        "the socket cannot be given its user or group: Operation not permitted"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("listen", "given", "line"),
    [
        (
            "unix:/s",
            {"unix_mode": "66"},
            "unix_mode: expected an octal file mode, such as \"660\", got '66'",
        ),
        (
            "unix:/s",
            {"unix_mode": 660},
            'unix_mode: expected an octal file mode, such as "660", got 660',
        ),
        (
            "unix:/s:mode=600",
            {"unix_mode": "660"},
            "unix_mode: the endpoint description has a mode already",
        ),
        ("unix:/s", {"unix_user": "nosuch"}, "unix_user: there is no user 'nosuch'"),
        ("unix:/s", {"unix_group": "nosuch"}, "unix_group: there is no group 'nosuch'"),
        ("unix:/s", {"unix_user": "4294967295"}, "unix_user: there is no user '4294967295'"),
        (
            "tcp:0",
            {"unix_group": "root"},
            "unix_group: it is for UNIX listeners only, and there is none",
        ),
    ],
)
def test_permissions_that_cannot_be(
    reactor: Any, listen: str, given: dict[str, Any], line: str
) -> None:
    """A wrong permission is an error that names the setting, before anything is bound."""
    with pytest.raises(SettingsError) as raised:
        ProxyService(reactor, [listen], ["127.0.0.1:1"], **given)
    assert str(raised.value) == line


@pytest.mark.parametrize("lock", ["lockfile=1", "lockfile=0"])
def test_a_process_that_was_killed(tmp_path: Path, lock: str) -> None:
    """After ``kill -9`` the next process has the path at once, and says so."""
    path = tmp_path / "socket"
    command = [TWISTD, "-n", "--pidfile=", "--logger=tests.support.twistd.json_log"]
    arguments = ("evproxy", "--demo", f"--listen=unix:{path}:{lock}")
    with Running(*arguments, command=command) as killed:
        killed.says("evproxy .* listens on")
        killed.signal(signal.SIGKILL)
        assert killed.ended() == -signal.SIGKILL
    assert path.is_socket()
    with Running(*arguments, command=command) as proxy:
        proxy.says(f"^A stale UNIX socket was removed, nobody listened there: {path}$")
        proxy.says("evproxy .* listens on")
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE)
            client.connect(str(path))
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert b"This page came through evproxy" in rest(client)[0]
        proxy.signal(signal.SIGTERM)
        assert proxy.ended() == 0
    assert list(tmp_path.iterdir()) == []
