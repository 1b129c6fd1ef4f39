"""Plans for tests that need parts but no input."""

import pyarrow as pa

from pipeline.input.parts import Part
from pipeline.plan.run_json import Plan


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
