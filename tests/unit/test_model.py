"""What connections are described by."""

from __future__ import annotations

from typing import Any

from attrs import evolve, fields

from evproxy.model import ConnectionInfo, TLSFacts


def test_with_tls() -> None:
    """Nothing else changes, whichever fields there are."""
    make: Any = ConnectionInfo
    info = make(*(object() for _ in fields(ConnectionInfo)))
    tls = TLSFacts("TLSv1.3", "TLS_AES_128_GCM_SHA256", "a.example", "", "", "")
    assert info.with_tls(tls) == evolve(info, tls=tls, server_name="a.example")
