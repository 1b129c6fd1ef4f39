"""Prompts: what a row may hold, and what comes out."""

import logging
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from engine.text.chat import PromptError
from pipeline.config.job import PromptConfig
from pipeline.prompt.prompter import Prompter
from tests.engine.text.tokenizer_folders import KINDS, byte_level, prompter, save

# --- plain rows: as the tokenizer itself ---


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "text", ["hello world", "def add(x):\n    return x", " ünï  <br> {x}", "<|"]
)
def test_plain_text_gives_the_tokenizers_own_ids(
    folders: dict[str, Path], kind: str, text: str
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folders[kind])
    turn = [{"role": "user", "content": text}]
    rendered = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
    expected = tokenizer(rendered, add_special_tokens=False).input_ids
    assert prompter(folders[kind]).token_ids({"prompt": text}) == expected
    assert prompter(folders[kind]).token_ids({"messages": turn}) == expected
    assert prompter(folders[kind], chat=False).token_ids({"prompt": text}) == (
        tokenizer(text).input_ids
    )


def test_bos_stands_once_in_a_chat_and_in_raw_text(folder: Path) -> None:
    bos = AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids("<|startoftext|>")
    for chat in (True, False):
        ids = prompter(folder, chat=chat).token_ids({"prompt": "hello"})
        assert ids[0] == bos
        assert ids.count(bos) == 1


# --- what a row may hold ---


def test_template_takes_braces_literally(folder: Path) -> None:
    some = prompter(folder, chat=False, template="{{a}} {prompt} {0}")
    assert some.text(some.token_ids({"prompt": "{x} {prompt}"})) == "{a} {x} {prompt} {0}"


def test_system_turn_comes_first_unless_the_row_has_one(folder: Path) -> None:
    some = prompter(folder, system="be brief")
    own = [{"role": "system", "content": "be long"}, {"role": "user", "content": "hi"}]
    user = [{"role": "user", "content": "hi"}]
    end = "user\n\nhiassistant\n\n"
    assert some.text(some.token_ids({"messages": own})) == "system\n\nbe long" + end
    assert some.text(some.token_ids({"messages": user})) == "system\n\nbe brief" + end
    assert some.text(some.token_ids({"prompt": "hi"})) == "system\n\nbe brief" + end


def message(role: Any = "user", content: Any = "hi") -> dict[str, Any]:
    return {"role": role, "content": content}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"prompt": None}, "prompt: null"),
        ({"prompt": ""}, "prompt: empty"),
        ({"prompt": " \n"}, "prompt: only white space"),
        ({"prompt": 7}, "prompt: int; must be text"),
        ({"prompt": "half \ud800"}, "surrogate"),
        ({"other": "x"}, "neither is in the data, which has other"),
        ({"messages": []}, "messages: an empty list"),
        ({"messages": ["hi"]}, r"messages\[0\]: text that is not the JSON of a message"),
        ({"messages": [message(content=None)]}, r"messages\[0\].content: null; must be text"),
        ({"messages": [message(), message(role=None)]}, r"messages\[1\].role: null"),
        ({"messages": [message(role="")]}, r"messages\[0\].role: empty"),
        ({"messages": [message(content=" ")]}, r"messages\[0\].content: blank"),
        ({"messages": [message(), message("assistant")]}, "ends with an assistant turn"),
        ({"prompt": "hello " * 500}, r"prompt: \d+ tokens, \d+ more than the 100 that fit"),
    ],
)
def test_a_bad_row_says_what_is_wrong(folder: Path, row: dict[str, Any], words: str) -> None:
    with pytest.raises(PromptError, match=words):
        prompter(folder, limit=100).token_ids(row)


def test_exactly_the_limit_fits(folder: Path) -> None:
    ids = prompter(folder).token_ids({"prompt": "hello"})
    assert prompter(folder, limit=len(ids)).token_ids({"prompt": "hello"}) == ids
    with pytest.raises(PromptError, match="1 more than"):
        prompter(folder, limit=len(ids) - 1).token_ids({"prompt": "hello"})


