"""The BOS in front of prompts: never twice, never in place of text, and alike in jobs and
notebooks."""

import json
from pathlib import Path

import pytest

from engine import LLM
from engine.errors import UserError
from engine.model.families import dream, llada
from engine.text.chat import ChatTokenizer
from engine.text.messages import ChatOptions
from pipeline.config.job import PromptConfig
from pipeline.prompt.prompter import Prompter
from tests.engine.text.tokenizer_folders import byte_level, save
from tests.launched import composed
from tests.published import write_tokenizer, write_weights

BOS = 151665
RAW = {"prompt": "hi"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(root, "dream")
    return root


@pytest.fixture
def adding(tmp_path: Path) -> Path:
    """A tokenizer that itself puts its BOS in front."""
    file = save(byte_level(), tmp_path, None) / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"bos_token": "<|startoftext|>"}))
    return tmp_path


def test_raw_text_begins_with_one_bos(folder: Path) -> None:
    with_bos = Prompter(folder, PromptConfig(chat=False, add_bos=True), 100)
    plain = Prompter(folder, PromptConfig(chat=False), 100)
    ids = plain.token_ids(RAW)
    assert BOS not in ids
    assert with_bos.token_ids(RAW) == [BOS, *ids]
    assert with_bos.prompt(RAW).text == "<|beginoftext|>hi"
    off = Prompter(folder, PromptConfig(chat=False, add_bos=False), 100)
    assert off.token_ids(RAW) == ids


def test_text_that_spells_it_stays_text_and_a_template_may_place_it(folder: Path) -> None:
    some = Prompter(folder, PromptConfig(chat=False, add_bos=True), 100)
    ids = some.token_ids({"prompt": "<|beginoftext|>hi"})
    assert ids[0] == BOS
    assert ids.count(BOS) == 1
    assert some.text(ids[1:]) == "<|beginoftext|>hi"
    config = PromptConfig(chat=False, add_bos=True, template="<|beginoftext|>{prompt}")
    assert Prompter(folder, config, 100).token_ids(RAW) == some.token_ids(RAW)


def test_a_tokenizer_that_adds_its_own_adds_one_or_none(adding: Path) -> None:
    def ids(add_bos: bool | None) -> list[int]:
        config = PromptConfig(chat=False, add_bos=add_bos)
        return Prompter(adding, config, 100).token_ids(RAW)

    bos = Prompter(adding, PromptConfig(chat=False), 100).tokenizer.bos_token_id
    assert ids(None) == ids(True) == [bos, *ids(False)]
    assert bos not in ids(False)


def test_it_stands_before_a_chat_template_that_does_not_place_it(folder: Path) -> None:
    config = PromptConfig(add_bos=True)
    some = Prompter(folder, config, 100, dream.CHAT_TEMPLATE)
    plain = Prompter(folder, PromptConfig(), 100, dream.CHAT_TEMPLATE)
    assert some.token_ids(RAW) == [BOS, *plain.token_ids(RAW)]
    turns = {"messages": [{"role": "user", "content": "hi"}]}
    assert some.token_ids(turns) == some.token_ids(RAW)


def test_a_chat_template_that_places_it_is_refused(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, "llada")
    told = r"prompt\.add_bos=true: .*family begins every prompt with <\|startoftext\|> already; set"
    with pytest.raises(UserError, match=told):
        Prompter(tmp_path, PromptConfig(add_bos=True), 100, llada.CHAT_TEMPLATE)


def test_a_tokenizer_without_one_is_refused(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, "sdar")
    told = r"prompt\.add_bos=true: the tokenizer in .* has no bos_token .* prompt\.add_bos=null"
    with pytest.raises(UserError, match=told):
        Prompter(tmp_path, PromptConfig(chat=False, add_bos=True), 100)
    with pytest.raises(UserError, match=r"^add_bos=true: the tokenizer in .* set add_bos=null$"):
        ChatTokenizer(tmp_path, options=ChatOptions(add_bos=True))


def test_dreams_base_model_gets_it_in_jobs_and_notebooks(tmp_path: Path) -> None:
    checkpoint = tmp_path / "Dream-v0-Base-7B"
    write_weights(checkpoint, "dream")
    write_tokenizer(checkpoint, "dream")
    config = composed("model=dream_base", f"model.path={checkpoint}", "data.path=x", "output=y")
    ids = Prompter(checkpoint, config.prompt, 100).token_ids(RAW)
    assert ids[0] == BOS
    llm = LLM(checkpoint, dtype="float32", max_sequences=1, cache_tokens=64, logits_bytes=2**27)
    assert llm._token_ids("hi", None) == ids
    assert llm.engine.model_config.max_positions == 2048
    (answer,) = llm.generate("hi", max_new_tokens=2, progress=False)
    assert (answer.error, answer.num_prompt_tokens) == (None, 3)
