"""
TLS on both sides: with the clients of a listener, and with the servers of a pool.
"""

from __future__ import annotations

from typing import ClassVar

from attrs import frozen

from evproxy.config import addresses
from evproxy.config.declare import setting
from evproxy.config.rules import Choice, FilePath, Flag, Judged, Many, Matching


@frozen
class PoolTLS:
    """TLS that evproxy starts to the servers of a pool."""

    BELOW: ClassVar[str] = "tls"

    server_name: str = setting(
        Judged("a host name or an IP address", addresses.server_name_fault),
        "The name that evproxy asks the servers for (SNI), and that their certificates must be "
        "for. Empty: the host of each server.",
        default="",
    )
    ca: str = setting(
        FilePath("a path", r".*"),
        "A file of PEM certificates, the only authorities that are trusted. Empty: those that the "
        "system trusts.",
        default="",
    )
    certificate: str = setting(
        FilePath("a path", r".*"),
        "A PEM file with the certificate that evproxy shows to servers, its chain and its key. "
        "Empty: none.",
        default="",
    )
    alpn: tuple[str, ...] = setting(
        Many(
            "an array of protocols",
            Matching("a protocol of 1 to 255 letters in ASCII", r"[!-~]{1,255}"),
        ),
        "The protocols (ALPN) that evproxy offers. Empty: it offers none.",
        default=(),
    )
    starttls: str = setting(
        Choice(("", "postgres")),
        "The protocol whose servers are asked for TLS before it begins: evproxy sends an "
        "SSLRequest to PostgreSQL servers. Empty: TLS begins at once.",
        default="",
    )
    insecure_skip_verify: bool = setting(
        Flag(),
        "Whether evproxy takes any certificate. Then it cannot tell a server from an attacker.",
        default=False,
    )


@frozen
class ListenerTLS:
    """TLS that evproxy ends at a listener."""

    BELOW: ClassVar[str] = "tls"

    certificates: tuple[str, ...] = setting(
        Many("an array of paths, at least one", FilePath("a path", r".+"), 1),
        "PEM files, each with a certificate, the chain to its authority, and its key. A client "
        "gets the certificate for the name that it asks for (SNI): a name itself comes before a "
        "wildcard. Of certificates for the same name with keys of several kinds (ECDSA, RSA), it "
        "gets one that it can verify.",
    )
    client_ca: str = setting(
        FilePath("a path", r".*"),
        "A PEM file with the authorities whose certificates clients may have.",
        default="",
    )
    client_certificate: str = setting(
        Choice(("none", "optional", "required")),
        "Whether clients are asked for a certificate, and whether they need one. It is verified "
        "in any case. Needs `client_ca`.",
        default="none",
    )
    alpn: tuple[str, ...] = setting(
        Many(
            "an array of protocols",
            Matching("a protocol of 1 to 255 letters in ASCII", r"[!-~]{1,255}"),
        ),
        "The protocols (ALPN) that the servers speak, best first. A client that offers others "
        "only is refused. Empty: none is chosen.",
        default=(),
    )
    minimum: str = setting(Choice(("1.2", "1.3")), "The lowest version of TLS.", default="1.2")
    strict_sni: bool = setting(
        Flag(),
        "Whether clients are refused that ask for no name, or for one that there is no "
        "certificate for. False: they get the first certificate.",
        default=False,
    )
    keeps_keys: bool = setting(
        Flag(),
        "Whether recordings have its keys, which the format of the recordings says.",
        default=False,
        in_file=False,
    )