def test_the_limit_is_what_the_generation_leaves_of_the_context(folder: Path) -> None:
    ids = prompter(folder).token_ids({"prompt": "hello"})
    some = prompter(folder, limit=len(ids) + 10)
    assert some.token_ids({"prompt": "hello"}, max_new_tokens=10) == ids
    told = rf"1 more than the {len(ids) - 1} that fit with max_new_tokens=11 into .*{len(ids) + 10}"
    with pytest.raises(PromptError, match=told):
        some.token_ids({"prompt": "hello"}, max_new_tokens=11)
    for too_many in (len(ids) + 10, 10**9):
        with pytest.raises(PromptError, match=f"max_new_tokens={too_many}: leaves no room"):
            some.token_ids({"prompt": "hello"}, max_new_tokens=too_many)


def test_a_truncating_tokenizer_file_cuts_nothing(tmp_path: Path) -> None:
    tokenizer = byte_level()
    tokenizer.enable_truncation(4)
    folder = save(tokenizer, tmp_path)
    some = prompter(folder, chat=False)
    for text in ("hello " * 20, "<|eot_id|> " * 20):
        assert some.text(some.token_ids({"prompt": text})) == text


def test_the_chat_templates_own_refusal_is_a_row_error(tmp_path: Path) -> None:
    refusing = "{{ raise_exception('roles must alternate') }}"
    folder = save(byte_level(), tmp_path, refusing)
    with pytest.raises(PromptError, match="roles must alternate"):
        prompter(folder).token_ids({"prompt": "hi"})


def test_a_checkpoints_own_chat_template_comes_before_its_familys(tmp_path: Path) -> None:
    for template, expected in (
        (None, "family: hi"),
        ("own: {{ messages[0]['content'] }}", "own: hi"),
    ):
        folder = save(byte_level(), tmp_path / str(template is None), template)
        its = Prompter(folder, PromptConfig(), 100, "family: {{ messages[0]['content'] }}")
        assert its.text(its.token_ids({"prompt": "hi"})) == expected


def test_messages_need_a_chat_template(tmp_path: Path) -> None:
    folder = save(byte_level(), tmp_path, None)
    with pytest.raises(ValueError, match=r"prompt\.chat=true: .* has no chat template"):
        prompter(folder)
    with pytest.raises(PromptError, match="no chat template"):
        prompter(folder, chat=False).token_ids({"messages": [message()]})


def test_generated_ids_become_text_without_special_tokens(folder: Path) -> None:
    some = prompter(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("a , b  ünï <|eot_id|>", add_special_tokens=False).input_ids
    assert some.text([*ids, len(tokenizer) + 5]) == "a , b  ünï "


def test_a_role_that_spells_a_special_token_is_a_row_error(folder: Path) -> None:
    prompter = Prompter(folder, PromptConfig(), 100)
    turns = [{"role": "user<|eot_id|><|mdm_mask|>", "content": "hi"}]
    with pytest.raises(PromptError, match=r"messages\[0\]\.role: .* spells a special token"):
        prompter.token_ids({"messages": turns})


def test_the_text_is_what_was_encoded(folder: Path) -> None:
    for text in ("hello", "x <|eot_id|> <tool> y"):
        prompt = prompter(folder, system="be brief").prompt({"prompt": text})
        shown = "<|startoftext|>system\n\nbe brief<|eot_id|>user\n\n" + text
        assert prompt.text == shown + "<|eot_id|>assistant\n\n"
        assert prompt.messages == text


# --- the tokenizer's folder ---


def test_a_model_type_unknown_to_transformers_loads_in_silence(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save(byte_level(), tmp_path)
    (tmp_path / "config.json").write_text(
        '{"model_type": "llada", "auto_map": {"AutoConfig": "x.Y"}}'
    )
    logger = logging.getLogger("transformers")  # it does not propagate
    logger.addHandler(caplog.handler)
    try:
        prompter(tmp_path)
    finally:
        logger.removeHandler(caplog.handler)
    assert caplog.text == ""


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no tokenizer can be loaded"):
        prompter(tmp_path)
    with pytest.raises(ValueError, match="not there"):
        prompter(tmp_path / "missing")
