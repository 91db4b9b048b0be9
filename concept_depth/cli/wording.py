"""Messages speak Python's words (`group=...`, `random_state`); whoever typed a command reads its options."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence

from concept_depth.measure import SETTING_NAMES

# Hints at what only Python can be given.
_PYTHON_ONLY = re.compile(
    r",?( or)?( give)? (splits of your own \(cv=\[.*?\]\)|a scikit-learn splitter, \(train, test\) pairs,)"
)
_NAMES = "|".join(
    sorted({*SETTING_NAMES, "random_state"} - {"prefix_sharing", "standardize"}, key=len, reverse=True)
)
# Names and values that a user gave stand in quotes, behind a slash, a colon, a comma, or in a web address.
_VALUE = r"\"[^\"]*\"|'[^']*'|\[[^\]]*\]|…|\.\.\.|-?\d[\d.]*(?:e[+-]?\d+)?|-?[A-Za-z][\w-]*"
_SETTING = re.compile(rf"(?<![\w./:,?&'\"`-])({_NAMES})=({_VALUE})(?=[\s,;:)]|\.?$|\.\s)")
_ALONE = re.compile(
    r"(?<![\w./=,'\"-])(?<!, )(data_dir|random_state|max_length|min_gain|batch_tokens|chat_template)(?![\w=])"
)
# Commands that have none of these options, or few.
_OPTIONS: dict[str, tuple[str, ...]] = {
    "sweep": (),
    "report": (),
    "figure": (),
    "compare": ("random_state", "rule"),
}


def as_typed(sentence: str, typed: Sequence[str] | None = None) -> str:
    """A message with the options of the command line in place of the arguments of Python.

    Args:
        sentence: the message.
        typed: the command line, whose own words stay as they are; None takes the process's. A plan spells its keys
            as Python does.
    """

    def flag(name: str) -> str:
        return "--seed" if name == "random_state" else f"--{name.replace('_', '-')}"

    def option(found: re.Match[str]) -> str:
        name, value = found[1], found[2].strip("'\"")
        if known is not None and name not in known:
            return found[0]
        if value == "True":
            return flag(name)
        if value == "False":
            return f"--no-{name.replace('_', '-')}"
        if value in ("...", "…"):
            return f"{flag(name)} {value}"
        return f"{flag(name)} {'none' if value == 'None' else shlex.quote(value)}"

    def alone(found: re.Match[str]) -> str:
        return flag(found[1]) if known is None or found[1] in known else found[0]

    words = list(sys.argv[1:] if typed is None else typed)
    shown = _PYTHON_ONLY.sub("", sentence)
    known = _OPTIONS.get(words[0]) if words else None
    if known is not None:
        shown = shown.replace("cv=None", 'cv = "none"')
    own = sorted({word for word in words if re.search(rf"(?:{_NAMES})", word)}, key=len, reverse=True)
    kept = re.split("(" + "|".join(map(re.escape, own)) + ")", shown) if own else [shown]
    listing = "settings are" in shown or "options are" in shown
    for place in range(0, len(kept), 2):
        kept[place] = _SETTING.sub(option, kept[place])
        if not listing:
            kept[place] = _ALONE.sub(alone, kept[place])
    return "".join(kept)
