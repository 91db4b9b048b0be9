"""Why other people's code failed, as a clause of one of our sentences."""

from __future__ import annotations

LONGEST = 300


def told_by(error: BaseException) -> str:
    """The kind of an error and what it says: its first line, with those that follow where that only announces them.

    A KeyError says no more than a key, and some messages begin "One of:"; neither tells anything alone.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = lines[:1]
    if said and said[0].endswith(":"):
        said = lines
    words = " ".join(said)
    if len(words) > LONGEST:
        words = f"{words[:LONGEST].rstrip()} …"
    return f"{type(error).__name__}: {words}" if words else type(error).__name__
