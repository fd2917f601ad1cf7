"""
The checks of addresses in a file that need no look-up.

An endpoint description is Twisted's own language, and plugins extend that language.  So this
module refuses only what is wrong for every plugin.
"""

from __future__ import annotations

import posixpath
import re
from ipaddress import IPv4Address, ip_address
from urllib.parse import urlsplit

from evproxy.config.canonical import canonical_address, is_address
from evproxy.config.problems import listed, quoted
from evproxy.config.rules import HIGHEST_PORT

_HOST_AND_PORT = re.compile(
    r"(?:tcp:)?(?:\[(?P<v6>[^\[\]]*)\]|(?P<host>(?!unix:)[^:\[\]=]+)):(?P<port>\d+)(?::.*)?"
)
_SERVER_PORT = re.compile(r"(?P<kind>tcp6?|ssl):(?:port=)?(?P<port>-?\d+)(?P<rest>(?::.*)?)")
_SERVER_SERVICE = re.compile(
    r"(?P<before>(?:tcp6?|ssl):(?:port=)?)(?P<service>[^:=]*[^:=0-9-][^:=]*)(?P<after>(?::.*)?)"
)
_NO_PATH = re.compile(r"unix:(?:(?:path|address)=)?(?::.*)?")
_URL = re.compile(r"https?://(?P<host>\[[^\]]*\]|[^/:@?#]+)(?P<port>:\d+)?(?:[/?#].*)?", re.I)
_UNIX_SOCKET = re.compile(
    r"(?P<kind>unix:(?:(?:path|address)=)?)(?P<path>[^/:=][^:=]*)(?P<rest>(?::.*)?)"
)
_BETWEEN_SERVERS = re.compile(r"[\s,;]+")
_ONE_OF_SERVERS = re.compile(r"(?:tcp:)?(?:\[[^\[\]]*\]|[^:\[\]=\\]+):\d+")
_HOST_AND_SERVICE = re.compile(
    r"(?P<host>(?:tcp:)?(?:\[[^\[\]]*\]|[^:/\[\]=\\]+)):(?P<service>[A-Za-z][A-Za-z0-9-]*)"
)
SERVICES = {
    "amqp": 5672,
    "http": 80,
    "https": 443,
    "imap": 143,
    "imaps": 993,
    "ldap": 389,
    "ldaps": 636,
    "mysql": 3306,
    "postgres": 5432,
    "postgresql": 5432,
    "redis": 6379,
    "smtp": 25,
    "ssh": 22,
    "submission": 587,
}
"""
The ports of some services (IANA, "Service Name and Transport Protocol Port Number Registry").

Only for hints: the system's own list may come from a slow server.
"""
_UNIX_LISTENER = re.compile(r"(?:^|(?<!\\):)unix:")
_OWN_MODE = re.compile(r"(?<!\\):mode=")
_DOMAIN_NAME = re.compile(r"[\w.-]+")
_LONGEST_NAME = 253
_LONGEST_LABEL = 63
_LONGEST_PORT = len(str(HIGHEST_PORT))
_INTERFACE = re.compile(r":interface=((?:[^:\\]|\\:)*)")
_ARGUMENT = re.compile(r"(?<!\\):")
_KINDS_WITH_PORT = ("tcp", "ssl", "tls")
_NO_PORT = "a port is a number from 1 to 65535"
_PRINTED = re.compile(r"[!-~]+")
_URL_SCHEMES = ("http", "https")
_BROADCAST = IPv4Address("255.255.255.255")
_UNTIDY = "it is empty, has white space around it, or has a character that cannot be printed"


def upstream_fault(description: str) -> str | None:
    """Why `description` cannot be an upstream server's endpoint; ``None`` if it may be one."""
    if ":" not in description or description.endswith("]"):
        return "there is no port"
    if _is_untidy(description):
        return _UNTIDY
    if is_address(description):
        return "an IPv6 address goes in brackets, before the port"
    found = _URL.fullmatch(description)
    if found is not None:
        secure = description[:5].lower() == "https"
        meant = found["host"] + (found["port"] or (":443" if secure else ":80"))
        return f"it is a URL, did you mean {quoted('tls:' * secure + meant)}?"
    if _NO_PATH.fullmatch(description):
        return "there is no path"
    several = servers_in(description)
    if several:
        return f"give each server by itself, did you mean {listed(several, 'and')}?"
    return _host_and_port_fault(description)


