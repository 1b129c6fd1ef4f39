"""A checkpoint has the same defaults in a notebook (engine.LLM) as in a job (`model=NAME`)."""

from pathlib import Path

import pytest

from engine.cache import CACHE_POLICIES
from engine.config import EngineConfig
from engine.decoding import DECODERS
from engine.from_dict import from_dict
from engine.llm_arguments import component
from engine.model.defaults import all_defaults, defaults_for, options_of, settings_in
from engine.model.families import FAMILIES
from pipeline.config.job import JobConfig
from tests.launched import composed

OPTIONS = sorted(all_defaults())
MODES = ("quality", "speed")


def job(option: str, *overrides: str) -> JobConfig:
    return composed(f"model={option}", "data.path=x", "output=y", *overrides)


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("engine", ["default", "gpu"])
def test_defaults_are_what_hydra_composes(option: str, engine: str) -> None:
    defaults, config = all_defaults()[option], job(option, f"engine={engine}")
    assert defaults.path == config.model.path
    assert defaults.dtype == config.model.dtype
    its = component("decoding", DECODERS, defaults.decoding, defaults.authors)
    assert its == config.decoding
    assert component("cache", CACHE_POLICIES, defaults.cache) == config.cache
    settings = settings_in("engine", engine) | defaults.engine
    assert from_dict(EngineConfig, settings, "") == config.engine
    prompt = {"chat": config.prompt.chat, "add_bos": config.prompt.add_bos}
    assert prompt == {"chat": True, "add_bos": None} | defaults.prompt


def test_a_published_checkpoint_is_known_by_its_hub_id_its_folder_and_the_hubs_cache(
    tmp_path: Path,
) -> None:
    for path in (
        "GSAI-ML/LLaDA-8B-Base",
        str(tmp_path / "LLaDA-8B-Base"),
        str(tmp_path / "models--GSAI-ML--LLaDA-8B-Base" / "snapshots" / "0a1b2c"),
    ):
        assert defaults_for(path, "llada").option == "llada_8b_base"
    assert defaults_for(all_defaults()["demo"].path, "llada").option == "demo"


@pytest.mark.parametrize("family", FAMILIES)
def test_any_other_checkpoint_takes_its_familys_defaults(family: str, tmp_path: Path) -> None:
    for path in ("someone/fine-tuned", str(tmp_path / "model"), str(tmp_path / "Base")):
        assert defaults_for(path, family).option == FAMILIES[family].DEFAULTS


@pytest.mark.parametrize("decoding", options_of("decoding"))
def test_a_models_own_values_of_a_strategy_are_taken_in_jobs_and_notebooks(decoding: str) -> None:
    """Below what is typed, and without breaking any other strategy."""
    assert "threshold" in all_defaults()["sdar_8b"].authors
    for option in ("sdar_8b", "llada2_1_mini", "llada_8b"):
        authors = all_defaults()[option].authors
        its = component("decoding", DECODERS, decoding, authors)
        assert its == job(option, f"decoding={decoding}").decoding
        plain = component("decoding", DECODERS, decoding)
        assert (its == plain) == (decoding not in authors)


def test_what_is_typed_stands_above_what_the_authors_set() -> None:
    assert job("sdar_8b").decoding == DECODERS["threshold"](threshold=0.95)  # type: ignore[call-arg]
    typed = job("sdar_8b", "decoding.threshold=0.8").decoding
    chosen = {"name": "threshold", "threshold": 0.8}
    assert typed == component("decoding", DECODERS, chosen, all_defaults()["sdar_8b"].authors)
    assert typed == DECODERS["threshold"](threshold=0.8)  # type: ignore[call-arg]


def test_llada2_1s_modes_have_names() -> None:
    quality, speed = (component("decoding", DECODERS, f"edit_{mode}") for mode in MODES)
    assert (quality.threshold, quality.edit_threshold) == (0.7, 0.5)
    assert (speed.threshold, speed.edit_threshold) == (0.5, 0.0)
    assert job("llada2_1_mini", "decoding=edit_speed").decoding == speed
    assert job("llada2_1_mini").decoding == quality


def test_every_file_of_the_authors_belongs_to_a_model_and_a_strategy() -> None:
    found = [f"{name}_{key}" for name, its in all_defaults().items() for key in its.authors]
    assert sorted(found) == options_of("authors")
