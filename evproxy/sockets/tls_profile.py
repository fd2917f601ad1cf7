"""
What evproxy speaks: Mozilla's intermediate profile, version 6.0, on both sides.

Source: https://wiki.mozilla.org/Security/Server_Side_TLS, and the guidelines in JSON beside it.
"""

from __future__ import annotations

from cryptography.hazmat.bindings.openssl.binding import Binding
from OpenSSL import SSL

MINIMUMS = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}
"""The least versions of TLS that can be asked for."""

CIPHERS = (
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
)
"""The ciphers of TLS 1.2.  The client's order counts."""

SUITES = ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256")
"""The cipher suites of TLS 1.3."""

GROUPS = ("X25519MLKEM768", "X25519", "prime256v1", "secp384r1")
"""The groups of the key exchange, the first one safe from quantum computers."""


def profiled(method: int, minimum: str = "1.2") -> SSL.Context:
    """
    A context with the profile, for `method` (``SSL.TLS_SERVER_METHOD`` or ``_CLIENT_METHOD``).

    It renegotiates nothing, and keeps no buffers for connections that are idle.

    :param minimum: the least version of TLS: one of `MINIMUMS`.
    """
    context = SSL.Context(method)
    context.set_min_proto_version(MINIMUMS[minimum])
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.set_options(SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION)
    context.set_cipher_list(":".join(CIPHERS).encode())
    context.set_tls13_ciphersuites(":".join(SUITES).encode())
    _set_groups(context)
    return context


def _set_groups(context: SSL.Context) -> None:
    # pyOpenSSL has no method for it.  OpenSSL ignores a group with "?" that it does not have.
    names = ":".join(f"?{name}" for name in GROUPS).encode()
    if not Binding.lib.SSL_CTX_set1_curves_list(context._context, names):
        raise RuntimeError(f"OpenSSL refused the groups {names!r}")
