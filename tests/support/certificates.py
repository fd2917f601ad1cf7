"""Certificate authorities of tests, and their certificates."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from pathlib import Path

import pytest
from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

DAY = datetime.timedelta(days=1)


Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@frozen
class Authority:
    """A certificate authority of one test."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def new(cls) -> Authority:
        """Return a new authority."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Test authority")])
        return cls(key, certificate(name, name, key, key, True, [], DAY))

    def issue(
        self,
        names: list[x509.GeneralName],
        lasts: datetime.timedelta,
        key: Key | None = None,
        called: str = "Test server",
    ) -> Identity:
        """A certificate for `names` that ends `lasts` from now; by default with an ECDSA key."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, called)])
        issuer = self.certificate.subject
        return Identity(key, certificate(subject, issuer, key, self.key, False, names, lasts))

    def save(self, directory: Path) -> str:
        """Write the certificate to a PEM file, and return its path."""
        path = directory / "ca.pem"
        path.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))
        return str(path)


@frozen
class Identity:
    """A certificate with its key."""

    key: Key
    certificate: x509.Certificate

    def pem(self) -> bytes:
        """Both, one after the other."""
        return self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ) + self.certificate.public_bytes(serialization.Encoding.PEM)

    def save(self, path: Path) -> str:
        """Write both to the PEM file at `path`, which is returned."""
        path.write_bytes(self.pem())
        return str(path)


def certificate(
    subject: x509.Name,
    issuer: x509.Name,
    key: Key,
    issuer_key: ec.EllipticCurvePrivateKey,
    is_authority: bool,
    names: list[x509.GeneralName],
    lasts: datetime.timedelta,
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    issued_by = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 10 * DAY)
        .not_valid_after(now + lasts)
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        # Python 3.13 verifies strictly (RFC 5280), and requires these in every certificate.
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(issued_by, critical=False)
        .add_extension(_usage(is_authority), critical=True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def names(*hosts: str) -> list[x509.GeneralName]:
    """`hosts` as the names of a certificate."""
    return [x509.DNSName(host) for host in hosts]


def _usage(is_authority: bool) -> x509.KeyUsage:
    """Return the key usage: authorities sign certificates, others sign their handshakes."""
    return x509.KeyUsage(
        digital_signature=not is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        encipher_only=False,
        decipher_only=False,
    )


@frozen
class Certificates:
    """A certificate for 127.0.0.1, its authority, and contexts of both sides."""

    pem: str
    authorities: str
    client: ssl.SSLContext
    server: ssl.SSLContext

    def offering(self, *protocols: str) -> ssl.SSLContext:
        """Return a client's context that offers `protocols` (ALPN)."""
        context = ssl.create_default_context(cafile=f"{self.authorities}/ca.pem")
        context.set_alpn_protocols(protocols)
        return context


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """The certificates of one authority for the tests of a module."""
    directory = tmp_path_factory.mktemp("tls")
    authority = Authority.new()
    identity = authority.issue([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))], DAY)
    pem = identity.save(directory / "server.pem")
    trusted = directory / "trusted"
    trusted.mkdir()
    client = ssl.create_default_context(cafile=authority.save(trusted))
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(pem)
    return Certificates(pem, str(trusted), client, server)
