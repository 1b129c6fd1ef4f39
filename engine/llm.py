"""Text in, text out, in one process: the engine for notebooks and scripts.

    llm = LLM("GSAI-ML/LLaDA-8B-Instruct")
    for answer in llm.generate(["Write a haiku."], max_new_tokens=128):
        print(answer.text, answer.num_iterations)

A checkpoint runs with the same settings, and a prompt becomes the same token ids, as in a job
(`python -m pipeline.run`), which is the way to use several GPUs, resume, and keep results in files.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, Unpack, overload

import torch
from tqdm.auto import tqdm

from engine.cache import CACHE_POLICIES
from engine.cache.base import CachePolicy
from engine.decoding import DECODERS
from engine.decoding.base import DecodingStrategy
from engine.engine import DiffusionEngine
from engine.errors import UserError
from engine.legal import block_length_of, check_model, opening_of
from engine.llm_arguments import (
    GenerateSettings,
    Prompt,
    PromptBatch,
    Stop,
    check_chat,
    component,
    device_of,
    dtype_of,
    engine_config,
    is_conversation,
    is_int,
)
from engine.model.authors import Confidence
from engine.model.defaults import defaults_for
from engine.model.load import fetch_checkpoint, load_model, read_config, warn_of_long_canvases
from engine.request import FinishReason, Request, Result
from engine.text.chat import ChatTokenizer, PromptError, check_not_blank
from engine.text.messages import ChatOptions, Tools


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer(Result):
    """What became of one prompt: the engine's Result, and its text."""

    text: str | None
    """None on an error; then `error` says what to do."""

    @property
    def index(self) -> int:
        """The prompt's place in the list that was given to `generate`."""
        assert isinstance(self.request_id, int), "requests are numbered by their prompt's place"
        return self.request_id


