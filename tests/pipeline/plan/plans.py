"""Plans for tests: of a job, and of parts without any input."""

from pathlib import Path

import pyarrow as pa

from pipeline.config.job import JobConfig
from pipeline.input.parts import Part
from pipeline.plan.build import make_plan
from pipeline.plan.run_json import Plan


def planned(config: JobConfig) -> Plan:
    """The plan of a job whose model is a folder."""
    return make_plan(config, Path(config.model.path))


def plan_of(parts: list[Part]) -> Plan:
    return Plan(
        files=[],
        parts=parts,
        prompt_columns=[],
        read_schema=pa.schema([]),
        carried=[],
        overrides={},
        model_path="",
        model_revision=None,
        fingerprint={},
    )
