"""Several evproxy services in one process, for the measures that mix their loads.

BENCHMARK_FORWARDS is LISTEN:UPSTREAM pairs of loopback ports, BENCHMARK_RELAY the relay.
"""

import os

from twisted.application.service import Application
from twisted.internet import reactor

from evproxy import ProxyService

application = Application("evproxy")
for forward in os.environ["BENCHMARK_FORWARDS"].split():
    listen, upstream = forward.split(":")
    ProxyService(
        reactor,
        listen=[f"tcp:{listen}:interface=127.0.0.1"],
        upstreams=[f"127.0.0.1:{upstream}"],
        relay=os.environ["BENCHMARK_RELAY"],
        access_log=False,
    ).setServiceParent(application)
