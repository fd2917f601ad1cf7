"""The proxies in Python: evproxy with either relay, portforward, asyncio, uvloop, the floor."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from ..network import LOOPBACK, free_port
from ..processes import Command
from .contract import Forward, Starter

_HERE = Path(__file__).parent
_ROOT = _HERE.parent.parent
_TWISTD = (str(Path(sys.executable).with_name("twistd")), "-n", "--pidfile=", "--no_save")
_POOL = """
[[listeners]]
listen = "tcp:{listen}:interface={loopback}"
pool = "behind-{listen}"
{tls}

[pools.behind-{listen}]
balance = "{balance}"
upstreams = [
{upstreams}
]
"""
_TLS = 'tls = {{certificates = ["{}"]}}'


def evproxy(relay: str, *, logged: bool = False, admin: bool = False) -> Starter:
    """
    evproxy with a listener and a pool for each forward.

    `logged`: its access log in a file.  `admin`: with its admin interface, and so with metrics and
    the history for the status page.
    """

    def command(forwards: Sequence[Forward], directory: Path) -> Command:
        pools = {forward.listen: [f"{LOOPBACK}:{forward.upstream}"] for forward in forwards}
        path = directory / "evproxy.toml"
        log = str(directory / "access.log") if logged else "off"
        pems = {f.listen: f.certificate for f in forwards if f.certificate is not None}
        text = configuration(pools, relay=relay, log=log, certificates=pems)
        if admin:
            text = f'admin.listen = "tcp:{free_port()}:interface={LOOPBACK}"\n{text}'
        path.write_text(text)
        return evproxy_from(path)

    return command


def configuration(
    pools: Mapping[int, Sequence[str]],
    *,
    relay: str = "auto",
    balance: str = "round-robin",
    log: str = "off",
    certificates: Mapping[int, Path] = MappingProxyType({}),
) -> str:
    """
    evproxy's configuration file: the upstream servers behind each port of 127.0.0.1.

    `log`: the path of the access log.
    `certificates`: the PEM files of the ports where TLS ends.
    """
    return f'relay = "{relay}"\naccess_log.path = "{log}"\n' + "".join(
        _POOL.format(
            listen=listen,
            loopback=LOOPBACK,
            balance=balance,
            tls=_TLS.format(certificates[listen]) if listen in certificates else "",
            upstreams=",\n".join(f'  "{upstream}"' for upstream in upstreams),
        )
        for listen, upstreams in pools.items()
    )


def evproxy_from(path: Path) -> Command:
    """evproxy from a configuration file, as `twistd` runs it: there is no other way here.

    Its entry point lets the engine wait for events itself, and sets the garbage collector;
    a service that an application file makes would have neither.
    """
    return Command([*_TWISTD, "evproxy", f"--config={path}"], {"PYTHONPATH": str(_ROOT)})


def portforward(forwards: Sequence[Forward], directory: Path) -> Command:
    """Twisted's own port forwarder."""
    return Command([sys.executable, str(_HERE / "portforward.py"), *map(str, forwards)])


def bare_loop(forwards: Sequence[Forward], directory: Path) -> Command:
    """What the system calls of a session take in Python, with nothing around them."""
    return Command([sys.executable, str(_HERE / "bare_loop.py"), *map(str, forwards)])


def asyncio_streams(loop: str) -> Starter:
    """A proxy on asyncio's streams, on the loop of that name."""

    def command(forwards: Sequence[Forward], directory: Path) -> Command:
        script = str(_HERE / "asyncio_streams.py")
        return Command([sys.executable, script, loop, *map(str, forwards)])

    return command


def asyncio_protocol(forwards: Sequence[Forward], directory: Path) -> Command:
    """A proxy on asyncio's protocols and uvloop."""
    return Command([sys.executable, str(_HERE / "asyncio_protocol.py"), *map(str, forwards)])
