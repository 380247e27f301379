"""The folder that `mm` is started in: nothing is imported from there."""

from __future__ import annotations

import os
import sys


def leave_working_folder() -> None:
    """Import nothing from the folder that the command is started in, here and in child processes.

    `python -m` and `python -c` put it first, and so does a relative entry of PYTHONPATH, such as the empty
    one of ``PYTHONPATH=$PYTHONPATH:/packages`` where the variable was not set. Behind the latter, what the
    interpreter itself imports before (``sitecustomize``, this package) has come from there.
    """
    os.environ.setdefault("PYTHONSAFEPATH", "1")
    if sys.path and sys.path[0] in ("", os.getcwd()):
        del sys.path[0]
    entries = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    relative = {os.path.realpath(entry) for entry in entries if not os.path.isabs(entry)}
    if entries == [""] or not relative:
        return
    kept = [os.path.abspath(entry) for entry in entries if os.path.isabs(entry)]
    own = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
    if own in relative:  # a checkout of this project
        kept.append(own)
    os.environ["PYTHONPATH"] = os.pathsep.join(kept)
    left = relative - {os.path.realpath(entry) for entry in kept}
    sys.path[:] = [entry for entry in sys.path if os.path.realpath(entry) not in left]
