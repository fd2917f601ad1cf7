"""
Certificates in PEM files: for which names each is, how long it lasts, and its key.

All of this reads files, so it may block: call it where nothing waits, or in a thread.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Any

from attrs import frozen
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL

from evproxy.engine.files import UnusableFile, read_whole
from evproxy.errors import SettingsError
from evproxy.escape import escaped

DAY = 86400.0

MOST_BYTES = 16 * 1024 * 1024
"""The most bytes of a PEM file; the bundle of all public authorities has 0.2 MiB."""


@frozen
class Certificate:
    """
    A certificate of a file that has its key and its chain too.

    `names` are the names of hosts in it, in lower case, and its IP addresses.  `kind` is the kind
    of its key.  `expires` is when it ends, in seconds since 1970.
    """

    path: str
    names: tuple[str, ...]
    kind: str
    expires: float

    def days_left(self, now: float) -> float:
        """Days until it ends, at `now` in seconds since 1970; negative once it has ended."""
        return (self.expires - now) / DAY

    def use(self, context: SSL.Context) -> None:
        """
        Have `context` use it, beside others with keys of other kinds.

        :raises SettingsError: if its key is missing, does not fit, or needs a pass phrase.
        """
        key = read_key(self.path)
        try:
            context.use_certificate_chain_file(self.path)
            context.use_privatekey(key)
            context.check_privatekey()
        except SSL.Error as error:
            raise SettingsError(f"{escaped(self.path)}: {why(error)}") from None


def read_certificate(path: str) -> Certificate:
    """
    The certificate of the PEM file at `path`: the first one in it.

    :raises SettingsError: if there is no such file, or no certificate in it.
    """
    certificate = read_pem(path)[0]
    key = certificate.public_key()
    kind = (
        "ECDSA"
        if isinstance(key, ec.EllipticCurvePublicKey)
        else "RSA"
        if isinstance(key, rsa.RSAPublicKey)
        else type(key).__name__
    )
    return Certificate(
        path, names_of(certificate), kind, certificate.not_valid_after_utc.timestamp()
    )


def read_key(path: str) -> Any:
    """
    The private key of the PEM file at `path`.

    :raises SettingsError: if there is none, or it needs a pass phrase.
    """
    data = content_of(path)
    try:
        return load_pem_private_key(data, None)
    except TypeError:
        raise SettingsError(f"{escaped(path)}: its key needs a pass phrase") from None
    except (ValueError, UnsupportedAlgorithm):
        raise SettingsError(f"{escaped(path)}: there is no private key in it, in PEM") from None


def read_pem(path: str) -> list[x509.Certificate]:
    """
    The certificates of the PEM file at `path`; at least one.

    :raises SettingsError: if there is no such file, or no certificate in it.
    """
    data = content_of(path)
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError:
        raise SettingsError(f"{escaped(path)}: there is no certificate in it, in PEM") from None


def content_of(path: str) -> bytes:
    """
    The bytes of the PEM file at `path`, whatever they are.

    :raises SettingsError: if it cannot be read.
    """
    try:
        return read_whole(path, MOST_BYTES).data
    except OSError as error:
        raise SettingsError(f"{escaped(path)}: {os.strerror(error.errno or 0)}") from None
    except UnusableFile as error:
        raise SettingsError(f"{escaped(path)}: {error}") from None


def names_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """The names and the IP addresses that `certificate` is for (RFC 6125, 6.4.4)."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        subject = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        return tuple(str(each.value).lower() for each in subject)
    return (
        *(name.lower() for name in found.get_values_for_type(x509.DNSName)),
        *(str(address) for address in found.get_values_for_type(x509.IPAddress)),
    )


def shown_date(seconds: float) -> str:
    """A day, as in ``2026-11-27``, of a time in seconds since 1970."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")


def why(error: SSL.Error) -> str:
    """What OpenSSL says in `error`, in a few words."""
    reasons = [entry[2] for entry in error.args[0]] if error.args else []
    return escaped(next(filter(None, reasons), "OpenSSL refuses it"))
