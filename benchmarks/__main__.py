"""``python -m benchmarks``; what it needs and is not there is one line."""

from __future__ import annotations

import contextlib
import sys

if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        try:
            from .run import main

            sys.exit(main(sys.argv[1:]))
        except ModuleNotFoundError as missing:
            sys.exit(f"{sys.executable} has no {missing.name}: run benchmarks/install-peers")
    sys.exit(130)
