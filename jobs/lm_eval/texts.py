"""The harness's texts as token ids.

As in the harness's own models, text that spells a special token is that token: the prompts of its
chat templates come as such text.
"""

import logging
from typing import Any

from engine.errors import UserError
from engine.likelihood import Pair
from engine.model.config import ModelConfig

log = logging.getLogger("lm_eval")


class Texts:
    """Encodes for one checkpoint."""

    def __init__(self, tokenizer: Any, model: ModelConfig, truncate: bool) -> None:
        """`truncate`: see ModelArguments."""
        self._tokenizer = tokenizer
        self._model = model
        self._truncate = truncate

    def prompt(self, text: str, max_new_tokens: int) -> list[int]:
        return self._fitting(self.encoded(text) or self._prefix(), max_new_tokens)

    def pair(self, context: str, continuation: str) -> Pair:
        """Both as token ids. Spaces at the end of the context belong to the continuation; the two
        are tokenized together, then cut."""
        kept = context.rstrip()
        if not kept:
            return Pair(self._prefix(), self.encoded(context + continuation, bos=False))
        whole, num_before = self.encoded(context + continuation), len(self.encoded(kept))
        prompt_ids, answer_ids = whole[:num_before], whole[num_before:]
        return Pair(self._fitting(prompt_ids, len(answer_ids)), answer_ids)

    def windows(self, text: str) -> list[Pair]:
        tokens = self.encoded(text, bos=False)
        prefix = self._prefix()
        room = self._model.max_positions - len(prefix)
        return [
            Pair(prefix if start == 0 else tokens[start - 1 : start] if prefix else [], its)
            for start in range(0, len(tokens), room)
            if (its := tokens[start : start + room])
        ]

    def _prefix(self) -> list[int]:
        """What stands before a text without context: BOS, if the tokenizer has one; else EOS where
        the model predicts a token from the one before; else nothing."""
        model = self._model
        if (bos := self._tokenizer.bos_token_id) is not None:
            return [int(bos)]
        return [model.eos_token_ids[0]] if model.is_shifted else []

    def encoded(self, text: str, bos: bool = True) -> list[int]:
        """The tokenizer puts BOS where it puts one, unless the text begins with it."""
        bos_text = self._tokenizer.bos_token
        begins = bos_text is not None and text.startswith(bos_text)
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=bos and not begins)
        return ids

    def _fitting(self, prompt_ids: list[int], num_answer: int) -> list[int]:
        """The prompt, or its end if only that fits into the model's context.

        Raises:
            UserError: it does not fit, and truncate=false.
        """
        room = self._model.max_positions - num_answer
        if len(prompt_ids) <= room:
            return prompt_ids
        if not self._truncate or room < 1:
            raise UserError(
                f"a prompt of {len(prompt_ids)} tokens with {num_answer} to generate or to score "
                f"exceeds the model's context of {self._model.max_positions}: give truncate=true "
                "in --model_args to leave out its beginning, fewer --num_fewshot, or a lower "
                "max_gen_toks"
            )
        log.warning(
            "dllm: a prompt of %d tokens loses the first %d",
            len(prompt_ids),
            len(prompt_ids) - room,
        )
        return prompt_ids[-room:]
