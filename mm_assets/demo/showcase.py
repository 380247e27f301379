"""The run of the demo: real texts, images, sounds and videos, from files to search, in minutes."""

from __future__ import annotations

import argparse
from pathlib import Path

from mm_assets.cli.cell_runs import print_results, run_cells
from mm_assets.cli.failures import failures
from mm_assets.cli.search import search
from mm_assets.cli.status import status
from mm_assets.demo.data import fetch
from mm_assets.operations.backfill import register_partition
from mm_assets.operations.dagster_home import open_instance
from mm_embed_kernels.spec.dataset_spec import load_spec
from mm_resources.catalog import Catalog
from mm_resources.settings import Settings
from mm_resources.storage.process import configure_process

FOLDER = Path(".mm/demo")
# (title, query, modality, number of hits, embedder or None for the primary one)
QUERIES = (
    ("text -> text", "what is a black hole made of?", "text", 3, None),
    ("text -> image", "a cat", "image", 3, None),
    ("text -> image", "a cup of coffee", "image", 3, None),
    ("text -> video, by scene", "a bicycle", "video", 3, None),
    ("image -> image", str(FOLDER / "images" / "cat" / "0001.png"), "image", 4, None),
    ("image -> video", str(FOLDER / "images" / "vehicle" / "0001.jpg"), "video", 3, None),
    ("audio -> audio", str(FOLDER / "sounds" / "laser" / "0002.ogg"), "audio", 4, None),
    ("text -> audio, by transcript", "an agreement between nations", "audio", 3, "minilm"),
)
NEXT = """
Try next:
  mm search "a bird" --dataset-version demo@v1 --modality image -k 3
  mm explain FEATURE_ID                    the origin of a hit
  mm backfill demo@v1                      unchanged, so nothing is computed
  eval "$(mm env)" && dagster dev -m mm_assets.definitions
                                           the graph, the runs and the checks, at http://127.0.0.1:3000
  mm init FOLDER                           a spec for your own data
(`mm` is in the bin folder of the environment: `source .venv/bin/activate` puts it on your path)"""


def main() -> int:
    """Run the demo; return the exit code, 1 when a cell is not published."""
    options = _parse_arguments()
    configure_process()
    settings = Settings.from_environment()
    catalog = Catalog.open()
    print(f"1. downloading real texts, images, sounds and videos with pip to {FOLDER} ...")
    spec = load_spec(fetch(FOLDER.absolute()))
    dataset_version = spec.dataset_version
    catalog.registry.register(spec)
    register_partition(open_instance(settings), dataset_version)
    print(f"2. materializing {dataset_version} through Dagster: {', '.join(spec.modalities)} ...")
    results = run_cells(
        catalog,
        catalog.registry.cells(dataset_version),
        override="",
        verbose=False,
        quiet=False,
        mode=options.mode,
        address=options.ray_address,
    )
    print_results(dataset_version, results)
    if any(result.status in ("blocked", "failed") for result in results):
        return 1
    print("3. accounting and failures\n")
    status(dataset_version)
    failures(dataset_version)
    print("4. searches\n")
    for title, query, modality, k, embedder in QUERIES:
        print(title)
        search(query, [modality], [dataset_version], k, embedder=embedder)
    print(NEXT)
    return 0


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m mm_assets.demo", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument(
        "--mode", choices=("auto", "inline", "ray"), default="auto", help="auto: by estimated work"
    )
    parser.add_argument(
        "--ray-address", default="", help="address of a cluster; its nodes need only MM_STORE in a bucket"
    )
    return parser.parse_args()
