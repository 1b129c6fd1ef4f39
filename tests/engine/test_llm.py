"""engine.LLM: text in, text out, with the tokens and the settings that a job would have."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import engine
from engine import LLM, Answer
from engine.cache.prefix import PrefixCache
from engine.decoding.factor import Factor
from engine.engine import DiffusionEngine
from engine.model.load import load_model
from engine.request import Request
from engine.text.chat import ChatTokenizer
from tests.checkpoints import write_checkpoint

TEXTS = ["hello world", "def add(x, y):", "some text", "system user", "brackets", "hello"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def llm(folder: Path) -> LLM:
    return LLM(folder, dtype="float32", device="cpu", block_length=8)


def answers(llm: LLM, *args: object, **settings: object) -> list[Answer]:
    return llm.generate(*args, progress=False, **settings)  # type: ignore[call-overload]


def test_the_tokens_are_those_of_the_engine_alone_and_in_the_order_of_the_prompts(
    folder: Path, llm: LLM
) -> None:
    chat = ChatTokenizer.of_checkpoint(folder)
    lengths = [24, 8, 16, 24, 3, 9]
    for index, answer in enumerate(answers(llm, TEXTS, max_new_tokens=lengths)):
        engine = DiffusionEngine(
            load_model(folder), config=llm.config, decoding=llm.decoding, cache=llm.cache
        )
        ids = chat.user_turn("prompt", [TEXTS[index]], lambda texts: texts[0]).ids
        request = Request(request_id=0, prompt_ids=ids, max_new_tokens=lengths[index])
        (alone,) = engine.results([request])
        assert (answer.index, answer.error) == (index, None)
        assert answer.token_ids == alone.token_ids
        assert answer.num_iterations == alone.num_iterations
        assert answer.num_prompt_tokens == len(ids)
        assert answer.text == chat.text(alone.token_ids)


def test_a_text_a_conversation_and_token_ids_are_the_same_prompt(llm: LLM) -> None:
    turn = [{"role": "user", "content": "hello"}]
    ids = llm.tokenizer.conversation("messages", turn).ids
    same = answers(llm, ["hello", turn, ids, tuple(ids), torch.tensor(ids)], max_new_tokens=8)
    assert len({tuple(answer.token_ids) for answer in same}) == 1
    for single in ("hello", turn, ids):
        (answer,) = answers(llm, single, max_new_tokens=8)
        assert answer.token_ids == same[0].token_ids
    assert answers(llm, []) == []


def test_a_stream_yields_as_they_finish_and_may_be_left_early(llm: LLM) -> None:
    whole = answers(llm, TEXTS, max_new_tokens=16)
    lengths = [16, 1, 16, 1, 16, 1]
    stream = llm.generate(TEXTS, max_new_tokens=lengths, stream=True, progress=False)
    first = next(stream)
    assert first.index in (1, 3, 5), "a short answer finishes first"
    with pytest.raises(ValueError, match="another stream of this LLM is unfinished"):
        answers(llm, "hello")
    stream.close()
    assert llm.engine.num_unfinished == 0
    assert llm.engine.iterations.pages.num_granted == 0, "what was dropped holds no pages"
    assert answers(llm, TEXTS, max_new_tokens=16) == whole


def test_a_prompt_that_cannot_be_used_is_an_answer_with_an_error(llm: LLM) -> None:
    prompts = ["hello", "", "hello " * 500, [{"role": "user"}], [10**6], ["hello"], "hello"]
    good, *bad, last = answers(llm, prompts, max_new_tokens=8)
    assert good.error is None
    assert good.token_ids == last.token_ids
    for answer, words in zip(
        bad,
        (
            "prompt: empty",
            "exceed the model's context",
            "content: null",
            "outside",
            "prompt: list",
        ),
        strict=True,
    ):
        assert answer.error is not None
        assert words in answer.error
        assert (answer.text, answer.token_ids, answer.finish_reason) == (None, [], "error")


def test_seeds_belong_to_prompts(llm: LLM) -> None:
    draws = answers(llm, ["hello"] * 4, temperature=1.5, seed=3, max_new_tokens=16)
    assert len({tuple(draw.token_ids) for draw in draws}) > 1
    assert answers(llm, ["hello"] * 4, temperature=1.5, seed=3, max_new_tokens=16) == draws
    seeds = [draw.seed for draw in reversed(draws)]
    again = answers(llm, ["hello"] * 4, temperature=1.5, seed=seeds, max_new_tokens=16)
    assert [a.token_ids for a in again] == [d.token_ids for d in reversed(draws)]
    mixed = answers(llm, ["hello"] * 2, temperature=[0.0, 1.5], seed=seeds[:2], max_new_tokens=16)
    assert mixed[1].token_ids == again[1].token_ids


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"max_new_tokens": [8]}, "max_new_tokens: 1 values for 2 prompts"),
        ({"max_new_tokens": 8.0}, "max_new_tokens=8.0: give an integer"),
        ({"temperature": "warm"}, "temperature='warm': give a number"),
        ({"temperature": [True, 0.0]}, "temperature=True: give a number"),
        ({"seed": [1, None]}, "seed=None: give an integer"),
    ],
)
def test_a_setting_of_the_wrong_kind_is_refused(
    llm: LLM, settings: dict[str, object], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        answers(llm, ["a", "b"], **settings)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"decoding": "fastest"}, "decoding='fastest': give one of fixed, threshold"),
        ({"decoding": {"name": "factor", "treshold": 1}}, "decoding.treshold=1: no such field"),
        ({"cache": {"name": "vicinity", "behind": "x"}}, "cache.behind='x': give a whole number"),
        ({"cache": "block_causal"}, "cache=block_causal with a bidirectional model"),
        ({"dtype": "int8"}, "dtype='int8': give one of float32"),
        ({"block_size": 4}, "block_size=4: no such field; .* block_length"),
        ({"tensor_parallel": 2}, "tensor_parallel=2: LLM runs in one process"),
        ({"backend": "transformers"}, "LLM runs diffusion models"),
        ({"max_sequences": 0}, "max_sequences=0"),
    ],
)
def test_a_wrong_component_or_engine_setting_is_refused(
    folder: Path, settings: dict[str, object], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        LLM(folder, device="cpu", **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ({"device": "gpu"}, "device='gpu': give cuda"),
        ({"device": "cuda:99"}, "device='cuda:99': torch .* finds . GPUs"),
        ({"chat": "no"}, "chat='no': give True or False"),
        ({"optional_keys": "name"}, "optional_keys='name': give a list"),
        ({"system": "Be brief.", "chat": False}, "system='Be brief.' with chat=False"),
    ],
)
def test_a_wrong_argument_is_refused(folder: Path, setting: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        LLM(folder, **setting)  # type: ignore[arg-type]


def test_numbers_of_numpy_are_numbers(llm: LLM) -> None:
    settings = {"max_new_tokens": np.int64(4), "seed": np.array([1]), "temperature": np.float64(1)}
    (one,) = answers(llm, np.array([5, 6]), **settings)
    (same,) = answers(llm, [[5, 6]], max_new_tokens=4, seed=[1], temperature=1.0)
    assert (one.token_ids, one.seed, one.error) == (same.token_ids, 1, None)


def test_components_are_chosen_by_name_with_settings_or_as_objects(folder: Path) -> None:
    for decoding in (Factor(factor=2.0), {"name": "factor", "factor": 2.0}):
        llm = LLM(folder, device="cpu", decoding=decoding, cache="prefix", max_sequences=2)
        assert (llm.decoding, llm.cache) == (Factor(factor=2.0), PrefixCache())
        assert (llm.config.max_sequences, llm.dtype) == (2, torch.bfloat16)
        assert "factor=2.0" in repr(llm)
        assert all(answer.error is None for answer in answers(llm, TEXTS, max_new_tokens=8))


def test_a_raw_prompt_has_no_chat_template(folder: Path, llm: LLM) -> None:
    raw = LLM(folder, dtype="float32", device="cpu", chat=False)
    (answer,) = answers(raw, "hello", max_new_tokens=4)
    (chatting,) = answers(llm, "hello", max_new_tokens=4)
    assert answer.num_prompt_tokens < chatting.num_prompt_tokens
    brief = LLM(folder, dtype="float32", device="cpu", system="be brief")
    (told,) = answers(brief, "hello", max_new_tokens=4)
    assert told.num_prompt_tokens > chatting.num_prompt_tokens


SHOWS_TOOLS = (
    "{% if tools %}{{ tools | tojson }}{% endif %}"
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
)


def test_tools_and_the_chat_template_are_the_callers_choice(folder: Path, tmp_path: Path) -> None:
    file, tools = tmp_path / "tools.jinja", [{"name": "weather"}]
    file.write_text(SHOWS_TOOLS)
    its = LLM(folder, dtype="float32", device="cpu", chat_template=file)
    turn = [{"role": "user", "content": "hi"}]
    length = len('[{"name": "weather"}]')
    prompts = ["hi", turn, [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]]
    without = answers(its, prompts, max_new_tokens=4)
    assert [answer.num_prompt_tokens for answer in without] == [8, 8, 8]
    with_tools = answers(its, prompts, max_new_tokens=4, tools=tools)
    assert [answer.num_prompt_tokens for answer in with_tools] == [8 + length] * 3
    mixed = answers(its, prompts, max_new_tokens=4, tools=[tools, None, []])
    assert [answer.num_prompt_tokens for answer in mixed] == [8 + length, 8, 8]
    with pytest.raises(ValueError, match="tools: 2 lists for 3 prompts"):
        answers(its, prompts, tools=[tools, None])
    (ids,) = answers(its, [[1, 2, 3]], tools=tools)
    assert ids.error is not None
    assert "tools: this prompt does not go through a chat template" in ids.error


def test_what_a_conversation_says_reaches_the_prompt_or_is_an_error(
    folder: Path, llm: LLM, tmp_path: Path
) -> None:
    named = [{"role": "user", "content": "hi", "name": "Ann"}]
    (refused,) = answers(llm, [named], max_new_tokens=4)
    assert refused.error is not None
    assert "messages[0].name: not in the prompt" in refused.error
    assert "optional_keys=[name]" in refused.error
    its = LLM(folder, dtype="float32", device="cpu", optional_keys=["name"])
    assert answers(its, [named], max_new_tokens=4)[0].error is None
    (tmp_path / "broken.jinja").write_text("{{ x }")
    for settings, told in (
        (
            {"chat_template": tmp_path / "broken.jinja"},
            r"broken\.jinja: the chat template is broken",
        ),
        ({"chat_template": "rag"}, "chat_template='rag': no such file"),
    ):
        with pytest.raises(ValueError, match=told):
            LLM(folder, device="cpu", **settings)  # type: ignore[arg-type]


def test_progress_is_shown_unless_told_not_to(llm: LLM, capsys: pytest.CaptureFixture[str]) -> None:
    llm.generate(TEXTS[:2], max_new_tokens=4)
    assert "2/2" in capsys.readouterr().err
    llm.generate(TEXTS[:2], max_new_tokens=4, progress=False)
    assert capsys.readouterr().err == ""


HEAVY = ("hydra", "omegaconf", "polars", "pyarrow", "pipeline")


def test_the_engine_imports_nothing_of_the_job() -> None:
    """And `import engine` alone not even torch, so that it takes no time."""
    code = (
        "import sys, engine; print('torch' in sys.modules); from engine import LLM; "
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=900
    )
    assert said.stdout.split("\n")[:2] == ["False", "[]"]
    with pytest.raises(AttributeError, match="no attribute 'LLLM'"):
        engine.LLLM  # noqa: B018
