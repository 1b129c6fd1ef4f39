"""The examples of docs/extending.md, extracted from the page, run."""

import re
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import yaml

from engine.engine import DiffusionEngine
from engine.model.families import FAMILIES, MODEL_TYPES, config_of
from pipeline.config.job import COMPONENTS, job_config
from pipeline.tasks.base import Task
from pipeline.tasks.sandbox import Limits, run_program
from tests.published_configs import CONFIGS
from tests.tiny import mixed_requests, tiny_model

PAGE = Path(__file__).parent.parent.parent / "docs" / "extending.md"
SECTIONS = {"decoding": "## A decoding strategy", "cache": "## A cache policy"}
FAMILY, TASK = "## A model family", "## A task"


def examples(section: str) -> tuple[str, str, dict[str, Any]]:
    """The file, the registry line and the YAML that the page shows."""
    file, line, settings = code_in(SECTIONS[section])
    return file, line, yaml.safe_load(settings)


def code_in(heading: str) -> list[str]:
    text = PAGE.read_text().split(heading)[1].split("\n## ")[0]
    return re.findall(r"```(?:python|yaml)\n(.*?)```", text, re.DOTALL)


def raw_job(**components: dict[str, Any]) -> dict[str, Any]:
    """A job's settings as plain dicts, with these components in place of the usual ones."""
    return {
        "data": {"path": "prompts.parquet"},
        "columns": {},
        "prompt": {},
        "generation": {},
        "model": {"path": "somewhere"},
        "decoding": {"name": "threshold"},
        "cache": {"name": "dual"},
        "engine": {"block_length": 8},
        "output": "runs/x",
        **components,
    }


@pytest.mark.parametrize("section", SECTIONS)
def test_an_example_runs(section: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file, line, settings = examples(section)
    names: dict[str, Any] = {"__name__": "example"}
    exec(file, names)
    registry: dict[str, Any] = dict(COMPONENTS[section])
    monkeypatch.setitem(COMPONENTS, section, registry)
    exec(line, {**names, "DECODERS": registry, "CACHE_POLICIES": registry})
    config = job_config(raw_job(**{section: settings}))
    with pytest.raises(ValueError, match="no such field"):
        job_config(raw_job(**{section: {**settings, "cuont": 2}}))
    engine = DiffusionEngine(
        tiny_model(), config=config.engine, decoding=config.decoding, cache=config.cache
    )
    requests = mixed_requests(8)
    results = {result.request_id: result for result in engine.results(requests)}
    assert len(results) == 8
    if section == "decoding":
        for result in results.values():
            region = requests[result.request_id].max_new_tokens
            halves = (-(-min(8, region - start) // 2) for start in range(0, region, 8))
            assert result.num_iterations <= sum(halves)
    else:
        assert all(
            result.num_refreshes == -(-result.num_iterations // 2) for result in results.values()
        )


def test_the_family_reads_a_published_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    (file,) = code_in(FAMILY)
    family = ModuleType("example")
    exec(file, vars(family))
    monkeypatch.setitem(FAMILIES, "example", family)
    monkeypatch.setitem(MODEL_TYPES, "Example", "example")
    raw = {**CONFIGS["dream"], "model_type": "Example", "mask_token_id": 5, "eos_token_id": 6}
    model = config_of(raw, "someone/example")
    assert (model.family, model.qkv_bias, model.is_shifted) == ("example", True, False)
    assert (model.mask_token_id, model.eos_token_ids[0]) == (5, 6)
    with pytest.raises(ValueError, match="attention_bias"):
        config_of({**raw, "attention_bias": False}, "someone/example")


def test_the_task_scores() -> None:
    file, line = code_in(TASK)
    names: dict[str, Any] = {"__name__": "example"}
    exec(file, names)
    tasks: dict[str, Task] = {}
    exec(line, {"TASKS": tasks, "arithmetic": SimpleNamespace(**names)})
    program = tasks["arithmetic"].program
    for text, passes in ((" 42\n", True), ("41", False), ("many", False)):
        assert run_program(program({"answer": 42}, text), Limits()).passed == passes
