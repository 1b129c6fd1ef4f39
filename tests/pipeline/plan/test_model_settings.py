"""The model's context, its family's chat template and the BOS are part of a run's fingerprint where
they are not as earlier versions had them: such a run is refused with words, and none is mixed."""

import json
from pathlib import Path
from typing import Any

import pytest

from engine.errors import UserError
from pipeline.plan.build import make_plan
from pipeline.plan.fingerprint import FAMILY_TEMPLATE, check_same, differing
from pipeline.run_folder.layout import RunFolder
from tests.checkpoints import job, prompts, write_parquet
from tests.published import write_tokenizer
from tests.published_configs import CONFIGS

BLOCK_CAUSAL = {"cache": {"name": "block_causal"}, "engine": {}}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_parquet(tmp_path / "in.parquet", prompts(3))


def fields(checkpoint: Path, data: Path, **changes: Any) -> dict[str, Any]:
    return make_plan(job(checkpoint, data, data.parent / "run", **changes), checkpoint).fingerprint


def published(folder: Path, layout: str) -> Path:
    """A checkpoint without weights and without a chat template of its own."""
    write_tokenizer(folder, layout)
    (folder / "config.json").write_text(json.dumps(CONFIGS[layout]))
    return folder


def test_the_context_counts_where_it_is_not_what_config_json_states(
    checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    assert "model.max_positions" not in fields(checkpoint, data)
    assert "model.max_positions" not in fields(checkpoint, data, model__max_positions=256)
    assert fields(checkpoint, data, model__max_positions=100)["model.max_positions"] == 100
    dream = published(tmp_path / "dream", "dream")
    now = fields(dream, data)
    assert now["model.max_positions"] == 2048
    before = {name: value for name, value in now.items() if name != "model.max_positions"}
    with pytest.raises(UserError, match=r"model\.max_positions: not set there, 2048 now"):
        check_same(before, now, RunFolder(tmp_path / "run"))
    assert differing(before, fields(dream, data, model__max_positions=131072)) == []


@pytest.mark.parametrize("layout", ["llada", "llada2", "dream", "fast_dllm_v2", "sdar"])
def test_a_familys_template_that_has_changed_counts_where_prompts_go_through_it(
    data: Path, tmp_path: Path, layout: str
) -> None:
    folder = published(tmp_path / layout, layout)
    changes = {} if CONFIGS[layout]["model_type"] in ("llada", "Dream") else BLOCK_CAUSAL
    assert len(fields(folder, data, **changes)[FAMILY_TEMPLATE]) == 16
    assert FAMILY_TEMPLATE not in fields(folder, data, prompt__chat=False, **changes)
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}")
    assert FAMILY_TEMPLATE not in fields(folder, data, **changes)


def test_a_familys_template_counts_for_messages_too(tmp_path: Path) -> None:
    rows = [{"messages": [{"role": "user", "content": "hi"}]}]
    data = write_parquet(tmp_path / "in.parquet", rows)
    folder = published(tmp_path / "dream", "dream")
    assert FAMILY_TEMPLATE in fields(folder, data, prompt__chat=False)


def test_a_template_that_has_not_changed_does_not_count(
    checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    assert FAMILY_TEMPLATE not in fields(published(tmp_path / "moe", "llada_moe"), data)
    assert FAMILY_TEMPLATE not in fields(checkpoint, data), "it has one of its own"


def test_the_bos_counts_where_it_is_set(checkpoint: Path, data: Path) -> None:
    plain = fields(checkpoint, data)
    assert "prompt.add_bos" not in plain
    for add_bos in (True, False):
        other = fields(checkpoint, data, prompt__chat=False, prompt__add_bos=add_bos)
        assert other["prompt.add_bos"] is add_bos
        assert differing(plain, other) == ["prompt.chat", "prompt.add_bos"]
