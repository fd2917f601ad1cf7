"""What the numbers were taken on: the machine and the versions, and nothing that names it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

_VERSION = re.compile(r"(\d+\.\d+(?:\.\d+)?(?:[-+.~]\w+)*)")


def machine() -> dict[str, str]:
    """CPU model, cores, memory and kernel."""
    cpu = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*:\s*(.+)$", cpu, re.MULTILINE)
    virtual = ", virtual machine" if re.search(r"^flags.*\bhypervisor\b", cpu, re.MULTILINE) else ""
    memory = re.search(r"^MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return {
        "CPU": (model[1] if model else platform.machine()) + virtual,
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{int(memory[1]) / (1 << 20):.0f} GiB" if memory else "unknown",
        "kernel": f"{platform.system()} {re.split('[-+]', platform.release())[0]}",
    }


def versions() -> dict[str, str]:
    """Of everything that took part, as far as it is installed."""
    found = {"Python": platform.python_version()}
    for name in ("evproxy", "Twisted", "uvloop"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    found["HAProxy"] = _asked(["haproxy", "-v"])
    found["nginx"] = _asked(["nginx", "-v"])
    found["wrk"] = _asked(["wrk", "-v"])
    found["iperf3"] = _asked(["iperf3", "--version"])
    return found


def _asked(argv: Sequence[str]) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=10)
    except OSError:
        return "not installed"
    version = _VERSION.search(done.stdout + done.stderr)
    return version[1] if version else "unknown"
