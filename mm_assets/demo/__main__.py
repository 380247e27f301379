"""The demo as a program.

python -m mm_assets.demo [--mode auto|inline|ray] [--ray-address HEAD:PORT]
"""

from __future__ import annotations

import sys

from mm_embed_kernels.errors import UserError
from mm_embed_kernels.extras import EXTRAS, explain_missing, require_installed


def main() -> int:
    """Run the demo; return the exit code.

    Raises:
        UserError: where packages of the extra `platform` are missing, and for what `showcase.main` raises.
    """
    require_installed("the demo", [*EXTRAS["platform"], *EXTRAS["media"]])
    with explain_missing("the demo"):
        from mm_assets.demo import showcase  # imports Dagster
    return showcase.main()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
