"""The harness's model `dllm`: its requests as requests of the engine.

    generate_until          prompts to the engine, all at once: it batches, stops and retires them
    loglikelihood           a bound by Monte Carlo (engine/likelihood.py), never the value itself
    loglikelihood_rolling   the same, of whole texts

What the harness gives as text becomes token ids in jobs/lm_eval/texts.py.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, cast

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from tqdm.auto import tqdm

from engine.errors import UserError
from engine.likelihood import LikelihoodBound, Pair
from engine.llm import LLM, Answer
from engine.model.defaults import defaults_at
from engine.request import FinishReason, derive_seed
from jobs.lm_eval.arguments import Generation, ModelArguments, generation_of, model_arguments
from jobs.lm_eval.ranks import Ranks
from jobs.lm_eval.texts import Texts

log = logging.getLogger("lm_eval")

BOUNDS = (
    "dllm: log-likelihoods of a diffusion model are lower bounds, estimated from num_samples=%d "
    "draws each (one-token answers: exact). Perplexities from them are upper bounds; they do not "
    "compare with an autoregressive model's values."
)


class DiffusionLM(LM):  # type: ignore[misc]
    """The constructor takes the words of --model_args (jobs/lm_eval/arguments.py).

    Raises:
        UserError: a word is wrong, or the checkpoint or a setting does not allow the model.
    """

    def __init__(self, **raw: Any) -> None:
        super().__init__()
        self.arguments = model_arguments(raw)
        self.ranks = Ranks.of_launch(self.arguments.device)
        self._rank, self._world_size = self.ranks.rank, self.ranks.size
        self.llm = _llm(self.arguments, self.ranks.device)
        self._bound = LikelihoodBound(self.llm.engine, self.arguments.sampling)
        model = self.llm.engine.model_config
        self.texts = Texts(self.tokenizer, model, self.arguments.truncate)
        self._said_bounds = False

    @property
    def tokenizer(self) -> Any:
        return self.llm.tokenizer.tokenizer

    @property
    def tokenizer_name(self) -> str:
        """What the harness's cache of built requests depends on, with the chat template."""
        template = self.arguments.chat_template or ""
        return f"{self.arguments.path}@{self.arguments.revision or ''}/{template}".replace(
            "/", "__"
        )

    @property
    def max_length(self) -> int:
        return self.llm.engine.model_config.max_positions

    @property
    def device(self) -> Any:
        """Where the harness's tensors go between ranks."""
        return self.ranks.exchange

    def all_gather(self, tensor: Any) -> Any:
        return self.ranks.all_gather(tensor)

    def gather_object(self, obj: Any, dst: int = 0) -> Any:
        return self.ranks.gather_object(obj, dst)

    def barrier(self) -> None:
        self.ranks.barrier()

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The text of the template, for the harness's records."""
        if isinstance(chat_template, str):
            raise UserError(
                f"--apply_chat_template {chat_template}: give the name with chat_template="
                f"{chat_template} in --model_args, and --apply_chat_template alone"
            )
        self._check_template()
        return self.llm.tokenizer.template.text if chat_template else None

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        self._check_template()
        turns = [dict(turn) for turn in chat_history]
        template = self.llm.tokenizer.template
        return template.render(turns, None, continues=not add_generation_prompt)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """The text of each request before the first of its `until`.

        Raises:
            UserError: a prompt that does not fit, or a keyword that means nothing here.
        """
        asked = [
            (context, generation_of(gen_kwargs, self.arguments.max_gen_toks), gen_kwargs)
            for context, gen_kwargs in (request.args for request in requests)
        ]
        prompts = [self.texts.prompt(context, its.max_new_tokens) for context, its, _ in asked]
        texts = [""] * len(requests)
        order = sorted(range(len(requests)), key=lambda i: -len(prompts[i]))
        seeds = self._seeds([context for context, _, _ in asked])
        answers = self.llm.generate(
            [prompts[i] for i in order],
            max_new_tokens=[asked[i][1].max_new_tokens for i in order],
            temperature=[asked[i][1].temperature for i in order],
            top_k=[asked[i][1].top_k for i in order],
            top_p=[asked[i][1].top_p for i in order],
            stop=[list(asked[i][1].until) for i in order],
            guidance=self.arguments.guidance,
            seed=[seeds[i] for i in order],
            progress=not disable_tqdm and self.rank == 0,
            stream=True,
        )
        for answer in answers:
            place = order[answer.index]
            context, generation, gen_kwargs = asked[place]
            texts[place] = self._text(answer, generation)
            self.cache_hook.add_partial("generate_until", (context, gen_kwargs), texts[place])
        return texts

    def loglikelihood(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """A lower bound of log p(continuation | context), and whether greedy decoding, with the
        settings of this model, gives the continuation."""
        self._say_bounds()
        pairs = [self.texts.pair(*request.args) for request in requests]
        greedy = self._are_greedy(pairs, disable_tqdm)
        found = []
        for request, bound, is_greedy in zip(
            requests, self._bounds(pairs, disable_tqdm), greedy, strict=True
        ):
            found.append((bound, is_greedy))
            self.cache_hook.add_partial("loglikelihood", request.args, found[-1])
        return found

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        """A lower bound of log p(text), window by window of the model's context: each window's
        tokens are bounded given the token before it alone, as the harness has it."""
        self._say_bounds()
        windows = [self.texts.windows(text) for (text,) in (request.args for request in requests)]
        flat = [pair for its in windows for pair in its]
        bounds = self._bounds(flat, disable_tqdm)
        found = []
        for request, its in zip(requests, windows, strict=True):
            found.append(sum(next(bounds) for _ in its))
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, found[-1])
        return found

    def _bounds(self, pairs: Sequence[Pair], disable_tqdm: bool) -> Iterator[float]:
        hidden = disable_tqdm or self.rank != 0
        bounds = self._bound.bounds(pairs)
        with tqdm(total=len(pairs), disable=hidden, desc="Bounds of log-likelihoods") as bar:
            for bound in bounds:
                bar.update()
                yield bound.value

    def _are_greedy(self, pairs: Sequence[Pair], disable_tqdm: bool) -> list[bool]:
        if not self.arguments.check_greedy:
            return [False] * len(pairs)
        eos = self.llm.engine.model_config.eos_token_ids
        wanted = []
        for _, answer_ids in pairs:  # the engine's tokens end before EOS
            ends = [i for i, id in enumerate(answer_ids) if id in eos]
            wanted.append(answer_ids[: ends[0]] if ends else answer_ids)
        answers = self.llm.generate(
            [pair.prompt_ids for pair in pairs],
            max_new_tokens=[len(pair.answer_ids) for pair in pairs],
            guidance=self.arguments.guidance,
            seed=[0] * len(pairs),
            progress=not disable_tqdm and self.rank == 0,
        )
        for answer in answers:
            _check(answer)
        return [answer.token_ids == ids for answer, ids in zip(answers, wanted, strict=True)]

    def _text(self, answer: Answer, generation: Generation) -> str:
        """The text before the first of `until`. Special tokens are not in the text, so where
        `until` names one, the token itself ends it."""
        _check(answer)
        text = cast(str, answer.text)
        specials = {
            self.tokenizer.convert_tokens_to_ids(name)
            for name in generation.until
            if name in self.tokenizer.get_added_vocab()
        }
        places = [i for i, id in enumerate(answer.token_ids) if id in specials]
        if places:
            before = self.llm.tokenizer.text(answer.token_ids[: places[0]])
            text = min(text, before, key=len)
        return text

    def _seeds(self, contexts: list[str]) -> list[int]:
        """The seed of each request: by its context, and by how many of the same came before (a
        task may ask for several samples), not by its place."""
        before: Counter[str] = Counter()
        seeds = []
        for context in contexts:
            seeds.append(derive_seed(self.arguments.seed, context, before[context]))
            before[context] += 1
        return seeds

    def _check_template(self) -> None:
        if not self.llm.tokenizer.has_chat_template:
            raise UserError(
                f"--apply_chat_template: {self.arguments.path} has no chat template; give one with "
                "chat_template=FILE in --model_args"
            )
        self.llm.tokenizer.template.check()

    def _say_bounds(self) -> None:
        if not self._said_bounds and self.rank == 0:
            log.warning(BOUNDS, self.arguments.num_samples)
        self._said_bounds = True


def _llm(its: ModelArguments, device: str | None) -> LLM:
    """The engine. The prompts come as token ids, so no chat template is needed."""
    defaults = defaults_at(its.path, its.revision)
    names = {"decoding": defaults.decoding, "cache": defaults.cache}
    chosen: dict[str, Any] = {
        group: None if given is None else {"name": names[group], **given}
        for group, given in (("decoding", its.decoding), ("cache", its.cache))
    }
    return LLM(
        its.path,
        revision=its.revision,
        dtype=its.dtype,
        device=device,
        chat=False,
        chat_template=its.chat_template,
        **chosen,
        **(its.engine or {}),
    )


def _check(answer: Answer) -> None:
    """
    Raises:
        UserError: the engine cannot run the request.
    """
    if answer.finish_reason == FinishReason.ERROR:
        raise UserError(f"request {answer.index}: {answer.error}")
