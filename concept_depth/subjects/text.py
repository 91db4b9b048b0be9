"""How texts become tokens: template, chat markup, truncation inside the {text} slot, and the rows to read.

The caller's tokenizer is asked, never changed: padding and truncation are done here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from concept_depth.errors import InputError
from concept_depth.subjects.reasons import told_by
from concept_depth.subjects.subject import Encoded

Span = tuple[int, int]
# What no chat template holds, and none changes.
MARK = "concept-depth-marks-this-place"
CHANGED = "the chat template changes the text, so a span in it cannot be found; leave it off"


@dataclass(frozen=True)
class _Tokens:
    """One prompt as tokens; `special` marks what the tokenizer put around it, `offsets` in characters are for spans."""

    ids: list[int]
    special: list[bool]
    offsets: list[Span] | None


@dataclass(frozen=True)
class _Slot:
    """What stands in the {text} slot of each prompt, and around it; `spans` where these are what is read.

    `parts`: the chat template reads what a user says as a list of parts.
    """

    texts: Sequence[str]
    before: str
    after: str
    spans: Sequence[Span] | None
    parts: bool


@dataclass(frozen=True)
class _Piece:
    """The part of a text that is kept, from its character `start` on, and the tokens of its prompt."""

    start: int
    text: str
    tokens: _Tokens


@dataclass(frozen=True, eq=False)
class TokenReader:
    """Reads texts with a tokenizer of transformers.

    Args:
        tokenizer: any whose call gives `input_ids`; a fast one also gives the characters of each token.
        position: "last", "first", "mean", "span", or an integer. Special tokens that the tokenizer puts around a
            text (begin, end, separator) are not counted: `last` is the text's last token.
        max_length: most tokens a prompt may have; longer ones are cut inside the {text} slot.
        chat_template: put each prompt into the model's chat markup, as a user's turn that the model is to answer.
        vocabulary: how many ids the network knows; None where that cannot be told.
    """

    tokenizer: Any
    position: str | int
    max_length: int | None
    chat_template: bool
    vocabulary: int | None = None

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
            InputError: no spans for `position="span"`, no chat template or one that leaves the text out, a prompt
                that cannot be cut to `max_length`, an integer position beyond the prompt, a token that the network
                does not know.
        """
        if self.position == "span" and spans is None:
            raise InputError("position 'span' needs a span for each text; give a concept with spans")
        if self.chat_template and not getattr(self.tokenizer, "chat_template", None):
            raise InputError("this model's tokenizer has no chat template; leave chat_template off")
        parts = self.chat_template and self._reads_parts()
        slot = _Slot(texts, before, after, spans if self.position == "span" else None, parts)
        whole = self._tokenize([self._prompt(text, slot) for text in texts])
        kept = self._shortened(whole, slot)
        opening = self._opening(slot) if slot.spans is not None and self.chat_template else 0
        encoded = []
        for i, item in enumerate(whole):
            piece = kept.get(i, _Piece(0, texts[i], item))
            if self.vocabulary is not None and max(piece.tokens.ids, default=0) >= self.vocabulary:
                raise InputError(
                    f"example {i + 1} has the token {max(piece.tokens.ids)}, but the model knows {self.vocabulary} "
                    "tokens only; give the tokenizer that belongs to the model"
                )
            if slot.spans is not None:
                span = (slot.spans[i][0] - piece.start, slot.spans[i][1] - piece.start)
                rows = self._span_rows(piece.tokens, self._span_in_prompt(piece.text, slot, span, opening), i)
            elif i in kept and isinstance(self.position, int):
                rows = (self._kept_row(item, piece.tokens, i),)
            else:
                rows = self._rows(piece.tokens, i)
            encoded.append(Encoded(tuple(piece.tokens.ids), rows, truncated=len(item.ids) - len(piece.tokens.ids)))
        return encoded

    # -- prompts -------------------------------------------------------------------------------------------------

    def _prompt(self, text: str, slot: _Slot) -> str:
        prompt = f"{slot.before}{text}{slot.after}"
        return self._rendered(prompt, slot.parts) if self.chat_template else prompt

    def _reads_parts(self) -> bool:
        """Whether the chat template reads a list of parts, as those of models that see: text may be left out else."""
        failed = None
        for parts in (False, True):
            try:
                # Markup in capitals is unusual, not wrong.
                if MARK in self._rendered(MARK, parts).lower():
                    return parts
            except InputError as error:
                failed = failed or error
        raise failed or InputError(
            "the tokenizer's chat template leaves out what a user says; leave chat_template off, or set "
            "tokenizer.chat_template to one that holds it"
        )

    def _rendered(self, prompt: str, parts: bool) -> str:
        """A user's turn in chat markup."""
        messages = [{"role": "user", "content": [{"type": "text", "text": prompt}] if parts else prompt}]
        try:
            rendered: str = self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
        except Exception as error:  # templates are programs: they raise what they like
            raise InputError(
                f"the tokenizer's chat template cannot render a user's turn ({told_by(error)}); leave "
                "chat_template off, or set tokenizer.chat_template to one that can"
            ) from error
        return rendered

    def _opening(self, slot: _Slot) -> int:
        """How many characters of chat markup stand in front of what the user says.

        Looking for the text itself would not do, since the markup may hold the same words.
        """
        opening = self._rendered(MARK, slot.parts).find(MARK)
        if opening < 0:
            raise InputError(CHANGED)
        return opening

    def _span_in_prompt(self, text: str, slot: _Slot, span: Span, opening: int) -> Span:
        prompt = self._prompt(text, slot)
        inner = f"{slot.before}{text}{slot.after}"
        shift = opening
        if not prompt.startswith(inner, opening):
            # Chat templates may strip what they are given.
            shift -= len(inner) - len(inner.lstrip())
            if not prompt.startswith(inner.strip(), opening):
                raise InputError(CHANGED)
        return shift + len(slot.before) + span[0], shift + len(slot.before) + span[1]

    # -- tokens --------------------------------------------------------------------------------------------------

    def _tokenize(self, prompts: Sequence[str]) -> list[_Tokens]:
        if not prompts:
            return []
        # Only spans need the characters of each token, which take longer to hand over than the tokens.
        located = self.position == "span" and bool(getattr(self.tokenizer, "is_fast", False))
        with untouched(self.tokenizer):
            # Chat markup holds its own special tokens.
            batch = self.tokenizer(
                list(prompts),
                add_special_tokens=not self.chat_template,
                padding=False,
                truncation=False,
                return_attention_mask=False,
                return_special_tokens_mask=True,
                return_offsets_mapping=located,
                verbose=False,
            )
        count = len(prompts)
        offsets = batch["offset_mapping"] if located else [None] * count
        specials = set(getattr(self.tokenizer, "all_special_ids", []))
        masks = batch.get("special_tokens_mask") or [[i in specials for i in ids] for ids in batch["input_ids"]]
        tokens = []
        for prompt, ids, mask, places in zip(prompts, batch["input_ids"], masks, offsets, strict=True):
            if len(mask) != len(ids) or all(mask):
                # A Python tokenizer can add tokens of which its own mask knows nothing; and where all are special,
                # the text may be such tokens, or none.
                mask = self._added(prompt, ids)
            # Some tokenizers mark every special id; only those around the text are left out of positions.
            inner = [i for i, flag in enumerate(mask) if not flag]
            first, last = (inner[0], inner[-1]) if inner else (len(ids), -1)
            special = [not first <= i <= last for i in range(len(ids))]
            if self.chat_template:
                special = [False] * len(ids)
            tokens.append(_Tokens(list(ids), special, places))
        return tokens

    def _added(self, prompt: str, ids: Sequence[int]) -> list[bool]:
        """Which tokens of a prompt a tokenizer put around it, found by tokenizing it without them."""
        with untouched(self.tokenizer):
            own = list(self.tokenizer(prompt, add_special_tokens=False)["input_ids"])
        starts = [i for i in range(len(ids) - len(own) + 1) if list(ids[i : i + len(own)]) == own]
        if starts:
            return [not starts[0] <= i < starts[0] + len(own) for i in range(len(ids))]
        specials = set(getattr(self.tokenizer, "all_special_ids", []))
        return [i in specials for i in ids]

    def _shortened(self, whole: Sequence[_Tokens], slot: _Slot) -> dict[int, _Piece]:
        """For each prompt that is too long, what is kept of its text.

        The end is cut, or the beginning where the end holds the token that is read.
        """
        too_long = [i for i, item in enumerate(whole) if self.max_length and len(item.ids) > self.max_length]
        at_end = (self.position == "last" and not slot.after) or (
            isinstance(self.position, int) and self.position < 0
        )
        kept = self._cut(too_long, slot, at_end=at_end)
        if isinstance(self.position, int):
            # A token far from the end that it is counted from is kept by cutting on its other side.
            lost = [i for i in too_long if self._same_token(whole[i], kept[i].tokens, i) is None]
            kept |= self._cut(lost, slot, at_end=not at_end)
        return kept

    def _cut(self, which: Sequence[int], slot: _Slot, *, at_end: bool) -> dict[int, _Piece]:
        """For each too long text the longest part that fits, found by halving, all at once."""
        assert self.max_length is not None or not which
        low = dict.fromkeys(which, 0)
        high = {i: len(slot.texts[i]) for i in which}
        # Find the largest number of kept characters for which the prompt fits.
        while open_ := [i for i in which if high[i] - low[i] > 1]:
            middle = {i: (low[i] + high[i]) // 2 for i in open_}
            pieces = self._pieces(middle, slot, at_end)
            for i in open_:
                if len(pieces[i].tokens.ids) <= (self.max_length or 0):
                    low[i] = middle[i]
                else:
                    high[i] = middle[i]
        for i in which:
            if low[i] == 0:
                raise InputError(
                    f"max_length {self.max_length} leaves no room for the text of example {i + 1} beside its "
                    "template; give a larger max_length"
                )
        kept = self._pieces(low, slot, at_end)
        for i, piece in kept.items():
            end = piece.start + len(piece.text)
            if slot.spans is not None and not piece.start <= slot.spans[i][0] < slot.spans[i][1] <= end:
                raise InputError(
                    f"max_length {self.max_length} is too short for the span of example {i + 1}; give a larger one"
                )
        return kept

    def _pieces(self, lengths: Mapping[int, int], slot: _Slot, at_end: bool) -> dict[int, _Piece]:
        """Parts of the given lengths, in characters, with the tokens of their prompts."""
        starts = {}
        for i, length in lengths.items():
            n = len(slot.texts[i])
            starts[i] = n - length if at_end else 0
            if slot.spans is not None:
                # Around the span where its end does not fit from the start of the text.
                starts[i] = max(0, min(slot.spans[i][1] - length, n - length))
        texts = [slot.texts[i][start : start + lengths[i]] for i, start in starts.items()]
        tokens = self._tokenize([self._prompt(text, slot) for text in texts])
        return {i: _Piece(starts[i], text, item) for i, text, item in zip(starts, texts, tokens, strict=True)}

    # -- rows ----------------------------------------------------------------------------------------------------

    def _rows(self, tokens: _Tokens, index: int) -> tuple[int, ...]:
        inner = [i for i, special in enumerate(tokens.special) if not special]
        if not inner:
            raise InputError(f"example {index + 1} has no token of its own; remove it")
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

    def _same_token(self, whole: _Tokens, cut: _Tokens, index: int) -> int | None:
        """Where the token that an integer position means in the whole prompt stands in the cut one, if it does."""
        (row,) = self._rows(whole, index)
        from_end = row - len(whole.ids)
        if cut.ids[: row + 1] == whole.ids[: row + 1]:
            return row
        return len(cut.ids) + from_end if cut.ids[from_end:] == whole.ids[from_end:] else None

    def _kept_row(self, whole: _Tokens, cut: _Tokens, index: int) -> int:
        row = self._same_token(whole, cut, index)
        if row is None:
            raise InputError(
                f"max_length {self.max_length} cuts away the token at position {self.position} of example "
                f"{index + 1}; give a larger max_length, or a position nearer to an end"
            )
        return row

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
def untouched(tokenizer: Any) -> Iterator[None]:
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
