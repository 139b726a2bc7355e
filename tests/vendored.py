#!/usr/bin/env python3
"""Holds static/assets/vendor/ to VENDORED.json: each file as it was published, and no other
but our type declarations (*.d.ts).

    tests/vendored.py            compares the hashes
    tests/vendored.py --fetch    also fetches the packages with npm and compares their files
"""

import hashlib
import json
import pathlib
import subprocess
import sys
import tarfile
import tempfile

VENDOR = pathlib.Path(__file__).resolve().parent.parent / "static/assets/vendor"
LIST = "VENDORED.json"
KEYS = {"name", "version", "licence", "file", "sha256", "path"}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def published(entry: dict) -> bytes:
    """The file as the registry gives it."""
    with tempfile.TemporaryDirectory() as folder:
        package = f"{entry['name']}@{entry['version']}"
        subprocess.run(["npm", "pack", "--silent", package], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        (archive,) = pathlib.Path(folder).glob("*.tgz")
        with tarfile.open(archive) as tar:
            return tar.extractfile(entry["path"]).read()


def faults(is_fetching: bool) -> list[str]:
    found = []
    entries = json.loads((VENDOR / LIST).read_text())
    for entry in entries:
        if set(entry) != KEYS:
            found.append(f"{LIST}: {entry.get('file')}: not exactly the keys {sorted(KEYS)}")
            continue
        file = VENDOR / entry["file"]
        if not file.is_file():
            found.append(f"{entry['file']}: is not there")
        elif sha256(file.read_bytes()) != entry["sha256"]:
            found.append(f"{entry['file']}: is not what {LIST} says")
        elif is_fetching and sha256(published(entry)) != entry["sha256"]:
            found.append(f"{entry['file']}: is not what {entry['name']} {entry['version']} published")
    known = {entry.get("file") for entry in entries} | {LIST}
    found += [f"{path.name}: is not in {LIST}" for path in sorted(VENDOR.rglob("*")) if not path.name.endswith(".d.ts") and str(path.relative_to(VENDOR)) not in known]
    return found


if __name__ == "__main__":
    found = faults("--fetch" in sys.argv[1:])
    for fault in found:
        print(fault, file=sys.stderr)
    print(f"vendored files: {'differ' if found else 'as published'}")
    sys.exit(1 if found else 0)
