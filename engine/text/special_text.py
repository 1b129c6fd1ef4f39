"""Keeps text that spells a special token as text.

A tokenizer turns the text of an added token ("<|eot_id|>", "<|mdm_mask|>", "<tool_call>") into that
token wherever it occurs, so a prompt could end its own turn or place masks. Switching this off
(`split_special_tokens`) does not help: it applies only to tokens marked special, and also to the
special tokens of the chat template itself. Instead:

    content   --hide-->    texts of added tokens are replaced by placeholders
    rendered  --encode-->  what still spells an added token comes from the template: it is replaced
                           by an alias; the placeholders become their texts again; a twin tokenizer,
                           in which every added token is spelt as its alias, encodes the whole

The twin has the same ids, normalizer and flags, so the text around the hidden parts is encoded as
usual. Added tokens of white space only (runs of spaces in some tokenizers) are left alone.
"""

import json
import re
import secrets
from functools import cached_property
from typing import Any

from tokenizers import Tokenizer


class SpecialText:
    """The added tokens of one tokenizer, and a way to encode text that spells some of them."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        tokens = [t for t in added_tokens(tokenizer) if t["content"].strip()]
        self._ids = {t["content"]: t["id"] for t in tokens}
        self._pattern = _pattern(tokens)
        has_normalized = any(t["normalized"] for t in tokens)
        self._normalizer = tokenizer.normalizer if has_normalized else None
        # Random for each process, so that no prompt can contain a placeholder or alias. It does not
        # affect the ids.
        self._nonce = secrets.token_hex(8)
        self._hidden = re.compile(f"<{self._nonce}h([0-9]+)>")
        self._text_of = {token_id: content for content, token_id in self._ids.items()}

    def found_in(self, text: str) -> bool:
        """Whether the tokenizer may find an added token in this text; never False if it does."""
        if self._pattern.search(text):
            return True
        if self._normalizer is None:
            return False
        return self._pattern.search(self._normalizer.normalize_str(text)) is not None

    def hide(self, content: str) -> str:
        return self._pattern.sub(lambda m: f"<{self._nonce}h{self._ids[m[0]]}>", content)

    def encode(self, rendered: str, add_special_tokens: bool) -> list[int]:
        """Token ids of a rendered text whose contents went through `hide`."""
        aliased = self._pattern.sub(lambda m: self._alias(self._ids[m[0]]), rendered)
        ids: list[int] = self._twin.encode(
            self.shown(aliased), add_special_tokens=add_special_tokens
        ).ids
        return ids

    def shown(self, text: str) -> str:
        """A text with what `hide` hid in it."""
        return self._hidden.sub(lambda m: self._text_of[int(m[1])], text)

    def _alias(self, token_id: int) -> str:
        return f"<{self._nonce}a{token_id}>"

    @cached_property
    def _twin(self) -> Tokenizer:
        """Built for the first prompt that needs it: a large vocabulary takes about a second."""
        spec = json.loads(self._tokenizer.to_str())
        alias = {content: self._alias(token_id) for content, token_id in self._ids.items()}
        for token in spec["added_tokens"]:
            token["content"] = alias.get(token["content"], token["content"])
        _rename_in_model(spec["model"], alias)
        twin = Tokenizer.from_str(json.dumps(spec))
        for token in spec["added_tokens"]:
            received = twin.token_to_id(token["content"])
            assert received == token["id"], f"twin gives {received} for added token {token}"
        return twin


def added_tokens(tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """Content, id and flags of every added token."""
    return [
        {
            "content": token.content,
            "id": token_id,
            "normalized": token.normalized,
            "single_word": token.single_word,
        }
        for token_id, token in tokenizer.get_added_tokens_decoder().items()
    ]


def _pattern(tokens: list[dict[str, Any]]) -> re.Pattern[str]:
    """Matches leftmost, then longest, as the tokenizer does."""
    if not tokens:
        return re.compile(r"(?!)")
    alternatives = []
    for token in sorted(tokens, key=lambda t: -len(t["content"])):
        text = re.escape(token["content"])
        alternatives.append(rf"(?<!\w){text}(?!\w)" if token["single_word"] else text)
    return re.compile("|".join(alternatives))


def _rename_in_model(model: dict[str, Any], alias: dict[str, str]) -> None:
    """Rename tokens in the model's own vocabulary too, so that merges cannot produce them."""
    vocab = model["vocab"]
    if isinstance(vocab, dict):
        model["vocab"] = {alias.get(token, token): token_id for token, token_id in vocab.items()}
    else:  # Unigram: [token, score] by id
        model["vocab"] = [[alias.get(token, token), score] for token, score in vocab]
    if model.get("unk_token"):
        model["unk_token"] = alias.get(model["unk_token"], model["unk_token"])
    if "merges" in model:
        model["merges"] = [m for m in model["merges"] if not _touches(m, alias)]


def _touches(merge: str | list[str], tokens: dict[str, str]) -> bool:
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left in tokens or right in tokens or left + right in tokens
