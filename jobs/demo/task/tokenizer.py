"""Trains the demo models' tokenizer: a small byte-level BPE, in which any text round-trips.

Numbers up to 99 and the words of the tasks are single tokens, with the same id in the docstring and
in the code, so that copying a constant is copying one token.

`python -m jobs.demo.task.tokenizer` writes it to jobs/demo/model/.
"""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from random import Random

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from jobs.demo.task.generator import PIECES, draw_tasks
from jobs.demo.task.operations import WORDS

MODEL_FOLDER = Path(__file__).parents[1] / "model"
VOCAB_SIZE = 1024
BOS, EOS, MASK = "<|startoftext|>", "<|endoftext|>", "<|mdm_mask|>"
HEADER_START, HEADER_END, TURN_END = "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"
SPECIAL_TOKENS = [BOS, EOS, MASK, HEADER_START, HEADER_END, TURN_END]
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    " + message['content'] + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
NUM_TRAINING_TASKS = 20_000


def _training_text() -> Iterator[str]:
    """Prompts and bodies of training tasks, and every constant often enough to become one token."""
    for task in islice(draw_tasks(Random(0), held_out=False), NUM_TRAINING_TASKS):
        yield task.prompt
        yield task.body
    for _ in range(2_000):
        yield from (*WORDS, *(str(number) for number in range(100)))
    for _ in range(200):
        yield from ("user", "system", "assistant", "\n\n")


def train_tokenizer() -> PreTrainedTokenizerBase:
    tokenizer = Tokenizer(models.BPE())
    pieces = pre_tokenizers.Split(Regex(PIECES.pattern), behavior="isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pieces, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_training_text(), trainer)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=EOS,
        mask_token=MASK,
        additional_special_tokens=[HEADER_START, HEADER_END, TURN_END],
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
        chat_template=CHAT_TEMPLATE,
    )


def render_prompt(prompt: str) -> str:
    """The prompt as the chat template in tokenizer_config.json renders it."""
    return (
        f"{BOS}{HEADER_START}user{HEADER_END}\n\n{prompt}{TURN_END}"
        f"{HEADER_START}assistant{HEADER_END}\n\n"
    )


def token_id(tokenizer: PreTrainedTokenizerBase, token: str) -> int:
    found = tokenizer.convert_tokens_to_ids(token)
    assert isinstance(found, int), f"{token!r} is one token, not {found}"
    return found


def decode(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    text = tokenizer.decode(ids)
    assert isinstance(text, str), "one list of ids gives one text"
    return text


def main() -> None:
    train_tokenizer().save_pretrained(MODEL_FOLDER, save_jinja_files=False)


if __name__ == "__main__":
    main()
