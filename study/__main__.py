"""``python -m study``; what it needs and is not there is one line."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    try:
        match sys.argv[1:]:
            case ["live", *rest]:
                from .live.command import main as live

                sys.exit(live(rest))
            case ["block", *rest]:
                from .block import main as block

                sys.exit(block(rest))
            case arguments:
                from .run import main

                sys.exit(main(arguments))
    except KeyboardInterrupt:
        sys.exit(130)
    except ModuleNotFoundError as missing:
        sys.exit(f"{sys.executable} has no {missing.name}: pip install -e '.[dev]'")
