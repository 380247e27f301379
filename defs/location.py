"""The code location that `dg dev` loads."""

from pathlib import Path

import dagster as dg


@dg.definitions
def defs() -> dg.Definitions:
    """Load the project's definitions; runs from the UI stay in one process, since one run is one cell."""
    project = dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
    return dg.Definitions.merge(project, dg.Definitions(executor=dg.in_process_executor))