def servers_in(text: str) -> list[str]:
    """The servers in `text` if it is a list of ``HOST:PORT`` and the like; else none."""
    parts = [part for part in _BETWEEN_SERVERS.split(text) if part]
    return parts if parts != [text] and all(map(_ONE_OF_SERVERS.fullmatch, parts)) else []


def server_fault(host: str) -> str | None:
    """Why no server can be at `host`; ``None`` if one may be."""
    if "," in host or ";" in host:
        return "give each server by itself, with its port"
    if not is_address(host):
        return None
    address = ip_address(canonical_address(host))
    if address.is_multicast:
        return "a multicast address takes no connections"
    if address == _BROADCAST:
        return "the broadcast address takes no connections"
    if address.version == 6 and address.is_link_local and not address.scope_id:
        return f"a link-local address needs its zone, as in [{host}%eth0]"
    return None


def service_fault(description: str) -> str | None:
    """What is wrong with `description` if its port is the name of a service, else ``None``."""
    found = _HOST_AND_SERVICE.fullmatch(description)
    if found is None:
        return None
    host, number = found["host"], SERVICES.get(found["service"].lower())
    if number is not None:
        return f"{_NO_PORT}, did you mean {quoted(f'{host}:{number}')}?"
    return _NO_PORT if host.startswith("tcp:") else None


def address_of(description: str) -> str | None:
    """The IP address in the upstream server `description`, if there is one."""
    found = _HOST_AND_PORT.fullmatch(description)
    host = (found["v6"] or found["host"]) if found is not None else ""
    return canonical_address(host) if is_address(host) else None


STDIO = "standard input is one connection, and not where clients connect"
"""Why an endpoint of that kind is no listener."""


def listen_fault(description: str) -> str | None:
    """Why `description` cannot be a server endpoint description; ``None`` if it may be one."""
    if _is_untidy(description):
        return _UNTIDY
    found = _SERVER_PORT.fullmatch(description)
    if found is not None and not _is_port(found["port"], lowest=0):
        return "a port is a number from 0 to 65535"
    found = _SERVER_SERVICE.fullmatch(description)
    if found is not None:
        number = SERVICES.get(found["service"].lower())
        meant = f"{found['before']}{number}{found['after']}"
        hint = f", did you mean {quoted(meant)}?" if number is not None else ""
        return f"a port is a number from 0 to 65535{hint}"
    if _NO_PATH.fullmatch(description):
        return "there is no path"
    if description.startswith("stdio:"):
        return STDIO
    host, _, port = description.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if port.isdigit() and (not host or is_address(host)):
        interface = host.replace(":", r"\:")
        meant = f"tcp:{port}:interface={interface}" if host else f"tcp:{port}"
        return f'did you mean "{meant}"?'
    return None


def below(directory: str, description: str) -> str:
    """
    `description`, with `directory` put before a relative path of a UNIX socket.

    Escapes `directory` for an endpoint description, as
    `twisted.internet.endpoints.quoteStringArgument` does.
    """
    found = _UNIX_SOCKET.fullmatch(description)
    if found is None or not directory:
        return description
    escaped = re.sub(r"([\\:=])", r"\\\1", posixpath.join(directory, ""))
    return f"{found['kind']}{escaped}{found['path']}{found['rest']}"


def has_relative_path(description: str) -> bool:
    """Whether the endpoint `description` names a UNIX socket by a relative path."""
    return _UNIX_SOCKET.fullmatch(description) is not None


def listening_place(directory: str, description: str) -> str:
    """`description` in one canonical spelling, to compare two of them."""
    found = _SERVER_PORT.fullmatch(description)
    if found is None:
        return below(directory, description)
    rest = _INTERFACE.sub(_interface_argument, found["rest"])
    return f"{found['kind']}:{found['port'].lstrip('0')}{rest}"


def _interface_argument(found: re.Match[str]) -> str:
    interface = canonical_address(found[1].replace("\\:", ":"))
    if interface in ("", "0.0.0.0"):
        return ""
    quoted_interface = interface.replace(":", "\\:")
    return f":interface={quoted_interface}"


def any_free_port(description: str) -> bool:
    """Whether the server endpoint `description` leaves the port to the kernel."""
    found = _SERVER_PORT.fullmatch(description)
    return found is not None and not found["port"].strip("0")


def is_unix_listener(description: str) -> bool:
    """Whether the server endpoint `description` listens on a UNIX socket, wrapped or not."""
    return _UNIX_LISTENER.search(description) is not None


