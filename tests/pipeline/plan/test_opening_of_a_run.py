"""engine.opening in a run's fingerprint: a run goes on with the opening that it was begun with."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.model.authors import AuthorsRules, Opening
from engine.model.load import read_config
from pipeline.plan.build import make_plan, pin
from pipeline.plan.run_json import Plan
from pipeline.run_folder.layout import RunFolder
from tests.checkpoints import job, prompts, write_parquet

PlanWith = Callable[[Opening | None], Plan]
LLADA: dict[str, Any] = {}
DREAM: dict[str, Any] = {"is_shifted": True, "rules": AuthorsRules(opening="alone")}
FAST_DLLM_V2: dict[str, Any] = {**DREAM, "block_length": 4}
AS_BEFORE = r"free \(of Fast_dLLM_v2: first\)"


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    made = RunFolder(tmp_path / "run")
    made.make()
    return made


@pytest.fixture
def plan_with(
    request: pytest.FixtureRequest,
    checkpoint: Path,
    folder: RunFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> PlanWith:
    """Plans of a job whose checkpoint is read as another kind of model."""
    model = replace(read_config(checkpoint), **request.param)
    monkeypatch.setattr("pipeline.plan.fingerprint.read_config", lambda _: model)
    data = write_parquet(tmp_path / "in.parquet", prompts(5))
    cache = "dual" if model.block_length is None else "none"

    def plan(opening: Opening | None) -> Plan:
        config = job(checkpoint, data, folder.path, cache__name=cache, engine__opening=opening)
        return make_plan(config, checkpoint)

    return plan


@pytest.mark.parametrize(
    ("plan_with", "begun", "resumed", "told"),
    [
        (LLADA, None, "alone", f"{AS_BEFORE} there, alone now"),
        (LLADA, "alone", None, f"alone there, {AS_BEFORE} now"),
        (DREAM, "free", None, f"{AS_BEFORE} there, alone now"),
        (DREAM, None, "free", f"alone there, {AS_BEFORE} now"),
        (FAST_DLLM_V2, "first", None, f"{AS_BEFORE} there, alone now"),
        (FAST_DLLM_V2, "first", "free", f"{AS_BEFORE} there, free now"),
        (FAST_DLLM_V2, "free", "alone", "free there, alone now"),
    ],
    indirect=["plan_with"],
)
def test_a_run_is_not_resumed_with_another_opening(
    plan_with: PlanWith,
    folder: RunFolder,
    begun: Opening | None,
    resumed: Opening | None,
    told: str,
) -> None:
    pin(plan_with(begun), folder)
    with pytest.raises(ValueError, match=rf"\n  engine\.opening: {told}\nGive another") as error:
        pin(plan_with(resumed), folder)
    assert len(str(error.value).splitlines()) == 3, "nothing else differs"
    pin(plan_with(begun), folder)


@pytest.mark.parametrize(
    ("plan_with", "opening"),
    [(LLADA, "free"), (DREAM, "alone"), (FAST_DLLM_V2, "alone")],
    indirect=["plan_with"],
)
def test_null_is_the_same_as_the_rule_that_it_stands_for(
    plan_with: PlanWith, folder: RunFolder, opening: Opening
) -> None:
    pin(plan_with(None), folder)
    pin(plan_with(opening), folder)


@pytest.mark.parametrize(
    ("plan_with", "before"),
    [(LLADA, "free"), (DREAM, "free"), (FAST_DLLM_V2, "first")],
    indirect=["plan_with"],
)
def test_a_run_of_an_earlier_version_goes_on_with_the_rule_of_that_version(
    plan_with: PlanWith, folder: RunFolder, before: Opening
) -> None:
    """Its fingerprint has no such field."""
    plan = plan_with(before)
    assert "engine.opening" not in plan.fingerprint
    pin(plan, folder)
    pin(plan_with(before), folder)
