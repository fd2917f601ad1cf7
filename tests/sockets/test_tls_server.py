"""Which certificate a client gets, and what a handshake agrees on; without sockets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from attrs import frozen
from cryptography.hazmat.primitives.asymmetric import rsa
from OpenSSL import SSL

from evproxy.errors import SettingsError
from evproxy.model import TLSFacts
from evproxy.settings import ListenerTLS
from evproxy.sockets.tls_profile import CIPHERS, GROUPS, SUITES
from evproxy.sockets.tls_server import ServerContexts, facts_of
from tests.support.certificates import DAY, Authority, names

CLIENTS = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}
RSA_KEY = rsa.generate_private_key(65537, 2048)


@frozen
class Files:
    """PEM files of one authority in a directory."""

    directory: Path
    authority: Authority

    def save(self, file: str, *hosts: str, key: Any = None, called: str = "Test server") -> str:
        """The path of a new certificate for `hosts`."""
        identity = self.authority.issue(names(*hosts), DAY, key, called)
        return identity.save(self.directory / file)

    @property
    def ca(self) -> str:
        return self.authority.save(self.directory)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Files in a directory of their own."""
    return Files(tmp_path, Authority.new())


def contexts(*certificates: str, **settings: Any) -> ServerContexts:
    return ServerContexts(ListenerTLS(certificates=certificates, **settings))


def client_context(version: str | None = None) -> SSL.Context:
    """A client's context that verifies nothing."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    if version is not None:
        context.set_min_proto_version(CLIENTS[version])
        context.set_max_proto_version(CLIENTS[version])
    return context


def shake(
    server: ServerContexts,
    context: SSL.Context | None = None,
    name: str | None = None,
    session: Any = None,
) -> tuple[SSL.Connection, SSL.Connection]:
    """The client's connection and the server's after a handshake; raises the server's error."""
    client = SSL.Connection(context or client_context())
    client.set_connect_state()
    if name is not None:
        client.set_tlsext_host_name(name.encode())
    if session is not None:
        client.set_session(session)
    served = server.connection(None)
    over: set[SSL.Connection] = set()
    while len(over) < 2:
        for one, other in ((client, served), (served, client)):
            try:
                one.do_handshake()
                over.add(one)
            except SSL.WantReadError:
                """It waits for the other."""
            pour(one, other)
    return client, served


def pour(one: SSL.Connection, other: SSL.Connection) -> None:
    """Hand what `one` has to send to `other`."""
    try:
        other.bio_write(one.bio_read(65536))
    except SSL.WantReadError:
        """There is nothing."""


def common_name(client: SSL.Connection) -> str:
    certificate = client.get_peer_certificate(as_cryptography=True)
    assert certificate is not None
    return certificate.subject.rfc4514_string().removeprefix("CN=")


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        ("www.example.org", "exact"),
        ("WWW.Example.ORG", "exact"),
        ("other.example.org", "wildcard"),
        ("a.b.example.org", "first"),
        ("example.org", "first"),
        ("elsewhere.test", "first"),
        (None, "first"),
    ],
)
def test_the_certificate_for_a_name(files: Files, asked: str | None, given: str) -> None:
    """A name itself comes before a wildcard, and a name without a certificate gets the first."""
    server = contexts(
        files.save("1.pem", "first.test", called="first"),
        files.save("2.pem", "*.example.org", called="wildcard"),
        files.save("3.pem", "www.example.org", called="exact"),
    )
    client, _ = shake(server, name=asked)
    assert common_name(client) == given


@pytest.mark.parametrize("asked", ["elsewhere.test", None])
def test_strict_clients_must_ask_for_a_name_that_is_there(files: Files, asked: str | None) -> None:
    """With strict_sni, a client that asks for no name or another one is refused."""
    server = contexts(files.save("1.pem", "first.test", called="first"), strict_sni=True)
    assert common_name(shake(server, name="first.test")[0]) == "first"
    with pytest.raises(SSL.Error):
        shake(server, name=asked)


@pytest.mark.parametrize("name", ["both.test", None])
@pytest.mark.parametrize("version", ["1.2", "1.3"])
@pytest.mark.parametrize(("kind", "cipher"), [("RSA", "RSA"), ("ECDSA", "ECDSA")])
def test_two_kinds_of_keys(
    files: Files, name: str | None, version: str, kind: str, cipher: str
) -> None:
    """A client that can verify only one kind of keys gets the certificate with that."""
    server = contexts(
        files.save("1.pem", "both.test", called="ECDSA"),
        files.save("2.pem", "both.test", key=RSA_KEY, called="RSA"),
    )
    client = client_context(version)
    # Only ciphers tell it in TLS 1.2, and only signature algorithms in TLS 1.3.
    client.set_cipher_list(f"ECDHE-{cipher}-AES128-GCM-SHA256".encode())
    only_signed(client, {"RSA": b"RSA-PSS+SHA256:RSA+SHA256", "ECDSA": b"ECDSA+SHA256"}[kind])
    assert common_name(shake(server, client, name)[0]) == kind


