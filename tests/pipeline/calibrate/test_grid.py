"""Which settings a command line leaves open, and which of them a model can run."""

from pathlib import Path

import pytest

from engine.cache import CACHE_POLICIES
from engine.decoding import DECODERS
from engine.errors import UserError
from engine.model.load import read_config
from pipeline.calibrate.grid import DECODER_SETTINGS, Point, points_of, reference_of, told_fields
from pipeline.launch.to_calibrate import Calibrated, composed_again, to_calibrate


def asked_for(*args: str, **lists: list[str]) -> Calibrated:
    asked = to_calibrate(["conf=demo", *args], **lists)
    assert asked is not None
    return asked


def points(asked: Calibrated, named: bool = False) -> list[Point]:
    return points_of(asked, read_config(Path(asked.config.model.path)), named)


def test_every_strategy_has_settings_that_its_dataclass_takes() -> None:
    assert DECODER_SETTINGS.keys() == DECODERS.keys()
    for name, settings in DECODER_SETTINGS.items():
        made = [DECODERS[name](**its) for its in settings]
        assert len(set(made)) == len(made)


def test_nothing_typed_sweeps_all() -> None:
    asked = asked_for()
    found = points(asked)
    assert {point.cache_name for point in found} == CACHE_POLICIES.keys() - {"block_causal"}
    assert {point.decoding_name for point in found} == DECODERS.keys() - {"edit", "dream"}
    assert len({point.name for point in found}) == len(found)
    reference = reference_of(asked, read_config(Path(asked.config.model.path)))
    assert reference.name == "cache=none,decoding=fixed"
    assert reference.name not in [point.name for point in found]


def test_a_block_causal_model_has_an_exact_reference() -> None:
    asked = asked_for("model=demo_block")
    reference = reference_of(asked, read_config(Path(asked.config.model.path)))
    assert reference.name == "cache=block_causal,decoding=fixed"
    assert {point.cache_name for point in points(asked)} == {"none", "block_causal"}


def test_what_is_typed_is_kept() -> None:
    asked = asked_for("cache=dual", "decoding=threshold", "generation.max_new_tokens=64")
    assert [point.name for point in points(asked)] == [
        f"cache=dual,decoding=threshold,threshold={value}" for value in (0.8, 0.9, 0.97)
    ]
    asked = asked_for("cache=dual", "decoding.threshold=0.85")
    (point,) = points(asked)
    assert point.decoding == DECODERS["threshold"](threshold=0.85)  # type: ignore[call-arg]
    asked = asked_for("decoding.suppress_eos=logits", "cache.refresh_every_iterations=4")
    assert {its.decoding.suppress_eos for its in points(asked)} == {"logits"}
    assert {its.cache_name for its in points(asked)} == {"dual"}
    assert asked.reference.suppress_eos == "logits"


def test_the_authors_settings_are_kept() -> None:
    asked = to_calibrate(["model=llada2_mini", "data.path=x", "output=y"])
    assert asked is not None
    assert asked.decoders["threshold"] == DECODERS["threshold"](threshold=0.95)  # type: ignore[call-arg]
    assert asked.arguments == ["model=llada2_mini", "data.path=x"]


def test_lists_narrow_the_sweep() -> None:
    asked = asked_for(decoders=["edit", "factor"], caches=["dual", "dkv"])
    found = {(point.cache_name, point.decoding_name) for point in points(asked, named=True)}
    assert found == {("dual", "edit"), ("dual", "factor"), ("dkv", "factor")}, "dkv serves no edits"


@pytest.mark.parametrize(
    ("args", "lists", "why"),
    [
        ([], {"decoders": ["thresh"]}, "--decoders thresh: give some of fixed,threshold"),
        (["cache=dual"], {"caches": ["dkv"]}, "--caches dkv with cache on the command line"),
        (["-m"], {}, "sweeps by itself"),
        (["decoding.nothing=1"], {}, "no such field"),
        (["cache=block_causal"], {}, "no combination that this model"),
        (["decoding=edit", "cache=dkv"], {}, "the policy no longer recomputes them"),
    ],
)
def test_what_is_refused(args: list[str], lists: dict[str, list[str]], why: str) -> None:
    with pytest.raises(UserError, match=why):
        points(asked_for(*args, **lists))


@pytest.mark.parametrize(
    "args",
    [
        ["conf=demo"],
        ["conf=demo", "model=demo_block", "decoding.suppress_eos=logits"],
        ["model=llada2_mini", "data.path=it's [a] file.parquet", "output=y"],
    ],
)
def test_the_printed_command_gives_the_point(args: list[str]) -> None:
    asked = to_calibrate(args)
    assert asked is not None
    block_causal = asked.config.engine.block_length is None and "demo" not in args[0]
    folder = (
        asked.config.model.path
        if not block_causal
        else asked_for("model=demo_block").config.model.path
    )
    for point in points_of(asked, read_config(Path(folder)))[::19]:
        arguments = [*asked.arguments, *point.overrides]
        arguments += told_fields(point, composed_again(arguments, "out"))
        config = composed_again(arguments, "out")
        assert (config.cache, config.decoding) == (point.cache, point.decoding)
        assert config.data == asked.config.data
        assert config.generation == asked.config.generation
