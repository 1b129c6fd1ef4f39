"""--model_args of the model `dllm`, and the settings of one generation, checked."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from lm_eval.models.utils import normalize_gen_kwargs

from engine.errors import UserError
from engine.from_dict import from_dict
from engine.likelihood import Sampling

SECTIONS = ("decoding", "cache", "engine")
"""`decoding=threshold`, `decoding.threshold=0.8`, `engine.max_sequences=64`: as in a job."""
OWN_BATCHING = (None, 1, "1", "auto")
"""Values of --batch_size that leave the batch to the engine; 1 is the harness's default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelArguments:
    """The fields of --model_args, beside those of SECTIONS."""

    path: str
    revision: str | None = None
    dtype: str | None = None
    device: str | None = None
    chat_template: str | None = None
    max_gen_toks: int = 256
    """Length of the generation region where the task gives none."""
    guidance: float = 0.0
    """Weight of classifier-free guidance, in generations and bounds."""
    seed: int = 0
    truncate: bool = False
    """Whether a prompt that does not fit loses its beginning, as in the harness's own models; if
    not, it is an error."""
    num_samples: int = 128
    """Draws of each bound (engine/likelihood.py)."""
    strata: int = 16
    check_greedy: bool = True
    """Whether log-likelihood requests also say if greedy decoding gives the answer, which takes a
    generation each. Only tasks such as lambada read it; multiple choice does not."""
    decoding: dict[str, Any] | None = None
    cache: dict[str, Any] | None = None
    engine: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.max_gen_toks < 1:
            raise UserError(f"max_gen_toks={self.max_gen_toks}: give at least 1")
        self.sampling  # noqa: B018 - checks itself

    @property
    def sampling(self) -> Sampling:
        return Sampling(
            num_samples=self.num_samples,
            strata=self.strata,
            guidance=self.guidance,
            seed=self.seed,
        )


def model_arguments(raw: Mapping[str, Any]) -> ModelArguments:
    """The words of --model_args, and those that the harness adds.

    Raises:
        UserError: a word that means nothing here, or a value of the wrong type.
    """
    own: dict[str, Any] = {}
    sections: dict[str, Any] = {}
    for key, value in raw.items():
        section, dot, field = key.partition(".")
        if section in SECTIONS and dot:
            sections.setdefault(section, {})[field] = value
        elif section in SECTIONS:
            sections.setdefault(section, {})["name"] = value
        else:
            own[key] = value
    batch_size, most = own.pop("batch_size", None), own.pop("max_batch_size", None)
    if batch_size not in OWN_BATCHING or most is not None:
        raise UserError(
            f"batch_size={batch_size}, max_batch_size={most}: the engine fills its batches itself; "
            "give engine.max_sequences=N in --model_args"
        )
    if "pretrained" in own:
        raise UserError(f"pretrained={own['pretrained']}: write path={own['pretrained']}")
    if own.pop("trust_remote_code", False):
        raise UserError("trust_remote_code: code of a checkpoint is never run; leave it out")
    if "name" in sections.get("engine", {}):
        raise UserError(f"engine={sections['engine']['name']}: give fields, as engine.FIELD=VALUE")
    made = from_dict(ModelArguments, own, "")
    return replace(made, **sections)


@dataclass(frozen=True, slots=True)
class Generation:
    """What a generation is asked for."""

    max_new_tokens: int
    until: tuple[str, ...]
    temperature: float
    top_k: int | None
    top_p: float | None


def generation_of(gen_kwargs: Mapping[str, Any], max_gen_toks: int) -> Generation:
    """The harness's keywords of a request. Without do_sample=true it is greedy, and then nothing is
    filtered either.

    Raises:
        UserError: a keyword that means nothing here.
    """
    its = dict(normalize_gen_kwargs(dict(gen_kwargs), max_gen_toks))
    is_sampled = bool(its.pop("do_sample")) and its["temperature"] > 0
    made = Generation(
        max_new_tokens=its.pop("max_gen_toks"),
        until=tuple(text for text in its.pop("until") if text),
        temperature=float(its.pop("temperature", 0.0)) if is_sampled else 0.0,
        top_k=_given(its.pop("top_k", None), is_sampled),
        top_p=_given(its.pop("top_p", None), is_sampled),
    )
    its.pop("temperature", None)
    if its:
        raise UserError(
            f"gen_kwargs: {', '.join(map(str, its))}: not known; there are until, max_gen_toks, "
            "do_sample, temperature, top_k and top_p"
        )
    return made


def _given(value: Any, is_sampled: bool) -> Any:
    """A filter; the harness's 0 or -1 for top_k and 1 for top_p are none."""
    return value if is_sampled and value not in (None, 0, -1) else None
