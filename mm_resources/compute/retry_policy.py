"""Retries: the earlier failures that a run computes again, and its pauses between tries."""

from __future__ import annotations

from dataclasses import dataclass

from mm_embed_kernels.error_classes import transient_names
from mm_resources.backoff import backoff_pause


@dataclass(frozen=True)
class RetryPolicy:
    """Chooses cached failures that are computed again.

    Attributes:
        retryable: failures marked retryable.
        other_environment: failures that were seen only in another environment (Python, libraries, limits), or
            by a version that blamed a sample for what the machine may have caused.
        permanent: all other failures.
        classes: error classes that the choice is narrowed to; None stands for any.
    """

    retryable: bool = False
    other_environment: bool = False
    permanent: bool = False
    classes: tuple[str, ...] | None = None


# The policy of an ordinary run.
RETRYABLE = RetryPolicy(retryable=True, other_environment=True)
ALL = RetryPolicy(retryable=True, other_environment=True, permanent=True)
NONE = RetryPolicy()


def within_run() -> RetryPolicy:
    """Return the policy of the tries inside one run: failures of a transient cause are computed again."""
    return RetryPolicy(retryable=True, classes=tuple(sorted(transient_names())))


@dataclass(frozen=True)
class Backoff:
    """Number and spacing of tries for transient causes inside one run.

    Attributes:
        attempts: tries of one row in a run, the first included.
        seconds: the first pause's upper bound, doubled with each further one.
        longest: upper bound of any pause, seconds.
    """

    attempts: int = 4
    seconds: float = 0.5
    longest: float = 8.0

    def pause(self, tries: int) -> float:
        """Seconds to wait after some tries, see `mm_resources.backoff`."""
        return backoff_pause(tries, self.seconds, self.longest)