class LLM:
    """One checkpoint, loaded, with its engine.

    Args:
        model: a checkpoint folder, or a name on the hub.
        revision: branch, tag or commit on the hub.
        max_positions: the longest canvas, prompt and answer together.
        dtype: "float32", "bfloat16" or "float16".
        device: "cuda" if there is a GPU, otherwise "cpu".
        decoding: a name ("factor"), a name with settings ({"name": "factor", "factor": 2.0}),
            or a strategy from engine.decoding.
        cache: likewise.
        block_length: positions denoised together.
        chat: whether a text goes through the chat template as a user turn.
        add_bos: whether a prompt of text or messages begins with the tokenizer's BOS.
        system: a system turn before every prompt that has none.
        chat_template: the name of one of the checkpoint's chat templates, or a file.
        optional_keys: keys of messages and tools that the chat template may leave out; what it
            leaves out otherwise is an error of the prompt.
        engine: any other field of EngineConfig, such as max_sequences or cache_tokens.

    What is left out takes the checkpoint's own default, from its file in conf/model, and the
    engine's from conf/engine (gpu.yaml on a GPU, otherwise default.yaml).

    Raises:
        UserError: no such checkpoint, a setting out of range, or settings that do not go
            together.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        revision: str | None = None,
        max_positions: int | None = None,
        dtype: str | torch.dtype | None = None,
        device: str | torch.device | None = None,
        decoding: str | Mapping[str, Any] | DecodingStrategy | None = None,
        cache: str | Mapping[str, Any] | CachePolicy | None = None,
        block_length: int | None = None,
        chat: bool | None = None,
        add_bos: bool | None = None,
        system: str | None = None,
        chat_template: str | Path | None = None,
        optional_keys: Sequence[str] = (),
        **engine: Any,
    ) -> None:
        folder = fetch_checkpoint(str(model), revision)
        config = read_config(folder)
        warn_of_long_canvases(config, max_positions)
        config = config.with_positions(max_positions)
        defaults = defaults_for(str(model), config.family)
        self.name = str(model)
        self.device = device_of(device)
        self.dtype = dtype_of(dtype or defaults.dtype)
        self.decoding = component(
            "decoding", DECODERS, decoding or defaults.decoding, defaults.authors
        )
        self.cache = component("cache", CACHE_POLICIES, cache or defaults.cache)
        self.config = engine_config(self.device, defaults.engine, block_length, engine)
        check_model(config, self.config, self.cache)
        opening_of(config, self.config, self.decoding)
        self.chat: bool = defaults.prompt.get("chat", True) if chat is None else chat
        check_chat(self.chat, system, optional_keys)
        self.system = system
        template = None if chat_template is None else str(chat_template)
        options = ChatOptions(
            chat_template=template,
            optional_keys=tuple(optional_keys),
            add_bos=defaults.prompt.get("add_bos") if add_bos is None else add_bos,
        )
        self.tokenizer = ChatTokenizer.of_checkpoint(folder, options)
        if self.chat and not self.tokenizer.has_chat_template:
            raise UserError(f"chat=True: {folder} has no chat template; set chat=False")
        if self.chat:
            self.tokenizer.check_user_turn(system)
        self.engine = DiffusionEngine(
            load_model(folder, self.dtype, self.device, max_positions=max_positions),
            config=self.config,
            decoding=self.decoding,
            cache=self.cache,
            text_of=self.tokenizer.text,
        )

    def __repr__(self) -> str:
        block_length = block_length_of(self.engine.model_config, self.config)
        return (
            f"LLM({self.name!r}, decoding={self.decoding}, cache={self.cache}, "
            f"block_length={block_length}, dtype={self.dtype}, device={self.device})"
        )

    @overload
    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        *,
        stream: Literal[False] = ...,
        **settings: Unpack[GenerateSettings],
    ) -> list[Answer]: ...

    @overload
    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        *,
        stream: Literal[True],
        **settings: Unpack[GenerateSettings],
    ) -> Iterator[Answer]: ...

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        *,
        max_new_tokens: int | Sequence[int] = 128,
        temperature: float | Sequence[float] = 0.0,
        top_k: int | Sequence[int | None] | None = None,
        top_p: float | Sequence[float | None] | None = None,
        confidence: Confidence | None = None,
        guidance: float | Sequence[float] = 0.0,
        stop: Stop | Sequence[Stop | None] = (),
        seed: int | Sequence[int] = 0,
        tools: Tools | Sequence[Tools | None] | None = None,
        progress: bool = True,
        stream: bool = False,
    ) -> list[Answer] | Iterator[Answer]:
        """Answer every prompt.

        Args:
            prompts: texts, conversations or token ids, freely mixed; or a single one of these.
            max_new_tokens: length of the generation region, for all prompts or one for each.
            temperature: 0 is greedy; for all prompts or one for each.
            top_k: draw from this many of the likeliest words; None: from all. For all prompts or
                one for each.
            top_p: draw from the fewest likeliest words whose probabilities sum to more than this;
                None: from all. For all prompts or one for each.
            confidence: the probability of a token that strategies take for its confidence: "raw",
                at temperature 1 over all words; "filtered", after temperature, top_k and top_p;
                None: as the model's authors have it.
            guidance: weight of classifier-free guidance, 0 for none; for all prompts or one for
                each.
            stop: texts that end a generation, which is cut before the first of them: a list for all
                prompts, or a list or None for each.
            seed: one number, from which every prompt gets a seed of its own by its place in the
                list; or the seed of each prompt.
            tools: functions that the model may call, for the chat template: one list for all
                prompts, or a list or None for each.
            progress: show a progress bar.
            stream: return an iterator that yields each answer as it finishes.

        Returns:
            The answers in the order of the prompts. A prompt that cannot be used is an answer with
            `error` set, and does not affect the others. An answer does not depend on the other
            prompts, but for the seed that a single `seed` gives to its place.

        Raises:
            UserError: a setting of the wrong type or length, or another `stream` is unfinished.
        """
        batch = PromptBatch.of(
            prompts,
            tools=tools,
            stop=stop,
            confidence=confidence,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            guidance=guidance,
            seed=seed,
        )
        if self.engine.num_unfinished:
            raise UserError(
                "generate: another stream of this LLM is unfinished; finish or close it"
            )
        answers = self._answers(batch, progress)
        return answers if stream else sorted(answers, key=lambda answer: answer.index)

    def _answers(self, batch: PromptBatch, progress: bool) -> Iterator[Answer]:
        """As they finish. If the caller stops early, what is unfinished is dropped."""
        num_tokens = 0
        try:
            with tqdm(total=len(batch.prompts), disable=not progress, unit="prompt") as bar:
                for result in self._results(batch):
                    num_tokens += result.num_generated_tokens
                    elapsed_s = bar.format_dict["elapsed"]
                    if elapsed_s:
                        bar.set_postfix_str(f"{num_tokens / elapsed_s:.0f} tokens/s", refresh=False)
                    bar.update()
                    yield self._answer(result)
        finally:
            self.engine.abort()

    def _results(self, batch: PromptBatch) -> Iterator[Result]:
        refused: list[Result] = []

        def usable() -> Iterator[Request]:
            for index, prompt in enumerate(batch.prompts):
                try:
                    ids = self._token_ids(prompt, batch.tools[index])
                except PromptError as error:
                    refused.append(Result.failed(batch.request(index, []), str(error)))
                else:
                    yield batch.request(index, ids)

        for result in self.engine.results(usable()):
            while refused:
                yield refused.pop()
            yield result
        yield from refused

    def _token_ids(self, prompt: Prompt, tools: Tools | None) -> list[int]:
        if isinstance(prompt, str):
            check_not_blank("prompt", [prompt])
            if self.chat:
                return self.tokenizer.user_turn("prompt", [prompt], _first, self.system, tools).ids
            if not tools:
                return self.tokenizer.raw("prompt", [prompt], _first).ids
        elif is_conversation(prompt):
            return self.tokenizer.conversation("messages", prompt, self.system, tools).ids
        if tools:
            raise PromptError(
                "tools: this prompt does not go through a chat template; leave them out"
            )
        ids = prompt.tolist() if hasattr(prompt, "tolist") else prompt
        if isinstance(ids, list | tuple) and ids and all(is_int(id) for id in ids):
            return [int(id) for id in ids]
        raise PromptError(
            f"prompt: {type(prompt).__name__}; give a text, a list of messages or of token ids"
        )

    def _answer(self, result: Result) -> Answer:
        is_error = result.finish_reason == FinishReason.ERROR
        text = None if is_error else self.tokenizer.text(result.token_ids)[: result.text_length]
        return Answer(text=text, **{f.name: getattr(result, f.name) for f in fields(result)})


def _first(texts: list[str]) -> str:
    return texts[0]
