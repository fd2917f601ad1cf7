"""``python -m study``; what it needs and is not there is one line."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    try:
        from .run import main

        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
    except ModuleNotFoundError as missing:
        sys.exit(f"{sys.executable} has no {missing.name}: pip install -e '.[dev]'")
