"""``python -m study``; what it needs and is not there is one line."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    try:
        if sys.argv[1:2] == ["live"]:
            from .live.command import main as live

            sys.exit(live(sys.argv[2:]))
        from .run import main

        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
    except ModuleNotFoundError as missing:
        sys.exit(f"{sys.executable} has no {missing.name}: pip install -e '.[dev]'")
