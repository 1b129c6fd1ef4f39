"""The harness's model `dllm`, request by request."""

from pathlib import Path
from typing import Any

import pytest

lm_eval = pytest.importorskip(
    "lm_eval", reason="needs the extra lm-eval, which `make test` installs"
)

from lm_eval.api.instance import Instance  # noqa: E402
from lm_eval.api.model import CachingLM  # noqa: E402
from lm_eval.api.registry import get_model  # noqa: E402

import jobs.lm_eval  # noqa: E402, F401 - registers it
from engine.errors import UserError  # noqa: E402
from engine.likelihood import LikelihoodBound, Pair, Sampling  # noqa: E402
from engine.llm import LLM  # noqa: E402
from engine.model.defaults import PACKAGES  # noqa: E402
from tests.checkpoints import write_checkpoint  # noqa: E402

DEMO = str(PACKAGES / "jobs" / "demo" / "model")
"""Solves small functions; jobs/demo/model_block is its block-causal twin."""


def model(**arguments: Any) -> Any:
    return get_model("dllm").create_from_arg_obj({"path": DEMO, **arguments}, {"batch_size": 1})


@pytest.fixture(scope="module")
def demo() -> Any:
    return model()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"))


def generation(context: str, **gen_kwargs: Any) -> Instance:
    return Instance("generate_until", {}, (context, gen_kwargs), 0)


def likelihood(context: str, continuation: str) -> Instance:
    return Instance("loglikelihood", {}, (context, continuation), 0)


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    file = PACKAGES / "jobs" / "demo" / "task" / "prompts.parquet"
    return list(pq.read_table(file).slice(0, 12).to_pylist())


def chat(model: Any, text: str) -> str:
    return str(model.apply_chat_template([{"role": "user", "content": text}]))


def test_a_chat_prompt_is_that_of_the_job(demo: Any, rows: list[dict[str, Any]]) -> None:
    llm = LLM(DEMO)
    text = chat(demo, rows[0]["prompt"])
    wanted = llm.tokenizer.user_turn("prompt", [rows[0]["prompt"]], lambda texts: texts[0]).ids
    assert demo.texts.prompt(text, 8) == wanted
    continued = demo.apply_chat_template(
        [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "    return"}],
        add_generation_prompt=False,
    )
    assert continued.endswith("    return"), "no end of turn behind it"
    assert demo.chat_template(True) == llm.tokenizer.template.text
    with pytest.raises(UserError, match="chat_template=other in --model_args"):
        demo.chat_template("other")


def test_generations_are_those_of_the_engine_and_end_at_until(
    demo: Any, rows: list[dict[str, Any]]
) -> None:
    prompts = [chat(demo, row["prompt"]) for row in rows]
    asked = [
        generation(prompt, until=["\n    return", "never"], max_gen_toks=96 + i)
        for i, prompt in enumerate(prompts)
    ]
    texts = demo.generate_until(asked, disable_tqdm=True)
    whole = LLM(DEMO).generate(
        [row["prompt"] for row in rows],
        max_new_tokens=[96 + i for i in range(len(rows))],
        progress=False,
    )
    for text, answer in zip(texts, whole, strict=True):
        assert answer.text is not None
        assert text == answer.text.split("\n    return")[0]
        assert text != answer.text
    shuffled = demo.generate_until(asked[::-1], disable_tqdm=True)
    assert shuffled == texts[::-1]


def test_until_may_name_a_special_token(tiny: Path) -> None:
    """The token itself is not in the text."""
    its = model(path=str(tiny), max_gen_toks=40)
    contexts = [chr(65 + i) * (1 + i % 5) for i in range(26)]
    prompts = [its.texts.prompt(context, 40) for context in contexts]
    answers = its.llm.generate(prompts, max_new_tokens=40, progress=False)
    specials = set(its.tokenizer.get_added_vocab().values())
    context, plain = next(
        (context, answer)
        for context, answer in zip(contexts, answers, strict=True)
        if specials & set(answer.token_ids)
    )
    found = [id for id in plain.token_ids if id in specials]
    name = its.tokenizer.convert_ids_to_tokens(found[-1])
    (text,) = its.generate_until([generation(context, until=[name])], disable_tqdm=True)
    place = plain.token_ids.index(found[-1])
    assert text == its.llm.tokenizer.text(plain.token_ids[:place])


