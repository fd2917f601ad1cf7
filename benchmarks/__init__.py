"""Benchmarks of evproxy against other TCP proxies: ``python -m benchmarks``.

Each module is one step of the way from a process to a sentence:
``processes`` and ``network`` start things and read what they cost, ``peers`` says
how each proxy is started, ``upstreams`` and ``loads`` what it is put between,
``measures`` what is done to it, ``results`` what came out, and ``bar``, ``report``
and ``plots`` what that means.
"""
