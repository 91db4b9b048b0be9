"""Messages speak Python's words (`group=...`, `random_state`); whoever typed a command reads its options."""

from __future__ import annotations

import re

from concept_depth.measure import SETTING_NAMES

# Hints at what only Python can be given.
_PYTHON_ONLY = re.compile(
    r",?( or)? (splits of your own \(cv=\[.*?\]\)|a scikit-learn splitter, \(train, test\) pairs,)"
)
_NAMES = "|".join(
    sorted({*SETTING_NAMES, "random_state"} - {"prefix_sharing", "standardize"}, key=len, reverse=True)
)
_SETTING = re.compile(rf"(?<![\w./:-])({_NAMES})=(\"[^\"]*\"|'[^']*'|\[[^\]]*\]|[^\s,;:)]*[^\s,;:.)]|…|\.\.\.)")
_ALONE = re.compile(r"(?<=as )(data_dir)(?!\w)|(?<![\w.=-])(random_state)(?!\w)")


def as_typed(sentence: str) -> str:
    """A message with the options of the command line in place of the arguments of Python."""

    def flag(name: str) -> str:
        return "--seed" if name == "random_state" else f"--{name.replace('_', '-')}"

    def option(found: re.Match[str]) -> str:
        value = found[2].strip("'\"")
        if value in ("True", "False"):
            return f"{flag(found[1])}" if value == "True" else f"no {flag(found[1])}"
        return f"{flag(found[1])} {'none' if value == 'None' else value}"

    shown = _SETTING.sub(option, _PYTHON_ONLY.sub("", sentence))
    return _ALONE.sub(lambda found: flag(found[0]), shown)
