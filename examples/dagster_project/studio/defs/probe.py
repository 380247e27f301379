"""Downstream of the platform: a model trained on the version that was promoted to production."""

import dagster as dg


@dg.asset(
    deps=[dg.AssetKey(["features", "birds", "production"])],
    automation_condition=dg.AutomationCondition.eager(),
)
def probe() -> dg.MaterializeResult:
    """A linear model of the family of a note, and the manifest of the rows that it has seen."""
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    from mm_resources import FeatureStore

    rows = FeatureStore.open().training_set("birds@production", modality="text", columns=["label"])
    table = rows.to_arrow()
    vectors, labels = np.stack(table["vector"].to_numpy()), table["label"].to_pylist()
    model = LogisticRegression(max_iter=1_000).fit(vectors, labels)
    return dg.MaterializeResult(
        metadata={
            "accuracy": float(model.score(vectors, labels)),
            "manifest": dg.MetadataValue.json(rows.manifest),
        }
    )
