"""The BOS that every prompt begins with, where the settings ask for one (add_bos)."""

from pathlib import Path
from typing import NamedTuple

from transformers import PreTrainedTokenizerFast

from engine.errors import UserError
from engine.text.messages import ChatOptions
from engine.text.templates import ChatTemplate


class Bos(NamedTuple):
    id: int
    text: str


def bos_of(tokenizer: PreTrainedTokenizerFast, folder: Path, options: ChatOptions) -> Bos | None:
    """The tokenizer's BOS, if `options.add_bos` asks for it.

    Raises:
        UserError: the tokenizer has none.
    """
    if not options.add_bos:
        return None
    if tokenizer.bos_token is None or tokenizer.bos_token_id is None:
        raise UserError(
            f"{options.section}add_bos=true: the tokenizer in {folder} has no bos_token "
            f"(tokenizer_config.json); name one there, or set {options.section}add_bos=null"
        )
    return Bos(int(tokenizer.bos_token_id), str(tokenizer.bos_token))


def check_is_new(bos: Bos | None, template: ChatTemplate, options: ChatOptions) -> None:
    """Check that a chat template does not itself begin with the BOS that is to be added.

    Raises:
        UserError: it does.
        PromptError: it does not render a user turn.
    """
    if bos is None:
        return
    if template.render([{"role": "user", "content": "Hello"}], None).startswith(bos.text):
        raise UserError(
            f"{options.section}add_bos=true: {template.source} begins every prompt with {bos.text} "
            f"already; set {options.section}add_bos=null"
        )
