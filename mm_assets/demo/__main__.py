"""`make demo`: real texts, images, sounds and videos, from files to search, in minutes.

python -m mm_assets.demo.__main__ [--mode auto|inline|ray] [--ray-address HEAD:PORT]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mm_assets.cli.cell_runs import print_results, run_cells
from mm_assets.cli.failures import failures
from mm_assets.cli.search import search
from mm_assets.cli.status import status
from mm_assets.demo.data import fetch
from mm_assets.operations.backfill import register_partition
from mm_assets.operations.dagster_home import open_instance
from mm_embed_kernels.errors import UserError
from mm_embed_kernels.spec.dataset_spec import load_spec
from mm_resources.registry.registry import Registry
from mm_resources.settings import Settings
from mm_resources.storage.process import configure_process
from mm_resources.storage.store import Store

FOLDER = Path(".mm/demo")
QUERIES = (
    ("what is a black hole made of?", "text", "text -> text"),
    ("a cat", "image", "text -> image"),
    ("a cup of coffee", "image", "text -> image"),
    ("a bicycle", "video", "text -> video, scene by scene"),
)
NEXT = """
Try next:
  mm search "a bird" --dataset-version demo@v1 --modality image -k 3
  mm explain FEATURE_ID                    where an answer came from
  mm backfill demo@v1                      nothing changed, so nothing is computed
  make ui                                  the graph, the runs and the checks, at http://127.0.0.1:3000
  mm init FOLDER                           a spec for your own data
(`mm` is .venv/bin/mm; `source .venv/bin/activate` puts it on your path)"""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--mode", choices=("auto", "inline", "ray"), default="auto", help="auto goes by the estimated work"
    )
    parser.add_argument(
        "--ray-address", default="", help="of a cluster; its nodes need nothing but MM_STORE in a bucket"
    )
    given = parser.parse_args()
    configure_process()
    settings = Settings.from_environment()
    store = Store(settings.store)
    print(f"1. fetching real texts, images, sounds and videos with pip into {FOLDER} ...")
    spec = load_spec(fetch(FOLDER.absolute()))
    Registry(store).register(spec)
    register_partition(open_instance(settings), spec.dataset_version)
    print(f"2. materializing {spec.dataset_version} through Dagster: {', '.join(spec.modalities)} ...")
    results = run_cells(
        store,
        Registry(store).cells(spec.dataset_version),
        "",
        False,
        False,
        mode=given.mode,
        address=given.ray_address,
    )
    print_results(spec.dataset_version, results)
    if any(result.status in ("blocked", "failed") for result in results):
        return 1
    print("3. the accounting, and what failed\n")
    status(spec.dataset_version, None)
    failures(spec.dataset_version)
    print("4. searches\n")
    versions = [spec.dataset_version]
    for query, modality, kind in QUERIES:
        print(kind)
        search(query, [modality], versions, 3)
    print("image -> image")
    search(str(_a_cat()), ["image"], versions, 4)
    print("image -> video")
    search(str(FOLDER / "images" / "vehicle" / "0001.jpg"), ["video"], versions, 3)
    print("audio -> audio")
    search(str(FOLDER / "sounds" / "laser" / "0002.ogg"), ["audio"], versions, 4)
    print("text -> audio, by what is said")
    search("an agreement between nations", ["audio"], versions, 3, embedder="minilm")
    print(NEXT)
    return 0


def _a_cat() -> Path:
    return sorted((FOLDER / "images" / "cat").iterdir())[0]


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
