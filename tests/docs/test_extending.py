"""The examples of docs/extending.md, taken from the page itself, run."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from engine.engine import DiffusionEngine
from pipeline.config.job import COMPONENTS, job_config
from tests.tiny import mixed_requests, tiny_model

PAGE = Path(__file__).parent.parent.parent / "docs" / "extending.md"
SECTIONS = {"decoding": "## A decoding strategy", "cache": "## A cache policy"}


def examples(section: str) -> tuple[str, str, dict[str, Any]]:
    """The file, the registry line and the YAML that the page shows."""
    text = PAGE.read_text().split(SECTIONS[section])[1].split("\n## ")[0]
    file, line, settings = re.findall(r"```(?:python|yaml)\n(.*?)```", text, re.DOTALL)
    return file, line, yaml.safe_load(settings)


def raw_job(**components: dict[str, Any]) -> dict[str, Any]:
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
