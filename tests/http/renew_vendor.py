"""Fetch the browser libraries that the status page is served with from npm anew: `make vendor`.

Each folder of `vendor/` has a manifest, `vendor.json`: write another version there, and run this.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import tarfile
import tempfile
from pathlib import Path

VENDOR = Path(__file__).parents[2] / "reactive_orch" / "http" / "static" / "vendor"


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def renew(manifest: Path) -> None:
    """Write the files that the manifest names, and their digests into it."""
    vendored = json.loads(manifest.read_text(encoding="utf-8"))
    contents = _published(f"{vendored['name']}@{vendored['version']}", vendored["files"])
    for name, content in contents.items():
        path = manifest.parent / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    vendored["files"] = {name: digest(content) for name, content in contents.items()}
    manifest.write_text(json.dumps(vendored, indent=2) + "\n", encoding="utf-8")


def _published(package: str, names: list[str]) -> dict[str, bytes]:
    """Return the content of files of a package, by name; npm has checked it."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["npm", "pack", "--silent", package], cwd=folder, check=True)  # noqa: S603, S607
        (archive,) = Path(folder).glob("*.tgz")
        with tarfile.open(archive) as published:
            return {name: _read(published, f"package/{name}") for name in names}


def _read(archive: tarfile.TarFile, name: str) -> bytes:
    member = archive.extractfile(name)
    assert member is not None, name
    return member.read()


if __name__ == "__main__":
    for each in sorted(VENDOR.glob("*/vendor.json")):
        renew(each)