def test_samples_of_a_context_differ_and_do_not_depend_on_their_place(demo: Any) -> None:
    asked = [
        generation(chat(demo, text), do_sample=True, temperature=2.0, top_p=0.95, max_gen_toks=16)
        for text in ("def f(a: int) -> int:", "def f(a: int) -> int:", "def g(x: str) -> str:")
    ]
    first, second, third = demo.generate_until(asked, disable_tqdm=True)
    assert first != second
    assert demo.generate_until(asked[2:] + asked[:1], disable_tqdm=True) == [third, first]
    greedy = [generation(chat(demo, "def f(a: int) -> int:"), do_sample=False, temperature=0.7)]
    assert demo.generate_until(greedy * 2, disable_tqdm=True)[0] not in (first, second)


def test_keywords_that_mean_nothing_are_refused(demo: Any) -> None:
    with pytest.raises(UserError, match="gen_kwargs: num_beams: not known"):
        demo.generate_until([generation("a", num_beams=4)], disable_tqdm=True)


def test_the_cache_of_the_harness(demo: Any, tmp_path: Path) -> None:
    """What is there is not computed again, and what is computed is there at once."""
    cached = CachingLM(demo, str(tmp_path / "cache.db"))
    asked = [generation(chat(demo, f"def f(a: int) -> {kind}:")) for kind in ("int", "str")]
    first = cached.generate_until(asked)
    scored = cached.loglikelihood([likelihood("a", " b")])
    cached.lm = _Nothing()
    assert cached.generate_until(asked) == first
    assert cached.loglikelihood([likelihood("a", " b")]) == scored


class _Nothing:
    """A model that can do nothing."""

    def generate_until(self, requests: list[Any]) -> list[str]:
        raise AssertionError("computed again")

    loglikelihood = generate_until


def test_likelihoods_are_the_bounds_of_the_engine(demo: Any, rows: list[dict[str, Any]]) -> None:
    context, answer = chat(demo, rows[0]["prompt"]), rows[0]["canonical_solution"]
    its = model(num_samples=24, strata=8, seed=3)
    wrong = answer.replace("return", "import")
    (right, _), (other, _) = its.loglikelihood(
        [likelihood(context, answer), likelihood(context, wrong)], disable_tqdm=True
    )
    assert right > other
    ids = its.tokenizer.encode(context + answer, add_special_tokens=False)
    # The harness counts white space at the end of a context, here of the template, to the answer.
    num_prompt = len(its.tokenizer.encode(context.rstrip(), add_special_tokens=False))
    engine = LLM(DEMO).engine
    sampling = Sampling(num_samples=24, strata=8, seed=3)
    pair = Pair(ids[:num_prompt], ids[num_prompt:])
    (bound,) = LikelihoodBound(engine, sampling).bounds([pair])
    assert right == pytest.approx(bound.value, abs=1e-4)
    assert right == pytest.approx(
        model(num_samples=600).loglikelihood([likelihood(context, answer)])[0][0], rel=0.5, abs=1
    )


def test_an_answer_is_greedy_if_it_is_generated(demo: Any, rows: list[dict[str, Any]]) -> None:
    its = model(num_samples=2)
    context = chat(demo, rows[0]["prompt"]) + "    a ="
    (text,) = demo.generate_until([generation(context, max_gen_toks=8)], disable_tqdm=True)
    assert len(demo.texts.pair(context, text).answer_ids) == 8
    scored = its.loglikelihood(
        [likelihood(context, text), likelihood(context, text[:-1] + "?")], disable_tqdm=True
    )
    assert [is_greedy for _, is_greedy in scored] == [True, False]


def test_spaces_between_context_and_continuation_belong_to_the_continuation(demo: Any) -> None:
    spaced, joined = demo.texts.pair("def f ", "a"), demo.texts.pair("def f", " a")
    assert spaced == joined
    assert demo.texts.pair("", "abc").prompt_ids == [demo.tokenizer.bos_token_id]
    assert demo.texts.pair("\n", "abc") == demo.texts.pair("", "\nabc")


