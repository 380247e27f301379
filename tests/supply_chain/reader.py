"""What a reader of a store does: ``python reader.py STORE FOLDER`` prints one JSON. It imports the public API alone.

`test_core.py` runs it where only the core's packages are found, and in an environment that has no others.
"""

import json
import sys
from pathlib import Path

from mm_resources import FeatureStore, UserError, export

NAME = "small@v1"


def refusal(call):
    """Return the line of the error that a call raises."""
    try:
        call()
    except UserError as error:
        return str(error)
    return "none"


def main() -> None:
    store, folder = sys.argv[1], Path(sys.argv[2])
    features = FeatureStore.open(store)
    rows = features.training_set(NAME, modality="text", columns=["label", "text"]).to_arrow()
    first = rows.slice(0, 1).to_pylist()[0]
    by_vector = features.search(first["vector"], dataset_version=NAME, modality="text", k=2)
    by_id = features.search(f"id:{first['feature_id']}", dataset_version=NAME, modality="text", k=1)
    by_words = features.search("coffee", dataset_version=NAME, modality="text", mode="text")
    filtered = features.training_set(NAME, modality="text", where="label = 'food'")
    again = features.training_set(manifest=filtered.manifest)
    decisions = features.decisions(NAME, "text")
    exported = {form: export(filtered, form, folder / form) for form in ("parquet", "lance")}
    print(
        json.dumps(
            {
                "rows": rows.num_rows,
                "texts": sorted(rows["text"].to_pylist()),
                "by_vector": [by_vector["text"][0].as_py(), round(by_vector["score"][0].as_py(), 3)],
                "by_id": by_id["text"].to_pylist(),
                "by_words": by_words["label"].to_pylist(),
                "filtered": [filtered.manifest["rows"], again.to_arrow()["label"].to_pylist()],
                "decisions": [decisions.num_rows, sum(decisions["kept"].to_pylist())],
                "explained": first["sample_id"]
                in json.dumps(features.explain(first["feature_id"]), default=str),
                "exported": exported,
                "shards": refusal(lambda: export(filtered, "webdataset", folder / "shards")),
                "loader": refusal(lambda: filtered.to_torch(batch_size=1)),
                "frame": refusal(filtered.to_polars),
                "on_ray": refusal(filtered.to_ray),
                "words": refusal(lambda: features.search("coffee", dataset_version=NAME, modality="text")),
                "file": refusal(lambda: features.search(b"RIFF", dataset_version=NAME, modality="audio")),
                "loaded": sorted(
                    {"torch", "dagster", "ray", "transformers", "polars"}
                    & {name.partition(".")[0] for name in sys.modules}
                ),
            }
        )
    )


if __name__ == "__main__":
    main()