def only_signed(context: SSL.Context, algorithms: bytes) -> None:
    from cryptography.hazmat.bindings.openssl.binding import Binding

    assert Binding.lib.SSL_CTX_set1_sigalgs_list(context._context, algorithms)


def test_the_first_common_protocol_of_the_listener_is_chosen(files: Files) -> None:
    """The listener's order counts (ALPN); a client that offers nothing gets nothing."""
    server = contexts(files.save("1.pem", "a.test"), alpn=("h2", "http/1.1"))
    client = client_context()
    client.set_alpn_protos([b"http/1.1", b"h2"])
    assert shake(server, client)[0].get_alpn_proto_negotiated() == b"h2"
    assert shake(server)[0].get_alpn_proto_negotiated() == b""


def test_a_client_without_a_common_protocol_is_refused(files: Files) -> None:
    """As RFC 7301, 3.2 says; but without protocols of the listener, none is chosen."""
    client = client_context()
    client.set_alpn_protos([b"spdy/3"])
    path = files.save("1.pem", "a.test")
    with pytest.raises(SSL.Error, match="protocols"):
        shake(contexts(path, alpn=("h2",)), client)
    assert shake(contexts(path), client)[0].get_alpn_proto_negotiated() == b""


@pytest.mark.parametrize("version", ["1.2", "1.3"])
@pytest.mark.parametrize("tickets", [True, False])
def test_sessions_are_resumed(files: Files, version: str, tickets: bool) -> None:
    """A client that comes again shakes hands for less: with a ticket, or else with an id."""
    server = contexts(
        files.save("1.pem", "first.test"), files.save("2.pem", "a.test"), alpn=("h2",)
    )
    client = client_context(version)
    if not tickets:
        client.set_options(SSL.OP_NO_TICKET)
    first, served = shake(server, client, "a.test")
    served.send(b"x")
    pour(served, first)
    assert first.recv(10) == b"x"
    again, _ = shake(server, client, "a.test", first.get_session())
    assert reused(again)
    assert not reused(first)


def reused(connection: SSL.Connection) -> bool:
    from cryptography.hazmat.bindings.openssl.binding import Binding

    return bool(Binding.lib.SSL_session_reused(connection._ssl))


@pytest.mark.parametrize("asked", ["optional", "required"])
def test_the_subject_of_a_client_certificate(files: Files, asked: str) -> None:
    """A certificate of the authority's is verified, and its subject is known."""
    server = contexts(files.save("1.pem", "a.test"), client_ca=files.ca, client_certificate=asked)
    client = client_context()
    own = files.save("client.pem", called="alice")
    client.use_certificate_chain_file(own)
    client.use_privatekey_file(own)
    _, served = shake(server, client, "a.test")
    facts = facts_of(served, True)
    assert facts.client_subject == "CN=alice"
    assert (facts.version, facts.server_name) == ("TLSv1.3", "a.test")


def test_a_client_certificate_that_is_required(files: Files) -> None:
    """Without one, a client is refused; where it is optional, it is let in without a subject."""
    path = files.save("1.pem", "a.test")
    with pytest.raises(SSL.Error):
        shake(contexts(path, client_ca=files.ca, client_certificate="required"))
    _, served = shake(contexts(path, client_ca=files.ca, client_certificate="optional"))
    assert facts_of(served, True).client_subject == ""


@pytest.mark.parametrize("asked", ["optional", "required"])
def test_a_client_certificate_of_somebody_else(files: Files, tmp_path: Path, asked: str) -> None:
    """A certificate that the authority did not issue refuses the client in any case."""
    server = contexts(files.save("1.pem", "a.test"), client_ca=files.ca, client_certificate=asked)
    client = client_context()
    own = Authority.new().issue(names("b.test"), DAY).save(tmp_path / "other.pem")
    client.use_certificate_chain_file(own)
    client.use_privatekey_file(own)
    with pytest.raises(SSL.Error):
        shake(server, client)


