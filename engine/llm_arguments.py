"""The arguments of engine.LLM: many forms in, one form out, or an error that names the argument."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, TypedDict, get_args

import torch

from engine.cache.base import CachePolicy
from engine.config import EngineConfig
from engine.decoding.base import DecodingStrategy
from engine.errors import UserError
from engine.from_dict import from_dict
from engine.model.authors import Confidence
from engine.model.defaults import options_of, settings_in
from engine.request import Request, derive_seed
from engine.text.messages import Tools

NOTHING: Mapping[str, Mapping[str, Any]] = {}
DTYPES = ("float32", "bfloat16", "float16")

Prompt = str | Sequence[Mapping[str, Any]] | Sequence[int]
"""A text (one user turn), a conversation (messages with role and content), or token ids."""


Stop = Sequence[str]
"""Texts that end a generation."""


class GenerateSettings(TypedDict, total=False):
    """The keywords of LLM.generate but for `stream`."""

    max_new_tokens: int | Sequence[int]
    temperature: float | Sequence[float]
    top_k: int | Sequence[int | None] | None
    top_p: float | Sequence[float | None] | None
    confidence: Confidence | None
    guidance: float | Sequence[float]
    stop: Stop | Sequence[Stop | None]
    seed: int | Sequence[int]
    tools: Tools | Sequence[Tools | None] | None
    progress: bool


SETTINGS: dict[str, tuple[type, bool]] = {
    "max_new_tokens": (int, False),
    "temperature": (float, False),
    "top_k": (int, True),
    "top_p": (float, True),
    "guidance": (float, False),
    "seed": (int, False),
}
"""Settings of each prompt that are numbers: of which kind, and whether they may be None."""


@dataclass(frozen=True, slots=True)
class PromptBatch:
    """Prompts and the settings of each."""

    prompts: list[Prompt]
    tools: list[Tools | None]
    settings: list[dict[str, Any]]
    """Of each prompt: fields of Request."""

    @classmethod
    def of(
        cls,
        prompts: Any,
        *,
        tools: Any = None,
        stop: Any = (),
        confidence: Any = None,
        **numbers: Any,
    ) -> "PromptBatch":
        """The arguments of LLM.generate; `numbers` are those of SETTINGS.

        Raises:
            UserError: a setting of the wrong type, or not one for each prompt.
        """
        listed = _listed(prompts)
        num = len(listed)
        if confidence not in (None, *get_args(Confidence)):
            raise UserError(f"confidence={confidence!r}: give 'raw', 'filtered' or None")
        each = {name: _each(name, numbers[name], num, *SETTINGS[name]) for name in SETTINGS}
        if is_int(numbers["seed"]):
            each["seed"] = [derive_seed(int(numbers["seed"]), place) for place in range(num)]
        each |= {"stop": _stop_of_each(stop, num), "confidence": [confidence] * num}
        settings = [
            dict(zip(each, values, strict=True)) for values in zip(*each.values(), strict=True)
        ]
        return cls(listed, _tools_of_each(tools, num), settings)

    def request(self, index: int, prompt_ids: list[int]) -> Request:
        return Request(request_id=index, prompt_ids=prompt_ids, **self.settings[index])


def is_int(value: Any) -> bool:
    """Of numpy too."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_conversation(prompt: Any) -> bool:
    return isinstance(prompt, list | tuple) and any(isinstance(m, Mapping) for m in prompt)


def dtype_of(dtype: str | torch.dtype) -> torch.dtype:
    """
    Raises:
        UserError: not a dtype that the engine computes in.
    """
    name = str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise UserError(f"dtype={name!r}: give one of {', '.join(DTYPES)}")
    its: torch.dtype = getattr(torch, name)
    return its


def engine_config(
    device: torch.device,
    defaults: Mapping[str, Any],
    block_length: int | None,
    own: Mapping[str, Any],
) -> EngineConfig:
    """The engine's settings: the caller's `own`, else the checkpoint's, else those in conf/engine.

    Raises:
        UserError: an unknown setting, one out of range, or more than one rank.
    """
    base = settings_in("engine", "gpu" if device.type == "cuda" else "default")
    given = {} if block_length is None else {"block_length": block_length}
    if own.get("backend", base["backend"]) != base["backend"]:
        raise UserError(
            f"backend={own['backend']!r}: LLM runs diffusion models; leave it out, or use "
            "python -m pipeline.run with engine=transformers"
        )
    config = from_dict(EngineConfig, {**base, **defaults, **own, **given}, "")
    if config.tensor_parallel > 1:
        raise UserError(
            f"tensor_parallel={config.tensor_parallel}: LLM runs in one process; use torchrun -m "
            "pipeline.run with engine.tensor_parallel"
        )
    return config


