"""The one exception that means *the user can mend this*.

The command line prints its sentence and exits with code 2; everything else that escapes is a bug of ours
(exit code 1). A message says what was given, what is allowed and what to type next.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from numbers import Integral
from typing import Any


class InputError(ValueError):
    """Something the caller gave cannot be used; the message is one clear sentence."""


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number, as Python and numpy have them; True and False are none."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def check_seed(random_state: Any) -> None:
    """Raise an InputError where `random_state` is no seed."""
    if not is_whole(random_state) or random_state < 0:
        raise InputError(f"random_state={random_state!r} is no seed; give a whole number of 0 or more")


def did_you_mean(word: str, known: Iterable[str], *, most: int = 1) -> str:
    """`did you mean 'name'? ` with the known names most like a word, for a message; "" where none is like it."""
    near = difflib.get_close_matches(word, list(known), n=most)
    return f"did you mean {' or '.join(map(repr, near))}? " if near else ""
