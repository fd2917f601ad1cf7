"""Makes ``twistd evproxy`` known.  Lazy: ``evproxy.tap`` is imported only when it is asked for."""

from twisted.application.service import ServiceMaker

evproxy = ServiceMaker("evproxy", "evproxy.tap", "An event-driven TCP proxy.", "evproxy")
