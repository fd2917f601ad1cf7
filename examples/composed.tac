# A web site, and evproxy in front of it, in one process:
#
#     twistd -noy examples/composed.tac
#
# http://127.0.0.1:8080 then shows the site through the proxy.  To listen elsewhere, set the
# environment variable LISTEN to a Twisted server endpoint description.

import os
from pathlib import Path
from tempfile import mkdtemp

from twisted.application.internet import StreamServerEndpointService
from twisted.application.service import Application
from twisted.internet import reactor
from twisted.internet.endpoints import serverFromString
from twisted.web.resource import Resource
from twisted.web.server import Site
from twisted.web.static import Data

from evproxy import ProxyService, Signals

application = Application("composed")

# The site listens on a private UNIX socket, so that clients reach it only through the proxy.
socket = Path(mkdtemp(), "site.socket")
root = Resource()
root.putChild(b"", Data(b"This page came through evproxy.\n", "text/plain"))
endpoint = serverFromString(reactor, f"unix:{socket}")
StreamServerEndpointService(endpoint, Site(root)).setServiceParent(application)

# When twistd stops, sessions may go on for ten seconds.
proxy = ProxyService(
    reactor,
    listen=[os.environ.get("LISTEN", "tcp:8080:interface=127.0.0.1")],
    upstreams=[f"unix:{socket}"],
    drain_timeout=10,
)
proxy.setServiceParent(application)

# A second Ctrl-C ends the sessions at once.
Signals(reactor, proxy).install()
