"""The job of a command line of pipeline.calibrate, with every strategy and policy it may run with.

What the command line names is kept as it is; what it leaves open is swept:

    nothing of `decoding`         every strategy, each with the settings of pipeline/calibrate/grid
    decoding.suppress_eos=X       the same; every strategy has this field
    decoding=NAME                 that strategy alone, with its settings
    decoding.threshold=0.9        the job's own strategy alone, its settings with this value

and likewise for `cache`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from engine.cache import CACHE_POLICIES
from engine.cache.base import CachePolicy
from engine.decoding import DECODERS
from engine.decoding.base import DecodingStrategy
from engine.errors import UserError
from pipeline.config.job import JobConfig
from pipeline.launch import compose_all, compose_job
from pipeline.launch.arguments import CommandLine, read_arguments
from pipeline.launch.compose import Composer, composing, jobs_of
from pipeline.launch.programs import CALIBRATE
from pipeline.workers.ranks import this_worker

REFERENCE = "fixed"
"""The strategy that commits one token per iteration."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibrated:
    """What a command line asks for."""

    config: JobConfig
    arguments: list[str]
    """What was typed, but for the output, the strategy and the policy: with these added it is the
    job to run."""
    decoders: dict[str, DecodingStrategy]
    """Strategy -> its fields as composed: the model's authors' where they are known."""
    caches: dict[str, CachePolicy]
    reference: DecodingStrategy
    typed: frozenset[str]
    """Fields of `decoding` and `cache` that were typed; the sweep leaves them alone."""
    note: str | None
    """What to say about settings that nobody has typed."""


def to_calibrate(
    argv: Sequence[str],
    decoders: Sequence[str] | None = None,
    caches: Sequence[str] | None = None,
) -> Calibrated | None:
    """The job, and of these strategies and policies (None: all) those that what was typed leaves
    open. None with flags such as --help, after showing what they ask for.

    Raises:
        UserError: the command line, or a file that it names, is wrong.
    """
    line = read_arguments(argv, CALIBRATE)
    if line.is_sweep:
        raise UserError(
            "-m: pipeline.calibrate sweeps by itself; leave it out, and narrow the sweep by "
            "--decoders A,B and --caches A,B"
        )
    if line.flags:
        compose_all(line, may_show=this_worker().is_first)
        return None
    with composing(line) as composer:
        (overrides,) = jobs_of(line)
        composed = compose_job(composer, line, 0, overrides)
        if composed.config.is_autoregressive:
            raise UserError(
                "engine=transformers: an autoregressive checkpoint has no decoding strategy or "
                "cache policy to calibrate; run it by pipeline.run, and compare the runs by "
                "pipeline.compare"
            )
        compose = _Compose(composer, line, overrides)
        config = composed.config
        typed = frozenset(key for key, _ in map(_pair, overrides) if key.startswith(SWEPT))
        return Calibrated(
            config=config,
            arguments=_kept(line, overrides),
            decoders=_open(compose, "decoding", config.decoding, typed, decoders),
            caches=_open(compose, "cache", config.cache, typed, caches),
            reference=_reference(compose),
            typed=typed,
            note=composed.note,
        )


def composed_again(argv: Sequence[str], output: str) -> JobConfig:
    """The job that pipeline.run makes of these arguments."""
    line = read_arguments([*argv, f"output={output}"])
    with composing(line) as composer:
        (overrides,) = jobs_of(line)
        return compose_job(composer, line, 0, overrides).config


SWEPT = ("decoding", "cache")
COMMON = {field.name for field in fields(DecodingStrategy)}
"""Fields that every strategy has."""


@dataclass(frozen=True, slots=True)
class _Compose:
    composer: Composer
    line: CommandLine
    overrides: list[str]

    def choice(self, group: str, name: str) -> Any:
        """This option as composed with the job, without what was typed of the other group."""
        (other,) = set(SWEPT) - {group}
        kept = [its for its in self.overrides if not _pair(its)[0].startswith(other)]
        # With no cache every strategy can be combined, and with this strategy every cache.
        neutral = {"cache": "none", "decoding": REFERENCE}[other]
        chosen = [*kept, f"{group}={name}", f"{other}={neutral}"]
        config = compose_job(self.composer, self.line, 0, chosen).config
        return getattr(config, group)


def _open(
    compose: _Compose, group: str, own: Any, typed: frozenset[str], wanted: Sequence[str] | None
) -> dict[str, Any]:
    """
    Raises:
        UserError: `wanted` names what does not exist, or what was typed excludes.
    """
    registry: Mapping[str, Any] = DECODERS if group == "decoding" else CACHE_POLICIES
    flag = {"decoding": "--decoders", "cache": "--caches"}[group]
    for name in wanted or ():
        if name not in registry:
            raise UserError(f"{flag} {name}: give some of {','.join(registry)}")
    fixed = {key for key in typed if key == group or _is_own_field(key, group)}
    if not fixed:
        return {name: compose.choice(group, name) for name in wanted or registry}
    name = next(its for its, cls in registry.items() if cls is type(own))
    if wanted not in (None, [name]):
        raise UserError(
            f"{flag} {','.join(wanted or ())} with {', '.join(sorted(fixed))} on the command line, "
            f"which means {group}={name}; give one of them"
        )
    return {name: own}


def _is_own_field(key: str, group: str) -> bool:
    section, _, name = key.partition(".")
    return section == group and bool(name) and name not in (COMMON if group == "decoding" else ())


def _kept(line: CommandLine, overrides: list[str]) -> list[str]:
    folder = [] if line.config_dir is None else [f"--config-dir={line.config_dir}"]
    keys = (_pair(its)[0] for its in overrides)
    is_kept = (key != "output" and not _is_choice(key, *SWEPT) for key in keys)
    return [*folder, *(its for its, keep in zip(overrides, is_kept, strict=True) if keep)]


def _reference(compose: _Compose) -> DecodingStrategy:
    """One token per iteration, with the typed fields that every strategy has."""
    common = [its for its in compose.overrides if not _is_choice(_pair(its)[0], "decoding")]
    chosen = _Compose(compose.composer, compose.line, common).choice("decoding", REFERENCE)
    reference: DecodingStrategy = replace(chosen, iterations_per_block=None)
    return reference


def _is_choice(key: str, *groups: str) -> bool:
    return any(key == group or _is_own_field(key, group) for group in groups)


def _pair(override: str) -> tuple[str, str]:
    key, _, value = override.partition("=")
    return key, value
