"""How texts become tokens: template, chat markup, truncation inside the {text} slot, and the rows to read.

The caller's tokenizer is asked, never changed: padding and truncation are done here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from concept_depth.errors import InputError
from concept_depth.subjects.subject import Encoded

Span = tuple[int, int]


@dataclass(frozen=True)
class _Tokens:
    """One prompt as tokens; `special` marks what the tokenizer put around it, `offsets` are in characters."""

    ids: list[int]
    special: list[bool]
    offsets: list[Span] | None


@dataclass(frozen=True, eq=False)
class TokenReader:
    """Reads texts with a tokenizer of transformers.

    Args:
        tokenizer: any whose call gives `input_ids`; a fast one also gives the characters of each token.
        position: "last", "first", "mean", "span", or an integer. Special tokens that the tokenizer puts around a
            text (begin, end, separator) are not counted: `last` is the text's last token.
        max_length: most tokens a prompt may have; longer ones are cut inside the {text} slot.
        chat_template: put each prompt into the model's chat markup, as a user's turn that the model is to answer.
    """

    tokenizer: Any
    position: str | int
    max_length: int | None
    chat_template: bool

    def describe(self) -> dict[str, Any]:
        """What of the reading decides the numbers."""
        template = getattr(self.tokenizer, "chat_template", None) if self.chat_template else None
        return {
            "position": self.position,
            "max_length": self.max_length,
            "chat_template": template if isinstance(template, str) else self.chat_template,
            "tokenizer": type(self.tokenizer).__name__,
        }

    def encode(
        self, texts: Sequence[str], *, before: str = "", after: str = "", spans: Sequence[Span] | None = None
    ) -> list[Encoded]:
        """Each text between `before` and `after`, as tokens with the rows to read.

        Raises:
            InputError: no spans for `position="span"`, no chat template, a prompt that cannot be cut to
                `max_length`, an integer position beyond the prompt.
        """
        if self.position == "span" and spans is None:
            raise InputError("position 'span' needs a span for each text; give a concept with spans")
        if self.chat_template and not getattr(self.tokenizer, "chat_template", None):
            raise InputError("this model's tokenizer has no chat template; leave chat_template off")
        kept = list(texts)
        moved = [0] * len(kept)
        tokens = self._tokenize([self._prompt(text, before, after) for text in kept])
        full = [len(item.ids) for item in tokens]
        if self.max_length is not None:
            too_long = [i for i, n in enumerate(full) if n > self.max_length]
            for i, start, end in self._cut(too_long, kept, before, after, spans):
                kept[i], moved[i] = kept[i][start:end], start
            for i, item in zip(
                too_long, self._tokenize([self._prompt(kept[i], before, after) for i in too_long]), strict=True
            ):
                tokens[i] = item
        encoded = []
        for i, item in enumerate(tokens):
            span = None
            if spans is not None and self.position == "span":
                span = self._span_in_prompt(
                    kept[i], before, after, (spans[i][0] - moved[i], spans[i][1] - moved[i])
                )
            rows = self._rows(item, span, i)
            encoded.append(Encoded(tuple(item.ids), rows, truncated=full[i] - len(item.ids)))
        return encoded

    # -- prompts -------------------------------------------------------------------------------------------------

    def _prompt(self, text: str, before: str, after: str) -> str:
        prompt = f"{before}{text}{after}"
        if not self.chat_template:
            return prompt
        messages = [{"role": "user", "content": prompt}]
        rendered: str = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return rendered

    def _span_in_prompt(self, text: str, before: str, after: str, span: Span) -> Span:
        prompt = self._prompt(text, before, after)
        inner = f"{before}{text}{after}"
        # Chat templates may strip what they are given.
        shift = prompt.find(inner)
        if shift < 0:
            stripped = inner.strip()
            shift = prompt.find(stripped) - (len(inner) - len(inner.lstrip()))
            if stripped not in prompt:
                raise InputError(
                    "the chat template changes the text, so a span in it cannot be found; leave it off"
                )
        return shift + len(before) + span[0], shift + len(before) + span[1]

    # -- tokens --------------------------------------------------------------------------------------------------

    def _tokenize(self, prompts: Sequence[str]) -> list[_Tokens]:
        if not prompts:
            return []
        fast = bool(getattr(self.tokenizer, "is_fast", False))
        with _untouched(self.tokenizer):
            # Chat markup holds its own special tokens.
            batch = self.tokenizer(
                list(prompts),
                add_special_tokens=not self.chat_template,
                padding=False,
                truncation=False,
                return_attention_mask=False,
                return_special_tokens_mask=True,
                return_offsets_mapping=fast,
                verbose=False,
            )
        count = len(prompts)
        offsets = batch["offset_mapping"] if fast else [None] * count
        specials = set(getattr(self.tokenizer, "all_special_ids", []))
        masks = batch.get("special_tokens_mask") or [[i in specials for i in ids] for ids in batch["input_ids"]]
        tokens = []
        for ids, mask, places in zip(batch["input_ids"], masks, offsets, strict=True):
            # Some tokenizers mark every special id; only those around the text are left out of positions.
            inner = [i for i, flag in enumerate(mask) if not flag]
            first, last = (inner[0], inner[-1]) if inner else (0, len(ids) - 1)
            special = [not first <= i <= last for i in range(len(ids))]
            if self.chat_template:
                special = [False] * len(ids)
            tokens.append(_Tokens(list(ids), special, None if places is None else [tuple(p) for p in places]))
        return tokens

    def _cut(
        self, which: Sequence[int], texts: Sequence[str], before: str, after: str, spans: Sequence[Span] | None
    ) -> Iterator[tuple[int, int, int]]:
        """For each too long text the (start, end) of the longest part that fits, found by halving, all at once.

        The end is cut, or the beginning where the end holds the token that is read.
        """
        assert self.max_length is not None
        low = dict.fromkeys(which, 0)
        high = {i: len(texts[i]) for i in which}
        # Find the largest number of kept characters for which the prompt fits.
        while open_ := [i for i in which if high[i] - low[i] > 1]:
            middle = {i: (low[i] + high[i]) // 2 for i in open_}
            pieces = [texts[i][slice(*self._part(i, middle[i], texts, after, spans))] for i in open_]
            counts = [len(item.ids) for item in self._tokenize([self._prompt(p, before, after) for p in pieces])]
            for i, count in zip(open_, counts, strict=True):
                if count <= self.max_length:
                    low[i] = middle[i]
                else:
                    high[i] = middle[i]
        for i in which:
            if low[i] == 0:
                raise InputError(
                    f"max_length {self.max_length} leaves no room for the text of example {i + 1} beside its "
                    "template; give a larger max_length"
                )
            start, end = self._part(i, low[i], texts, after, spans)
            if spans is not None and self.position == "span" and not start <= spans[i][0] < spans[i][1] <= end:
                raise InputError(
                    f"max_length {self.max_length} is too short for the span of example {i + 1}; give a larger one"
                )
            yield i, start, end

    def _part(
        self, i: int, length: int, texts: Sequence[str], after: str, spans: Sequence[Span] | None
    ) -> tuple[int, int]:
        n = len(texts[i])
        if self.position == "span" and spans is not None:
            # Around the span where its end does not fit from the start of the text.
            start = max(0, min(spans[i][1] - length, n - length))
            return start, start + length
        at_end = (self.position == "last" and not after) or (isinstance(self.position, int) and self.position < 0)
        return (n - length, n) if at_end else (0, length)

    # -- rows ----------------------------------------------------------------------------------------------------

    def _rows(self, tokens: _Tokens, span: Span | None, index: int) -> tuple[int, ...]:
        inner = [i for i, special in enumerate(tokens.special) if not special]
        if not inner:
            raise InputError(f"example {index + 1} has no token of its own; remove it")
        if span is not None:
            return self._span_rows(tokens, span, index)
        if self.position == "mean":
            specials = set(getattr(self.tokenizer, "all_special_ids", []))
            return tuple(i for i in inner if tokens.ids[i] not in specials) or tuple(inner)
        number = {"last": -1, "first": 0}.get(str(self.position), self.position)
        assert isinstance(number, int)
        if not -len(inner) <= number < len(inner):
            raise InputError(
                f"position {number} lies outside example {index + 1}, which has {len(inner)} tokens; "
                f"give {-len(inner)} to {len(inner) - 1}, or 'last', 'first' or 'mean'"
            )
        return (inner[number],)

    def _span_rows(self, tokens: _Tokens, span: Span, index: int) -> tuple[int, ...]:
        if tokens.offsets is None:
            raise InputError(
                "position 'span' needs a fast tokenizer, which knows the characters of its tokens; "
                "use another position or a tokenizer of the tokenizers library"
            )
        rows = tuple(
            i
            for i, (start, end) in enumerate(tokens.offsets)
            if not tokens.special[i] and start < span[1] and end > span[0]
        )
        if not rows:
            raise InputError(f"no token lies in the span {span} of example {index + 1}; check its characters")
        return rows


@contextmanager
def _untouched(tokenizer: Any) -> Iterator[None]:
    """Restore the padding and truncation that a call of a fast tokenizer switches off."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        yield
        return
    padding, truncation = backend.padding, backend.truncation
    try:
        yield
    finally:
        if padding is not None:
            backend.enable_padding(**padding)
        if truncation is not None:
            backend.enable_truncation(**truncation)