def is_remote_listener(description: str) -> bool:
    """Whether other machines may reach what listens at the server endpoint `description`."""
    kind, named, plain = arguments_of(description)
    if kind == "unix":
        return False
    if kind not in ("tcp", "tcp6", "ssl"):
        return True
    place = 0 if "port" in named else 1
    given = named.get("interface", plain[place] if len(plain) > place else "")
    interface = given.replace("\\:", ":")
    return not (is_address(interface) and ip_address(canonical_address(interface)).is_loopback)


def permission_fault(key: str, description: str) -> str | None:
    """Why a listener at `description` cannot have the setting `key`; ``None`` if it can."""
    if not is_unix_listener(description):
        return "it is for UNIX listeners only, and this is not one"
    if key == "unix_mode" and _OWN_MODE.search(description):
        return "the endpoint description has a mode already"
    return None


DNS_PORT = 53


def parse_nameserver(text: str) -> tuple[str, int] | str:
    """The address and the port in ``ADDRESS`` or ``ADDRESS:PORT`` (``[v6]:PORT``), or a fault."""
    if is_address(text):
        return text, DNS_PORT
    address, colon, port = text.rpartition(":")
    if address.startswith("[") and address.endswith("]"):
        address = address[1:-1]
    elif ":" in address and colon:
        return "an IPv6 address with a port goes in brackets"
    if not is_address(address):
        return "a name server needs an IP address"
    return (address, int(port)) if _is_port(port, lowest=1) else _NO_PORT


def nameserver_fault(text: str) -> str | None:
    """What is wrong with the name server `text`, see `parse_nameserver`; ``None`` if nothing."""
    parsed = parse_nameserver(text)
    return parsed if isinstance(parsed, str) else None


def url_fault(text: str) -> str | None:
    """Why `text` is not the URL of an etcd member; ``None`` if it may be one."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        return str(error)
    if parts.scheme not in _URL_SCHEMES or not parts.hostname or not _PRINTED.fullmatch(text):
        return "it needs http:// or https:// and a host, in ASCII"
    if port == 0 or "@" in parts.netloc or "?" in text or "#" in text:
        return "it may have only a host, a port from 1 to 65535, and a path"
    return None


def domain_fault(name: str) -> str | None:
    """Why `name` is not a domain name that DNS can carry (RFC 1035, 2.3.4); ``None`` if it is."""
    if is_address(name.removesuffix(".")):
        return "it is an address, not a name"
    if not _DOMAIN_NAME.fullmatch(name):
        return "it may have only letters, digits, hyphens and dots"
    plain = name.removesuffix(".")
    if len(plain) <= _LONGEST_NAME:
        try:
            encoded = plain.encode("idna").decode("ascii")
        except UnicodeError:
            encoded = ""
        labels = encoded.split(".")
        if len(encoded) <= _LONGEST_NAME and all(1 <= len(_) <= _LONGEST_LABEL for _ in labels):
            return None
    return "a label has 1 to 63 characters, and the whole name at most 253"


def server_name_fault(name: str) -> str | None:
    """Why `name` is neither a domain name nor an IP address; ``None`` if it is, or is empty."""
    return None if not name or is_address(name) else domain_fault(name)


def _host_and_port_fault(description: str) -> str | None:
    found = _HOST_AND_PORT.fullmatch(description)
    if found is None:
        if description.startswith(":"):
            return "there is no host"
        port = _port_argument(description)
        return None if not port or _is_port(port, lowest=1) else _NO_PORT
    if found["v6"] is not None and not is_address(found["v6"]):
        return "there is no IPv6 address in the brackets"
    if not _is_port(found["port"], lowest=1):
        return _NO_PORT
    return None


def arguments_of(description: str) -> tuple[str, dict[str, str], list[str]]:
    """The kind of an endpoint description, its named arguments, and the others."""
    kind, *arguments = _ARGUMENT.split(description)
    named = dict(each.split("=", 1) for each in arguments if "=" in each)
    return kind, named, [each for each in arguments if "=" not in each]


def _port_argument(description: str) -> str:
    """The digits of the port in a description with arguments, as Twisted reads them, or ''."""
    kind, named, plain = arguments_of(description)
    if kind not in _KINDS_WITH_PORT:
        return ""
    port = named.get("port", plain[-1] if len(plain) == 1 + ("host" not in named) else "")
    return port if port.isdigit() else ""


def _is_port(digits: str, lowest: int) -> bool:
    readable = digits.isascii() and digits.isdigit() and len(digits) <= _LONGEST_PORT
    return readable and lowest <= int(digits) <= HIGHEST_PORT


def _is_untidy(text: str) -> bool:
    return not text or text != text.strip() or not text.isprintable()
