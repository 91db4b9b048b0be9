"""Noise: Concept → Concept. The same examples, labels and groups, with texts disturbed in a seeded, recorded way.

A noise is written as a name, with its strength behind a colon, several joined by "+" ("typos:0.1+front"):

    letters         "aaa" or "bbb" in front of the text, each with probability ½, without a space (Jin et al. 2024)
    typos:RATE      one typing error in this share of the words of four letters and more (default 0.2): neighbours
                    swapped, a letter dropped, doubled, or replaced by its neighbour on the keyboard; never the
                    first letter, never a digit
    case:MODE       upper (default), lower, swap, or random (each letter)
    words:RATE      the order of this share of the words shuffled (default 1); punctuation and spans stay in place
    front           an irrelevant sentence before the text
    behind          an irrelevant sentence after the text
    paraphrase      the template said in other words; the texts stay

What happens to a text depends on the seed and on that text alone, not on its place among the others: a subset, or
another order, is disturbed alike. Noise knows no labels. Spans move with what they point at.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from numbers import Integral
from typing import Any

from concept_depth.concepts.concept import Concept
from concept_depth.errors import InputError


@dataclass(frozen=True)
class Edit:
    """Put `new` in place of the characters start … end − 1; start = end inserts."""

    start: int
    end: int
    new: str


Span = tuple[int, int]
Edits = list[Edit]
Disturb = Callable[[str, random.Random, float | str, Span | None], Edits]

_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_ASIDES = (
    "The train left on time this morning.",
    "A blue kite hung over the meadow.",
    "Somebody had left the window open.",
    "The bakery smelled of warm bread.",
    "Two chairs stood in the empty hall.",
    "It rained a little before noon.",
    "The cat slept on the old sofa.",
    "Her bicycle needed a new bell.",
    "The kettle was still warm.",
    "Yesterday the lamp was mended.",
)
_PHRASES = (
    (r"decide whether", "judge if"),
    (r"judge whether", "decide if"),
    (r"say whether", "tell me if"),
    (r"find out whether", "work out if"),
    (r"the following statement", "the statement below"),
    (r"this statement", "the claim given here"),
    (r"is this true\?", "does this hold?"),
    (r"is it true that", "does it hold that"),
    (r"answer the question", "reply to the question"),
    (r"true or false", "false or true"),
    (r"yes or no", "no or yes"),
    (r"think about it", "take a moment"),
    (r"statement:", "claim:"),
    (r"question:", "asked:"),
    (r"answer:", "reply:"),
)
_LEAD_INS = ("Consider the following. ", "Please read this. ", "Here is one more. ", "Take a look at this. ")


def perturb(concept: Concept, noise: str, *, random_state: int = 0) -> Concept:
    """Disturb the texts of a concept.

    Args:
        concept: texts with labels.
        noise: which noise, such as "letters", "typos:0.1" or "case:lower+front"; see the module's docstring.
        random_state: seed.

    Returns:
        The same examples with the same labels and groups; the name has the noise behind it, and `details["noise"]`
        says what was done, with the share of prompts that changed (and "before", where the concept was noisy).

    Raises:
        InputError: the concept holds no texts, the noise is unknown or out of range, or it changes nothing.
    """
    given: tuple[Any, Any, Any] = (concept, noise, random_state)
    if not isinstance(given[0], Concept) or not isinstance(given[1], str):
        raise InputError("perturb takes a concept and the name of a noise, as in perturb(concept, 'letters')")
    if isinstance(given[2], bool) or not isinstance(given[2], Integral) or random_state < 0:
        raise InputError(f"random_state={random_state!r} is no seed; give a whole number of 0 or more")
    if not concept.is_text:
        raise InputError(f"concept {concept.name!r} holds arrays; noise needs texts")
    disturbed = concept
    for name, strength in parse(noise):
        if name == "paraphrase":
            template = paraphrase(concept.template, random_state)
            disturbed = disturbed.select(range(len(concept)), template=template)
        else:
            disturbed = _disturbed(disturbed, name, strength, random_state)
    changed = sum(a != b for a, b in zip(concept.prompts(), disturbed.prompts(), strict=True)) / len(concept)
    if changed == 0:
        raise InputError(f"noise {noise!r} changes no text of {concept.name!r}; give a stronger one, or another")
    said: dict[str, Any] = {"noise": noise, "random_state": random_state, "changed": changed}
    before = concept.details.get("noise")
    if before:
        said = {**said, "noise": f"{before['noise']}+{noise}", "before": before}
    return disturbed.select(
        range(len(concept)),
        name=f"{concept.name}+{noise.replace(':', '=')}",
        details={**concept.details, "noise": said},
    )


def parse(noise: str) -> list[tuple[str, float | str]]:
    """The parts of a noise with their strengths.

    Raises:
        InputError: a part is unknown, or its strength out of range.
    """
    parts: list[tuple[str, float | str]] = []
    for part in noise.split("+"):
        name, colon, given = part.strip().partition(":")
        if name not in _DEFAULTS:
            raise InputError(
                f"noise {part!r} is not known; give {', '.join(_DEFAULTS)}, joined by + where several"
            )
        default = _DEFAULTS[name]
        if default is None:
            if colon:
                raise InputError(f"noise {name!r} has no strength, so {part!r} means nothing; write {name}")
            parts.append((name, 0.0))
        elif isinstance(default, str):
            if colon and given not in _MODES:
                raise InputError(f"noise {part!r}: there is no case {given!r}; give {', '.join(_MODES)}")
            parts.append((name, given or default))
        else:
            parts.append((name, _rate(part, given) if colon else default))
    return parts


def _rate(part: str, given: str) -> float:
    try:
        rate = float(given)
    except ValueError:
        rate = -1.0
    if not 0 < rate <= 1:
        raise InputError(f"noise {part!r}: {given!r} is no share; give a number above 0 and up to 1")
    return rate


def _disturbed(concept: Concept, name: str, strength: float | str, seed: int) -> Concept:
    texts, spans = [], []
    for index, text in enumerate(concept.inputs):
        span = None if concept.spans is None else concept.spans[index]
        edits = _NOISES[name](text, _generator(seed, name, text), strength, span)
        if span is not None:
            after = moved(span, edits)
            # A span of one letter may be dropped by a typing error; then the text stays as it is.
            edits, after = (edits, after) if after[0] < after[1] else ([], span)
            spans.append(after)
        texts.append(apply(text, edits))
    kept: dict[str, Any] = {} if concept.spans is None else {"spans": tuple(spans)}
    return concept.select(range(len(concept)), inputs=texts, **kept)


def _generator(seed: int, name: str, text: str) -> random.Random:
    key = f"{seed}\x1f{name}\x1f{text}".encode("utf-8", "surrogatepass")
    return random.Random(int.from_bytes(blake2b(key, digest_size=8).digest(), "little"))


def apply(text: str, edits: Sequence[Edit]) -> str:
    """The text after edits, which stand in order and do not overlap."""
    pieces, at = [], 0
    for edit in edits:
        pieces += [text[at : edit.start], edit.new]
        at = edit.end
    return "".join([*pieces, text[at:]])


def moved(span: Span, edits: Sequence[Edit]) -> Span:
    """Where a span lies after edits: insertions at its borders stay outside, changes inside it stay inside."""
    start, end = span
    shift_start = shift_end = 0
    for edit in edits:
        grown = len(edit.new) - (edit.end - edit.start)
        if edit.end <= start:
            shift_start += grown
        elif edit.start < start:
            # An edit over a border belongs to the span as a whole.
            shift_start += edit.start - start
        if edit.start < end:
            shift_end += grown + max(edit.end - end, 0)
    return start + shift_start, end + shift_end


def _letters(text: str, rng: random.Random, strength: float | str, span: Span | None) -> Edits:
    return [Edit(0, 0, rng.choice(("aaa", "bbb")))]


def _front(text: str, rng: random.Random, strength: float | str, span: Span | None) -> Edits:
    return [Edit(0, 0, f"{rng.choice(_ASIDES)} ")]


def _behind(text: str, rng: random.Random, strength: float | str, span: Span | None) -> Edits:
    return [Edit(len(text), len(text), f" {rng.choice(_ASIDES)}")]


def _typos(text: str, rng: random.Random, strength: float | str, span: Span | None) -> Edits:
    edits = []
    for match in _WORD.finditer(text):
        word = match.group()
        if len(word) < 4 or not word.isalpha() or rng.random() >= float(strength):
            continue
        at = rng.randrange(1, len(word) - 1)
        here, following = word[at], word[at + 1]
        kinds = {
            "swap": Edit(at, at + 2, following + here),
            "drop": Edit(at, at + 1, ""),
            "double": Edit(at, at + 1, here * 2),
            "neighbour": Edit(at, at + 1, _neighbour(here, rng)),
        }
        if here == following:
            del kinds["swap"]  # it would change nothing
        edit = kinds[rng.choice(sorted(kinds))]
        edits.append(Edit(match.start() + edit.start, match.start() + edit.end, edit.new))
    return edits


def _neighbour(letter: str, rng: random.Random) -> str:
    for row in _ROWS:
        at = row.find(letter.lower())
        if at >= 0:
            near = rng.choice([row[i] for i in (at - 1, at + 1) if 0 <= i < len(row)])
            return near.upper() if letter.isupper() else near
    return letter * 2


def _case(text: str, rng: random.Random, strength: float | str, span: Span | None) -> Edits:
    turn = _MODES[str(strength)]
    edits = []
    for at, letter in enumerate(text):
        new = rng.choice((letter.upper(), letter.lower())) if turn is None else turn(letter)
        if new != letter:
            edits.append(Edit(at, at + 1, new))
    return edits


def _words(text: str, rng: random.Random, strength: float | str, span: Span | None) -> Edits:
    words = [match for match in _WORD.finditer(text) if span is None or not _overlap(match.span(), span)]
    chosen = [match for match in words if rng.random() < float(strength)]
    order = chosen[:]
    # A shuffle of few words often leaves them as they are: try again, as long as that can help.
    while len({match.group() for match in chosen}) > 1:
        rng.shuffle(order)
        if [match.group() for match in order] != [match.group() for match in chosen]:
            break
    return [
        Edit(place.start(), place.end(), word.group())
        for place, word in zip(chosen, order, strict=True)
        if place.group() != word.group()
    ]


def _overlap(a: Span, b: Span) -> bool:
    return a[0] < b[1] and b[0] < a[1]


def paraphrase(template: str | None, seed: int) -> str:
    """The template in other words: known phrases replaced, else a neutral lead-in before it."""
    before, _, after = (template or "{text}").partition("{text}")
    parts = [before, after]
    for pattern, phrase in _PHRASES:
        parts = [re.sub(pattern, _saying(phrase), part, flags=re.IGNORECASE) for part in parts]
    if parts == [before, after]:
        parts[0] = _LEAD_INS[seed % len(_LEAD_INS)] + before
    return "{text}".join(parts)


def _saying(phrase: str) -> Callable[[re.Match[str]], str]:
    """Replaces a match by the phrase, with a capital where the match has one."""
    return lambda match: phrase[0].upper() + phrase[1:] if match.group()[0].isupper() else phrase


_MODES: dict[str, Callable[[str], str] | None] = {
    "upper": str.upper,
    "lower": str.lower,
    "swap": str.swapcase,
    "random": None,
}
_NOISES: dict[str, Disturb] = {
    "letters": _letters,
    "typos": _typos,
    "case": _case,
    "words": _words,
    "front": _front,
    "behind": _behind,
}
# The strength where none is given; None where there is none to give.
_DEFAULTS: dict[str, float | str | None] = {
    "letters": None,
    "typos": 0.2,
    "case": "upper",
    "words": 1.0,
    "front": None,
    "behind": None,
    "paraphrase": None,
}
