"""How does text that spells a special token stay text?

A tokenizer turns the text of an added token ("<|eot_id|>", "<|mdm_mask|>", "<tool_call>") into that
token wherever it stands, so a row could end its own turn or place masks. Switching the matching off
(`split_special_tokens`) does not help: it holds for tokens marked special only, and for the chat
template's own tokens too. Instead:

    content   --hide-->    token texts become stand-ins
    rendered  --encode-->  what still spells a token is the template's own: it becomes an alias;
                           the stand-ins become their texts again; a twin tokenizer, in which
                           every added token is spelt as its alias, encodes the whole

The twin has the same ids, normalizer and flags, so that all around the hidden text is as ever.
Added tokens that are white space only (runs of spaces in some tokenizers) are text and stay so.
"""

import json
import re
import secrets
from functools import cached_property
from typing import Any

from tokenizers import Tokenizer


class SpecialText:
    """Knows the added tokens of one tokenizer, and encodes text in which some are meant as text."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        tokens = [t for t in added_tokens(tokenizer) if t["content"].strip()]
        self._ids = {t["content"]: t["id"] for t in tokens}
        self._pattern = _pattern(tokens)
        has_normalized = any(t["normalized"] for t in tokens)
        self._normalizer = tokenizer.normalizer if has_normalized else None
        # Drawn anew each time, so no row can hold a stand-in or an alias; it never shows in ids.
        self._nonce = secrets.token_hex(8)
        self._hidden = re.compile(f"<{self._nonce}h([0-9]+)>")
        self._text_of = {token_id: content for content, token_id in self._ids.items()}

    def found_in(self, text: str) -> bool:
        """May the tokenizer see an added token in this text? Never False where it does."""
        if self._pattern.search(text):
            return True
        if self._normalizer is None:
            return False
        return self._pattern.search(self._normalizer.normalize_str(text)) is not None

    def hide(self, content: str) -> str:
        return self._pattern.sub(lambda m: f"<{self._nonce}h{self._ids[m[0]]}>", content)

    def encode(self, rendered: str, add_special_tokens: bool) -> list[int]:
        """Token ids of a text whose contents went through `hide`."""
        aliased = self._pattern.sub(lambda m: self._alias(self._ids[m[0]]), rendered)
        text = self._hidden.sub(lambda m: self._text_of[int(m[1])], aliased)
        ids: list[int] = self._twin.encode(text, add_special_tokens=add_special_tokens).ids
        return ids

    def _alias(self, token_id: int) -> str:
        return f"<{self._nonce}a{token_id}>"

    @cached_property
    def _twin(self) -> Tokenizer:
        """Built at the first row that needs it: it takes about a second for a large vocabulary."""
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
    """content, id and flags of every added token."""
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
    """Leftmost, then longest, as the tokenizer matches."""
    if not tokens:
        return re.compile(r"(?!)")
    alternatives = []
    for token in sorted(tokens, key=lambda t: -len(t["content"])):
        text = re.escape(token["content"])
        alternatives.append(rf"(?<!\w){text}(?!\w)" if token["single_word"] else text)
    return re.compile("|".join(alternatives))


def _rename_in_model(model: dict[str, Any], alias: dict[str, str]) -> None:
    """Rename tokens in the model's own vocabulary, so that it cannot arrive at them either."""
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
