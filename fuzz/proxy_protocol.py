"""
Fuzzes the reader of PROXY headers, guided by coverage: see ``README.md``.

    .venv/bin/python -m fuzz.proxy_protocol -runs=100000 /tmp/new fuzz/corpus/proxy_protocol
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["evproxy.wire"]):
    from tests.support.proxy_contract import assert_contract


def one_input(data: bytes) -> None:
    """Run one input: any exception is a finding."""
    assert_contract(data)


def main() -> None:
    """Fuzz, as the arguments of libFuzzer say."""
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
