"""``python -m evproxy``: the same as the command ``evproxy``."""

from __future__ import annotations

import sys

from evproxy.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