def test_without_check_greedy_nothing_is_generated(monkeypatch: pytest.MonkeyPatch) -> None:
    its = model(num_samples=2, check_greedy=False)
    monkeypatch.setattr(its.llm, "generate", None)
    ((value, is_greedy),) = its.loglikelihood([likelihood("def", " f(a)")], disable_tqdm=True)
    assert value < 0
    assert not is_greedy


def test_rolling_covers_every_token_once(tiny: Path) -> None:
    its = model(path=str(tiny), num_samples=2)
    text = "abc xyz " * 80  # 640 bytes, a token each, in a context of 256
    windows = its.texts.windows(text)
    assert [id for pair in windows for id in pair.answer_ids] == its.texts.encoded(text, bos=False)
    assert len(windows) == 3
    assert all(len(pair.prompt_ids) + len(pair.answer_ids) <= 256 for pair in windows)
    request = Instance("loglikelihood_rolling", {}, (text,), 0)
    (value,) = its.loglikelihood_rolling([request], disable_tqdm=True)
    engine = LLM(tiny, chat=False).engine
    parts = LikelihoodBound(engine, Sampling(num_samples=2)).bounds(windows)
    assert value == pytest.approx(sum(part.value for part in parts), rel=1e-5)


def test_it_says_once_that_these_are_bounds(demo: Any, caplog: pytest.LogCaptureFixture) -> None:
    its = model(num_samples=2, check_greedy=False)
    with caplog.at_level("WARNING", "lm_eval"):
        its.loglikelihood([likelihood("a", " b")], disable_tqdm=True)
        its.loglikelihood([likelihood("a", " c")], disable_tqdm=True)
    said = [record.message for record in caplog.records if "lower bounds" in record.message]
    assert len(said) == 1
    assert "num_samples=2" in said[0]


def test_a_block_causal_model_is_bounded_block_by_block(rows: list[dict[str, Any]]) -> None:
    block = str(PACKAGES / "jobs" / "demo" / "model_block")
    its = model(path=block, num_samples=16)
    context, answer = chat(its, rows[1]["prompt"]), rows[1]["canonical_solution"]
    wrong = answer.replace("return", "import")
    (right, _), (other, _) = its.loglikelihood(
        [likelihood(context, answer), likelihood(context, wrong)], disable_tqdm=True
    )
    assert right > other


def test_a_prompt_that_does_not_fit(tiny: Path, caplog: pytest.LogCaptureFixture) -> None:
    long = generation("abc " * 100, max_gen_toks=16)
    with pytest.raises(UserError, match="exceeds the model's context of 256: give truncate=true"):
        model(path=str(tiny)).generate_until([long], disable_tqdm=True)
    its = model(path=str(tiny), truncate=True)
    with caplog.at_level("WARNING", "lm_eval"):
        (text,) = its.generate_until([long], disable_tqdm=True)
    assert "a prompt of 400 tokens loses the first 160" in caplog.text
    ids = its.texts.encoded("abc " * 100)[-240:]
    (answer,) = its.llm.generate([ids], max_new_tokens=16, progress=False)
    assert text == answer.text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"pretrained": "x"}, "write path=x"),
        ({"thresold": 0.8}, "thresold=0.8: no such field"),
        ({"decoding.thresold": 0.8}, r"decoding\.thresold"),
        ({"engine": "gpu"}, "engine=gpu: give fields"),
        ({"batch_size": 32}, "engine.max_sequences=N"),
        ({"trust_remote_code": True}, "code of a checkpoint is never run"),
        ({"num_samples": 0}, "num_samples=0: give at least 1"),
        ({"max_gen_toks": 0}, "max_gen_toks=0: give at least 1"),
        ({"dtype": "int8"}, "dtype='int8'"),
        ({"path": "nowhere/at/all"}, "nowhere/at/all"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        get_model("dllm")(**{"path": DEMO, **arguments})


def test_settings_are_those_of_a_job() -> None:
    its = model(**{"decoding": "factor", "decoding.factor": 2.0, "cache": "none"})
    assert "Factor(" in repr(its.llm.decoding)
    assert its.llm.decoding.factor == 2.0
    one_field = model(**{"decoding.threshold": 0.7, "engine.max_sequences": 3})
    assert one_field.llm.decoding.threshold == 0.7
    assert one_field.llm.config.max_sequences == 3
