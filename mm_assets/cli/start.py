"""Start of `mm`: leaves the folder that it is started in before it imports anything that could lie there."""

from __future__ import annotations

from mm_assets.cli.working_folder import leave_working_folder


def start() -> None:
    """Run `mm`."""
    leave_working_folder()
    from mm_assets.cli.main import main  # behind the line above, which is what this module is for

    main()
