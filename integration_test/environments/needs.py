"""What each stage needs besides Python: programs, and the package of Debian that has each.

python -m integration_test.environments.needs hosts    prints the packages that are to be installed for it
"""

from __future__ import annotations

import os
import shutil
import sys

_CONTAINERS = {
    **{name: name for name in ("podman", "runc", "catatonit", "iptables", "debootstrap")},
    **{f"/usr/lib/podman/{name}": name for name in ("netavark", "aardvark-dns")},
}

PROGRAMS: dict[str, dict[str, str]] = {
    "fresh": _CONTAINERS,
    "containers": _CONTAINERS | {"go": "golang"},
    "hosts": {"ip": "iproute2", "iptables": "iptables", "conntrack": "conntrack"},
    "cluster": {"patroni": "patroni", "etcd": "etcd-server", "haproxy": "haproxy"},
    "jaeger": {"go": "golang", "prometheus": "prometheus"},
}
"""Stage → program → package."""

AS_ROOT = {"fresh", "containers", "hosts"}
"""Stages that make containers or networks."""


def missing(stage: str) -> str | None:
    """Return what a stage lacks here, and how to get it, in a line; None if nothing."""
    if lacks := _lacks(stage):
        return f"{', '.join(lacks)} missing: apt-get install {' '.join(lacks.values())}"
    if stage in AS_ROOT and os.geteuid() != 0:
        return "it makes containers and networks: run it as root"
    return None


def _lacks(stage: str) -> dict[str, str]:
    folders = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin"  # Debian gives that to root alone
    return {name: package for name, package in PROGRAMS[stage].items() if not shutil.which(name, path=folders)}


def required() -> set[str]:
    """Return the stages that REACTIVE_ORCH_STAGES names (with commas): of these a missing program is an error."""
    named = os.environ.get("REACTIVE_ORCH_STAGES", "")
    return set(named.split(",")) - {""}


if __name__ == "__main__":
    sys.stdout.write(" ".join(dict.fromkeys(_lacks(sys.argv[1]).values())))
