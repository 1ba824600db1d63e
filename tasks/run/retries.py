"""What may pass by itself and what cannot, and how long to wait between tries."""

import re
from dataclasses import dataclass

from tasks.system.errors import ProjectError

# What a stage, git or DVC says when the machine or the network, not the request, is at fault.
TRANSIENT = re.compile(
    r"no space left|disk quota exceeded|killed \(signal 9\)|connection (refused|reset|aborted|closed)|could not connect|timed? ?out"
    r"|temporary failure|network is unreachable|no route to host|broken pipe|could not resolve host|unexpected eof|early eof|hung up"
    r"|service unavailable|slow ?down|too many requests|input/output error|stale file handle|cuda error: (ecc|unspecified launch)",
    re.IGNORECASE,
)


class TransientError(ProjectError):
    """A node was lost, its disk was full, the network went: another try, maybe elsewhere, may go well."""


@dataclass(frozen=True)
class Retries:
    """`limit` tries after the first; before try n (from 1) a wait of `first_s` * 2^(n-1), at most `longest_s`."""

    limit: int = 3
    first_s: float = 10.0
    longest_s: float = 600.0

    def wait_s(self, number: int) -> float:
        return float(min(self.first_s * 2 ** (number - 1), self.longest_s))


def is_transient(message: str) -> bool:
    """Whether `message` speaks of something that may be over at the next try. Bad parameters, bad data and bugs never are."""
    return bool(TRANSIENT.search(message))