@pytest.mark.parametrize("suite", SUITES)
def test_each_suite_of_the_profile(files: Files, suite: str) -> None:
    """A client that has one suite of TLS 1.3 gets that one."""
    client = client_context("1.3")
    client.set_tls13_ciphersuites(suite.encode())
    _, served = shake(contexts(files.save("1.pem", "a.test")), client)
    assert facts_of(served, False) == TLSFacts("TLSv1.3", suite)


@pytest.mark.parametrize("cipher", CIPHERS)
def test_each_cipher_of_the_profile(files: Files, cipher: str) -> None:
    """A client that has one cipher of TLS 1.2 gets that one."""
    server = contexts(files.save("1.pem", "a.test"), files.save("2.pem", "a.test", key=RSA_KEY))
    client = client_context("1.2")
    client.set_cipher_list(cipher.encode())
    assert facts_of(shake(server, client)[1], False).cipher == cipher


@pytest.mark.parametrize(
    "cipher",
    [
        "ECDHE-RSA-AES256-SHA384",
        "ECDHE-ECDSA-AES128-SHA256",
        "ECDHE-ECDSA-AES128-CCM",
        "DHE-RSA-AES256-GCM-SHA384",
        "AES256-GCM-SHA384",
    ],
)
def test_other_ciphers_are_refused(files: Files, cipher: str) -> None:
    """Ciphers without forward secrecy or without authenticated encryption are not spoken."""
    server = contexts(files.save("1.pem", "a.test"), files.save("2.pem", "a.test", key=RSA_KEY))
    client = client_context("1.2")
    client.set_cipher_list(cipher.encode())
    with pytest.raises(SSL.Error):
        shake(server, client)


@pytest.mark.parametrize("group", GROUPS)
def test_each_group_of_the_profile(files: Files, group: str) -> None:
    """A client that has one group gets that one."""
    client = client_context("1.3")
    only_group(client, group)
    connected, _ = shake(contexts(files.save("1.pem", "a.test")), client)
    shown = {"prime256v1": "secp256r1", "X25519": "x25519"}.get(group, group)
    assert connected.get_group_name() == shown


@pytest.mark.parametrize("group", ["X448", "secp521r1", "ffdhe2048"])
def test_other_groups_are_refused(files: Files, group: str) -> None:
    """OpenSSL has more groups than the profile."""
    client = client_context("1.3")
    only_group(client, group)
    with pytest.raises(SSL.Error):
        shake(contexts(files.save("1.pem", "a.test")), client)


def only_group(context: SSL.Context, group: str) -> None:
    from cryptography.hazmat.bindings.openssl.binding import Binding

    assert Binding.lib.SSL_CTX_set1_curves_list(context._context, group.encode())


def test_the_lowest_version(files: Files) -> None:
    """TLS 1.2 is spoken unless the settings say 1.3; TLS 1.1 never is."""
    path = files.save("1.pem", "a.test")
    assert facts_of(shake(contexts(path), client_context("1.2"))[1], False).version == "TLSv1.2"
    with pytest.raises(SSL.Error):
        shake(contexts(path, minimum="1.3"), client_context("1.2"))
    old = SSL.Context(SSL.TLS_CLIENT_METHOD)
    old.set_min_proto_version(SSL.TLS1_1_VERSION)
    old.set_max_proto_version(SSL.TLS1_1_VERSION)
    old.set_cipher_list(b"ALL:@SECLEVEL=0")
    with pytest.raises(SSL.Error):
        shake(contexts(path), old)


def test_files_that_cannot_be_used(files: Files, tmp_path: Path) -> None:
    """One line says which file, and what is wrong with it."""
    good, other = files.save("1.pem", "a.test"), files.save("2.pem", "a.test")
    empty = tmp_path / "empty.pem"
    empty.write_text("nothing")
    mixed = tmp_path / "mixed.pem"
    key = Path(good).read_bytes().partition(b"-----BEGIN CERTIFICATE")[0]
    certificate = Path(other).read_bytes().partition(b"-----BEGIN CERTIFICATE")
    mixed.write_bytes(key + certificate[1] + certificate[2])
    no_key = tmp_path / "nokey.pem"
    no_key.write_bytes(certificate[1] + certificate[2])
    for path, fault in [
        (str(tmp_path / "absent.pem"), "No such file"),
        (str(empty), "there is no certificate in it"),
        (str(mixed), "key"),
        (str(no_key), "there is no private key in it"),
    ]:
        with pytest.raises(SettingsError, match=fault) as raised:
            contexts(good, path)
        assert path in str(raised.value)
        assert "\n" not in str(raised.value)
