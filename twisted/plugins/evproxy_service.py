"""Makes ``twistd evproxy`` known.  Lazy: what it imports, it imports when it is asked for."""

from twisted.application.service import ServiceMaker

evproxy = ServiceMaker("evproxy", "evproxy.cli.tap", "An event-driven TCP proxy.", "evproxy")
