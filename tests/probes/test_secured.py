"""The TLS of health checks: what a check that is over leaves behind."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from zope.interface import implementer

from evproxy.settings import PoolTLS
from evproxy.sockets.tls_client import ClientTLS
from evproxy.upstream.probes.secured import SecuredEndpoint
from evproxy.wire.postgres import SSL_REQUEST


@implementer(IStreamClientEndpoint)
class NeverConnected:
    """An endpoint whose connects do not end by themselves."""

    def __init__(self) -> None:
        self.cancelled = 0

    def connect(self, protocolFactory: Any) -> Deferred[Any]:
        def cancel(_: object) -> None:
            self.cancelled += 1

        return Deferred(cancel)


@pytest.mark.parametrize("request_", [b"", SSL_REQUEST])
def test_a_check_that_is_over_before_the_connect(request_: bytes) -> None:
    """The connect is cancelled, once, and the check's Deferred fails with that."""
    endpoint = NeverConnected()
    secured = SecuredEndpoint(
        endpoint, ClientTLS(PoolTLS(insecure_skip_verify=True)), "a.example", request_
    )
    asked = secured.connect(Factory.forProtocol(Protocol))
    failures: list[Any] = []
    asked.addErrback(failures.append)
    asked.cancel()
    assert endpoint.cancelled == 1
    [failure] = failures
    assert failure.check(CancelledError)