def device_of(device: str | torch.device | None) -> torch.device:
    """The device that is asked for; by default a GPU, if there is one.

    Raises:
        UserError: there is no such device, or this torch cannot use it.
    """
    try:
        its = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except (RuntimeError, TypeError):
        raise UserError(f"device={device!r}: give cuda, cuda:N or cpu") from None
    if its.type == "cuda" and not (its.index or 0) < torch.cuda.device_count():
        raise UserError(
            f"device={str(device)!r}: torch {torch.__version__} finds "
            f"{torch.cuda.device_count()} GPUs here; give another, or cpu"
        )
    return its


def check_chat(chat: Any, system: str | None, optional_keys: Any) -> None:
    """
    Raises:
        UserError: a value of the wrong kind, or a system turn for raw text.
    """
    if not isinstance(chat, bool):
        raise UserError(f"chat={chat!r}: give True or False")
    is_list = isinstance(optional_keys, Sequence) and not isinstance(optional_keys, str)
    if not is_list or not all(isinstance(key, str) for key in optional_keys):
        raise UserError(f"optional_keys={optional_keys!r}: give a list of keys")
    if system is not None and not chat:
        raise UserError(
            f"system={system!r} with chat=False (the default of base models): raw text has no "
            "system turn; put it into the texts, or set chat=True"
        )


def component(
    group: str,
    options: Mapping[str, type[Any]],
    chosen: Any,
    authors: Mapping[str, Mapping[str, Any]] = NOTHING,
) -> Any:
    """The decoding strategy or cache policy that a name, or a name with settings, chooses: one of
    `options` or of the files in conf/GROUP. Settings that are left out come from `authors` (name ->
    settings), else from conf/GROUP/NAME.yaml.

    Raises:
        UserError: an unknown name or setting, or a setting out of range.
    """
    if isinstance(chosen, DecodingStrategy | CachePolicy):
        return chosen
    own = {"name": chosen} if isinstance(chosen, str) else dict(chosen)
    name = own.pop("name", None)
    known = list(dict.fromkeys([*options, *options_of(group)]))
    if name not in known:
        raise UserError(f"{group}={name!r}: give one of {', '.join(known)}")
    settings = {**settings_in(group, name), **authors.get(name, {}), **own}
    return from_dict(options[settings.pop("name")], settings, f"{group}.")


def _listed(prompts: Any) -> list[Any]:
    """A single text, conversation or list of token ids is a list of one."""
    if isinstance(prompts, str) or is_conversation(prompts):
        return [prompts]
    if isinstance(prompts, Mapping):
        raise UserError("prompts: a single message; give a list of messages, or of prompts")
    listed = list(prompts)
    return [listed] if listed and all(is_int(prompt) for prompt in listed) else listed


def _tools_of_each(tools: Any, num: int) -> list[Any]:
    """One list for all prompts, or a list or None for each."""
    its = list(tools or [])
    if all(isinstance(tool, Mapping) for tool in its):
        return [its or None] * num
    if len(its) != num:
        raise UserError(
            f"tools: {len(its)} lists for {num} prompts; give one list of tools, or one for each"
        )
    return its


def _stop_of_each(stop: Any, num: int) -> list[tuple[str, ...]]:
    """One list of texts for all prompts, or a list or None for each.

    Raises:
        UserError: something else.
    """
    its = [stop] if isinstance(stop, str) else list(stop or [])
    if all(isinstance(text, str) for text in its):
        return [tuple(its)] * num
    if len(its) != num:
        raise UserError(
            f"stop: {len(its)} lists for {num} prompts; give one list of texts, or one for each"
        )
    for texts in its:
        is_list = texts is None or (isinstance(texts, Sequence) and not isinstance(texts, str))
        if not is_list or not all(isinstance(text, str) for text in texts or ()):
            raise UserError(f"stop={texts!r}: give a list of texts, or None")
    return [tuple(texts or ()) for texts in its]


def _each(name: str, value: Any, num: int, kind: type, may_be_none: bool) -> list[Any]:
    """One value for each of `num` prompts."""
    is_shared = isinstance(value, Integral | float | str) or value is None
    values = [value] * num if is_shared else list(value)
    if len(values) != num:
        raise UserError(
            f"{name}: {len(values)} values for {num} prompts; give one value, or one for each"
        )
    for its in values:
        is_right = is_int(its) or (kind is float and isinstance(its, float))
        if not (is_right or (may_be_none and its is None)):
            what = ("a number" if kind is float else "an integer") + " or None" * may_be_none
            raise UserError(f"{name}={its!r}: give {what}")
    return [int(its) if is_int(its) else its for its in values]
