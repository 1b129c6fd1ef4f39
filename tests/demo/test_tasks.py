"""The demo task and its tokenizer: solutions pass, held-out tasks are not trained on."""

import math
from itertools import islice
from pathlib import Path
from random import Random

import pyarrow.parquet as pq
import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from jobs.demo.task.generator import (
    COLUMNS,
    FOLDER,
    NUM_TASKS,
    SEEDS,
    Task,
    draw_tasks,
    held_out_rows,
    is_held_out,
)
from jobs.demo.task.operations import BY_KIND, OPERATIONS, WORDS
from jobs.demo.task.tokenizer import MODEL_FOLDER, SPECIAL_TOKENS, render_prompt

NUM_REGENERATED = 24
ANY_TEXT = (
    "héllo  wörld\t\r\n x ﬁ 日本 1234 don't 'x' ,.",
    "  a , b . c ' s\n \n\n  tail   ",
    "emoji 👩‍🚀 and \u0301 a lone accent \x00 \x7f",
    "<|eot_id|> in the middle <|endoftext|>",
)


def rows_of(name: str) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = pq.read_table(FOLDER / name).to_pylist()
    return rows


@pytest.fixture(scope="module")
def training() -> list[Task]:
    return list(islice(draw_tasks(Random(11), held_out=False), 4_000))


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(MODEL_FOLDER)


def kinds_of(prompt: str, training_kinds: dict[str, str]) -> tuple[str, ...]:
    """The task's combination, recovered from its docstring by the words around the constants."""
    sentences = [line.split(" = ", 1)[1] for line in prompt.split("\n")[2:-2]]
    return tuple(training_kinds[shape_of(sentence)] for sentence in sentences)


def shape_of(sentence: str) -> str:
    """A sentence without its constants; a literal counts as one constant however long it is."""
    pieces = sentence.replace(",", " ").replace(":", " ").replace(".", " ").split()
    return " ".join(p for p in pieces if not p.isdigit() and not p.startswith("'"))


@pytest.mark.parametrize("name", SEEDS)
def test_canonical_solutions_pass_their_own_tests(name: str) -> None:
    for row in rows_of(name):
        names: dict[str, object] = {}
        call = f"check({row['entry_point']})"
        exec(f"{row['prompt']}{row['canonical_solution']}\n{row['test']}\n{call}", names)


def test_a_wrong_constant_fails() -> None:
    rows = [row for row in rows_of("prompts.parquet") if " > " in row["canonical_solution"]]
    assert rows
    for row in rows:
        wrong = row["canonical_solution"].replace(" > ", " > 1 + ")
        with pytest.raises(AssertionError):
            exec(f"{row['prompt']}{wrong}\n{row['test']}\ncheck({row['entry_point']})", {})


@pytest.mark.parametrize("name", SEEDS)
def test_files_equal_what_the_generator_writes(name: str) -> None:
    rows = rows_of(name)
    assert len(rows) == NUM_TASKS
    assert tuple(rows[0]) == COLUMNS
    again = held_out_rows(SEEDS[name], NUM_REGENERATED, name.removesuffix(".parquet"))
    assert rows[:NUM_REGENERATED] == again


def test_the_two_files_share_no_prompt() -> None:
    first, second = (rows_of(name) for name in SEEDS)
    prompts = {row["prompt"] for row in first + second}
    assert len(prompts) == 2 * NUM_TASKS


def test_no_held_out_combination_is_trained_on(training: list[Task]) -> None:
    trained = {task.kinds for task in training}
    by_shape = {
        shape_of(operation.sentence.format_map(Blank())): operation.kind for operation in OPERATIONS
    }
    assert len(by_shape) == len(OPERATIONS), "two operations have the same sentence"
    for name in SEEDS:
        for row in rows_of(name):
            kinds = kinds_of(row["prompt"], by_shape)
            assert is_held_out(kinds)
            assert kinds not in trained


class Blank(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return "0"


def test_training_contains_every_operation(training: list[Task]) -> None:
    assert {kind for task in training for kind in task.kinds} == set(BY_KIND)


def test_distinct_tasks_are_in_the_millions(training: list[Task]) -> None:
    """Of 4,000 drawn tasks hardly two are equal, so by the birthday bound there are millions."""
    prompts = [task.prompt for task in training if len(task.kinds) > 1]
    assert len(prompts) - len(set(prompts)) <= 2
    with_number = sum(o.takes == o.gives == "int" and "{a}" in o.sentence for o in OPERATIONS)
    assert math.perm(with_number, 3) * 59**3 > 1_000_000, (
        "the number of chains of three such operations alone"
    )


def test_bodies_range_from_short_to_long(tokenizer: PreTrainedTokenizerBase) -> None:
    for name in SEEDS:
        bodies = tokenizer([row["canonical_solution"] for row in rows_of(name)])["input_ids"]
        sizes = sorted(len(ids) for ids in bodies)
        prompts = tokenizer([render_prompt(row["prompt"]) for row in rows_of(name)])["input_ids"]
        assert sizes[0] <= 12
        assert sizes[NUM_TASKS // 2] >= 30
        assert sizes[-1] > 100
        assert sizes[-1] + 1 <= 125
        assert max(len(ids) for ids in prompts) <= 200


@pytest.mark.parametrize("text", ANY_TEXT)
def test_any_text_round_trips(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_special_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    assert [
        tokenizer.convert_ids_to_tokens(i) for i in range(len(SPECIAL_TOKENS))
    ] == SPECIAL_TOKENS
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|startoftext|>", "<|endoftext|>")
    assert (tokenizer.pad_token, tokenizer.mask_token) == ("<|endoftext|>", "<|mdm_mask|>")


def test_constants_are_single_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    constants = [*WORDS, *(str(number) for number in range(100))]
    assert all(len(ids) == 1 for ids in tokenizer(constants)["input_ids"])


def test_the_chat_template_keeps_the_prompt_unchanged(tokenizer: PreTrainedTokenizerBase) -> None:
    prompt = rows_of("prompts.parquet")[0]["prompt"]
    turns = [{"role": "user", "content": prompt}]
    rendered = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    turn = tokenizer.apply_chat_template(turns, tokenize=False)
    assert rendered == render_prompt(prompt)
    assert rendered == f"{turn}<|start_header_id|>assistant<|end_header_id|>\n\n"


def test_model_folder_is_small() -> None:
    assert sum(file.stat().st_size for file in Path(MODEL_FOLDER).iterdir()) < 12e6
