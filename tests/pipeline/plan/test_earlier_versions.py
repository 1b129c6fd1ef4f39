"""A run that an earlier version began goes on, without the settings that were not known then."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.plan.build import make_plan
from pipeline.plan.fingerprint import LATER_SETTINGS, check_same, differing
from pipeline.plan.run_json import Plan
from pipeline.run_folder.layout import RunFolder
from tests.checkpoints import job, write_parquet
from tests.pipeline.plan.plans import planned


def test_prompt_settings_that_change_nothing_are_not_in_the_fingerprint(
    checkpoint: Path, data: list[Path], tmp_path: Path
) -> None:
    """Runs of earlier versions did not know these fields, and go on."""
    plan = planned(job(checkpoint, data, tmp_path / "run"))
    new = {"prompt.tools_column", "prompt.keep", "prompt.optional_keys", "chat template file"}
    new |= {f"{section}.{name}" for section in ("generation", "columns") for name in LATER_SETTINGS}
    assert new.isdisjoint(plan.fingerprint)
    old = json.loads(plan.to_json())
    del old["kept_schema"], old["fingerprint"]["prompt.chat_template"]
    del old["fingerprint"]["decoding.suppress_eos"]
    before = Plan.from_json(json.dumps(old))
    again = make_plan(job(checkpoint, data, tmp_path / "run"), checkpoint, before)
    assert again.parts == plan.parts
    assert differing(before.fingerprint, plan.fingerprint) == []


@pytest.mark.parametrize(
    ("decoding", "field", "other"),
    [
        ("factor", "decoding.form", "code"),
        ("entropy_bound", "decoding.counts_own", True),
        ("fixed", "decoding.remainder", "spread"),
        ("threshold", "cache.refresh_every_iterations", 5),
        ("threshold", "decoding.iterations_per_block", 3),
    ],
    ids=str,
)
def test_a_run_begun_before_a_setting_existed_goes_on_without_it(
    checkpoint: Path,
    data: list[Path],
    tmp_path: Path,
    decoding: str,
    field: str,
    other: Any,
) -> None:
    def fields(**changes: Any) -> dict[str, Any]:
        made = job(checkpoint, data, tmp_path / "run", decoding={"name": decoding}, **changes)
        return planned(made).fingerprint

    before = {name: value for name, value in fields().items() if name != field}
    assert differing(before, fields()) == []
    assert differing(before, fields(**{field.replace(".", "__"): other})) == [field]


def test_a_run_begun_before_soft_iteration_had_a_scope_goes_on(
    checkpoint: Path, data: list[Path], tmp_path: Path
) -> None:
    def fields(**soft: Any) -> dict[str, Any]:
        made = job(checkpoint, data, tmp_path / "run", engine__soft={"enabled": True, **soft})
        return planned(made).fingerprint

    assert "scope" not in fields()["engine.soft"]
    assert differing(fields(), fields(scope="canvas")) == ["engine.soft"]


@pytest.mark.parametrize(("before", "now"), [(0, 0), (1, 0), (4, 3), (9, 8)])
def test_the_warm_up_of_an_earlier_version_goes_on_with_as_many_refreshes(
    checkpoint: Path, data: list[Path], tmp_path: Path, before: int, now: int
) -> None:
    """The present default has one refresh more than the earlier one, so it goes on with neither."""

    def fields(**changes: Any) -> dict[str, Any]:
        made = job(checkpoint, data, tmp_path / "run", cache__name="vicinity", **changes)
        return planned(made).fingerprint

    old = fields()
    del old["cache.warmup"]
    old["cache.warmup_iterations"] = before
    assert differing(old, fields(cache__warmup=now)) == []
    assert differing(old, fields()) == ["cache.warmup"]
    with pytest.raises(ValueError, match=rf"cache\.warmup: {now} there, 4 now"):
        check_same(old, fields(), RunFolder(tmp_path / "run"))


def test_a_run_that_did_not_know_a_settings_column_goes_on_without_it(
    checkpoint: Path, tmp_path: Path
) -> None:
    """Whatever the type of the column."""
    for top_k in (3, "three"):
        data = write_parquet(tmp_path / "in.parquet", [{"prompt": "x", "top_k": top_k}])
        config = job(checkpoint, data, tmp_path / "run")
        plan = planned(job(checkpoint, data, tmp_path / "run", columns__top_k=None))
        assert "columns.top_k" not in plan.fingerprint
        assert make_plan(config, checkpoint, plan).overrides == {}
        files = [replace(file, stamp=None) for file in plan.files]
        assert make_plan(config, checkpoint, replace(plan, files=files)).overrides == {}
    data = write_parquet(tmp_path / "in.parquet", [{"prompt": "x", "top_k": 3}])
    plan = planned(job(checkpoint, data, tmp_path / "run"))
    assert plan.fingerprint["columns.top_k"] == plan.overrides["top_k"] == "top_k"
    off = planned(job(checkpoint, data, tmp_path / "run", columns__top_k=None))
    assert differing(plan.fingerprint, off.fingerprint) == ["columns.top_k"]


def test_a_run_that_did_not_know_tools_goes_on_without_them(
    checkpoint: Path, tmp_path: Path
) -> None:
    data = write_parquet(tmp_path / "in.parquet", [{"prompt": "x", "tools": "[]"}])
    config = job(checkpoint, data, tmp_path / "run")
    plan = planned(config)
    assert plan.prompt_columns == ["prompt", "tools"]
    fields = {k: v for k, v in plan.fingerprint.items() if k != "prompt.tools_column"}
    before = replace(plan, prompt_columns=["prompt"], fingerprint=fields)
    assert make_plan(config, checkpoint, before).prompt_columns == ["prompt"]
    off = planned(job(checkpoint, data, tmp_path / "run", prompt__tools_column=None))
    assert off.prompt_columns == ["prompt"]
    assert differing(off.fingerprint, plan.fingerprint) == ["prompt.tools_column"]
