"""Small tokenizers of the three shapes that checkpoints have, trained and saved to a folder."""

from pathlib import Path
from typing import Any

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from pipeline.config.job import PromptConfig
from pipeline.prompt.prompter import Prompter

CORPUS = [
    "def add(x, y):\n    return x + y\n",
    "hello world, this is some text | with <brackets> and _underscores_",
    "system user assistant mask eot_id startoftext tool",
] * 8
SPECIAL = ["<|startoftext|>", "<|eot_id|>", "<|mdm_mask|>", "<unk>"]
TEMPLATE = (
    "{% for m in messages %}{% if loop.first %}<|startoftext|>{% endif %}"
    "{{ m.role }}\n\n{{ m.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}assistant\n\n{% endif %}"
)


def byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False),
    )
    return tokenizer


def sentencepiece_unigram() -> Tokenizer:
    """Special tokens are pieces of the model too, and only the first piece gets the front space."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=120, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def llama_bpe() -> Tokenizer:
    """Llama 2's shape: the front space comes from the normalizer, and merges lead to `<tool>`."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse()])
    trainer = trainers.BpeTrainer(vocab_size=150, special_tokens=["<unk>"], show_progress=False)
    words = [*" ".join(CORPUS).split(), *(f"{c}<tool>" for c in "abcdefgh" * 20)]
    tokenizer.train_from_iterator(words, trainer)
    assert tokenizer.token_to_id("<tool>") is not None
    return tokenizer


KINDS = {"byte_level": byte_level, "unigram": sentencepiece_unigram, "llama": llama_bpe}


def save_kinds(root: Path) -> dict[str, Path]:
    """A folder of each kind."""
    return {name: save(build(), root / name) for name, build in KINDS.items()}


def save(tokenizer: Tokenizer, folder: Path, template: str | None = TEMPLATE) -> Path:
    for text in SPECIAL:
        tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False)])
    tokenizer.add_tokens([AddedToken("<tool>", special=False, normalized=True, lstrip=True)])
    bos = tokenizer.token_to_id("<|startoftext|>")
    tokenizer.post_processor = TemplateProcessing(
        single="<|startoftext|> $A", special_tokens=[("<|startoftext|>", bos)]
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")
    fast.chat_template = template
    fast.save_pretrained(folder)
    return folder


def prompter(folder: Path, limit: int = 1000, **config: Any) -> Prompter:
    return Prompter(folder, PromptConfig(**config), limit)
