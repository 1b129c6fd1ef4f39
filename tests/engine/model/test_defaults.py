"""A checkpoint has the same defaults in a notebook (engine.LLM) as in a job (`model=NAME`)."""

from pathlib import Path

import pytest

from engine.cache import CACHE_POLICIES
from engine.config import EngineConfig
from engine.decoding import DECODERS
from engine.from_dict import from_dict
from engine.llm_arguments import component
from engine.model.defaults import all_defaults, defaults_for, settings_in
from engine.model.families import FAMILIES
from pipeline.config.job import JobConfig
from tests.launched import composed

OPTIONS = sorted(all_defaults())


def job(option: str, *overrides: str) -> JobConfig:
    return composed(f"model={option}", "data.path=x", "output=y", *overrides)


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("engine", ["default", "gpu"])
def test_defaults_are_what_hydra_composes(option: str, engine: str) -> None:
    defaults, config = all_defaults()[option], job(option, f"engine={engine}")
    assert defaults.path == config.model.path
    assert defaults.dtype == config.model.dtype
    assert component("decoding", DECODERS, defaults.decoding) == config.decoding
    assert component("cache", CACHE_POLICIES, defaults.cache) == config.cache
    settings = settings_in("engine", engine) | defaults.engine
    assert from_dict(EngineConfig, settings, "") == config.engine
    assert {"chat": config.prompt.chat} == {"chat": True} | defaults.prompt


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
