"""Loads a checkpoint's tokenizer, and checks that it belongs to the model.

No code from a checkpoint is ever run. Published folders name Python classes of their own
(`auto_map`), but also hold tokenizer.json, which fully describes the tokenizer. Dream's is the
exception: it holds Qwen's vocab.json and merges.txt instead.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast, Qwen2Tokenizer

from engine.errors import UserError
from engine.model.config import ModelConfig

QWEN_FILES = ("vocab.json", "merges.txt")
QWEN_CLASSES = ("DreamTokenizer", "Qwen2Tokenizer", "Qwen2TokenizerFast")
"""Values of `tokenizer_class` that tokenize as Qwen2 does; DreamTokenizer differs only in name."""


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """
    Raises:
        UserError: the folder does not exist, or holds no tokenizer that can be read without
            running its code.
    """
    if not folder.is_dir():
        raise UserError(f"model folder {folder}: not there; set model.path to a checkpoint folder")
    try:
        tokenizer = _class_for(folder).from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"model folder {folder}: no tokenizer can be loaded from it ({first_line}); it must "
            "hold tokenizer.json and tokenizer_config.json; code in a checkpoint is never run"
        ) from error
    assert isinstance(tokenizer, PreTrainedTokenizerFast), "transformers gave a slow tokenizer"
    return tokenizer


def check_tokens(tokenizer: PreTrainedTokenizerFast, model: ModelConfig, folder: Path) -> None:
    """
    Raises:
        UserError: the mask or EOS id of the model means something else in the tokenizer, or the
            tokenizer has ids that the model has no rows for.
    """
    check_ids(tokenizer, model.vocab_size, folder)
    added = tokenizer.added_tokens_decoder
    masks = [id for id, token in added.items() if "mask" in token.content.lower()]
    if tokenizer.mask_token_id is not None:
        masks = [tokenizer.mask_token_id]
    if masks and model.mask_token_id not in masks:
        named = (f"{id} ({tokenizer.convert_ids_to_tokens(id)})" for id in masks)
        raise _of_another(tokenizer, folder, "mask_token_id", model.mask_token_id, named)
    special = {tokenizer.eos_token_id, *added}
    for name, ids in (
        ("mask_token_id", (model.mask_token_id,)),
        ("eos_token_id", model.eos_token_ids),
    ):
        for id in ids:
            if id not in special and tokenizer.convert_ids_to_tokens(id) is not None:
                raise _of_another(tokenizer, folder, name, id, ["no token of ordinary text"])


def check_ids(tokenizer: PreTrainedTokenizerFast, vocab_size: int, folder: Path) -> None:
    """
    Raises:
        UserError: the tokenizer has ids that a model of `vocab_size` words has no rows for.
    """
    last = max(tokenizer.get_vocab().values())
    if last >= vocab_size:
        raise UserError(
            f"{folder}: the tokenizer has ids up to {last}, the model (config.json) only "
            f"{vocab_size} rows for them: the two are of different checkpoints"
        )


def _of_another(
    tokenizer: PreTrainedTokenizerFast, folder: Path, name: str, id: int, wanted: Iterable[str]
) -> UserError:
    token = tokenizer.convert_ids_to_tokens(id)
    what = "no token" if token is None else repr(token)
    return UserError(
        f"{folder}: {name}={id} is {what} in the checkpoint's tokenizer, and must be "
        f"{' or '.join(wanted)}: correct {name} in config.json (where it states none, the family's "
        "own is taken), or take the tokenizer that the model was trained with"
    )


def _class_for(folder: Path) -> type[Any]:
    if (folder / "tokenizer.json").is_file():
        return PreTrainedTokenizerFast
    file = folder / "tokenizer_config.json"
    named = json.loads(file.read_text()).get("tokenizer_class") if file.is_file() else None
    if named in QWEN_CLASSES and all((folder / name).is_file() for name in QWEN_FILES):
        return Qwen2Tokenizer
    return PreTrainedTokenizerFast
