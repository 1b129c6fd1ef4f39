"""Every invalid config is refused with the field, its value and what to do."""

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from engine.cache.dual import DualCache
from engine.decoding.threshold import Threshold
from engine.model.defaults import conf_folder
from engine.soft import SoftIteration
from pipeline.config.job import COMPONENTS, SECTIONS, as_dict, job_config


def raw(**changes: Any) -> dict[str, Any]:
    """A valid config as plain dicts, with `changes` given as {"section.field": value}."""
    config: dict[str, Any] = {
        "data": {"path": "x.parquet"},
        "prompt": {},
        "generation": {},
        "columns": {},
        "model": {"path": "m"},
        "decoding": {"name": "threshold"},
        "cache": {"name": "dual"},
        "engine": {},
        "output": "runs/x",
    }
    for name, value in changes.items():
        section, _, field = name.partition(".")
        if field:
            config[section][field] = value
        else:
            config[section] = value
    return config


def test_a_components_name_selects_its_dataclass_and_fields() -> None:
    config = job_config(raw(**{"decoding.threshold": 0.7}))
    assert config.decoding == Threshold(threshold=0.7)
    assert config.cache == DualCache()
    assert config.engine.max_sequences == 32


def test_a_nested_section() -> None:
    config = job_config(raw(**{"engine.soft": {"enabled": True, "top_k": 4}}))
    assert config.engine.soft == SoftIteration(enabled=True, top_k=4)
    assert as_dict(config)["engine"]["soft"]["top_k"] == 4
    with pytest.raises(
        ValueError, match=r"engine\.soft\.k=4: no such field; engine\.soft has enabled"
    ):
        job_config(raw(**{"engine.soft": {"k": 4}}))
    with pytest.raises(ValueError, match=r"engine\.soft=3: give a section"):
        job_config(raw(**{"engine.soft": 3}))


def test_incompatible_components_are_refused() -> None:
    with pytest.raises(ValueError, match=r"decoding=edit with cache=dkv: .* take another cache"):
        job_config(raw(decoding={"name": "edit"}, cache={"name": "dkv"}))


def test_expert_parallel_needs_several_ranks() -> None:
    with pytest.raises(
        ValueError, match=r"expert_parallel=true with engine\.tensor_parallel=1: .* set engine\.ten"
    ):
        job_config(raw(**{"engine.expert_parallel": True}))
    engine = {"tensor_parallel": 2, "expert_parallel": True}
    assert job_config(raw(engine=engine)).engine.expert_parallel


def test_job_config_of_as_dict_is_the_same_job() -> None:
    config = job_config(raw(seed=3, **{"data.path": ["a", "b"], "prompt.system": "be brief"}))
    assert job_config(as_dict(config)) == config


def test_a_whole_number_is_accepted_for_a_float_or_text_field() -> None:
    config = job_config(raw(output=7, **{"generation.temperature": 1}))
    assert (config.output, config.generation.temperature) == ("7", 1.0)


WRONG = {
    "data.path": ("", "give a file"),
    "data.limit": (0, "at least 1"),
    "data.part_rows": (0, "at least 1"),
    "data.carry": ("id", "a list or null"),
    "prompt.column": ("", "name of a column"),
    "prompt.template": ("no place", "{prompt}"),
    "prompt.chat": ("perhaps", "true or false"),
    "generation.max_new_tokens": (0, "at least 1"),
    "generation.temperature": (-0.1, "greedy"),
    "generation.num_samples": (2, "temperature above 0"),
    "generation.top_k": (0, "at least 1, or null"),
    "generation.top_p": (0, "a probability above 0 and at most 1, or null"),
    "generation.confidence": ("sure", "raw, filtered, or null"),
    "generation.guidance": (-1.0, "0 (none)"),
    "generation.stop": (["a", ""], "not empty"),
    "columns.stop": ("", "name of a column, or null"),
    "columns.seed": ("", "name of a column, or null"),
    "columns.temperature": (True, "text or null"),
    "model.path": ("", "a name on the hub"),
    "model.dtype": ("int8", "float32, bfloat16, float16"),
    "engine.block_length": (0, "at least 1"),
    "engine.max_sequences": (1.5, "a whole number"),
    "engine.tensor_parallel": (0, "at least 1"),
    "engine.expert_parallel": ("yes", "true or false"),
    "decoding.threshold": (1.5, "at most 1"),
    "decoding.name": ("best", "fixed, hierarchical"),
    "cache.name": (None, "dual, none"),
    "output": ("", "run folder"),
    "threads": (0, "at least 1"),
    "task": ("humanevil", "functions, humaneval"),
    "max_failed_fraction": (1.01, "0 to 1"),
    "progress_every_s": (0, "above 0"),
    "seed": (True, "a whole number"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_field_out_of_range_is_refused_with_field_value_and_remedy(name: str) -> None:
    value, remedy = WRONG[name]
    with pytest.raises(ValueError, match=re.escape(remedy)) as error:
        job_config(raw(**{name: value}))
    message = str(error.value)
    assert name in message
    assert str(value) in message


@pytest.mark.parametrize(
    ("name", "listed"),
    [
        ("data.limt", "path, where, limit, id_column, carry, part_rows"),
        ("decoding.treshold", "threshold"),
        ("cache.size", "no fields"),
        ("engine.blocks", "block_length"),
        ("outputs", "output, seed, task"),
    ],
)
def test_an_unknown_field_is_refused_with_a_list_of_the_known_ones(name: str, listed: str) -> None:
    with pytest.raises(ValueError, match="no such field") as error:
        job_config(raw(cache={"name": "none"}, **{name: 5}))
    assert f"{name}=5" in str(error.value)
    assert listed in str(error.value)


def test_a_system_prompt_needs_the_chat_template() -> None:
    with pytest.raises(ValueError, match=r"prompt\.system='x' with prompt\.chat=false"):
        job_config(raw(**{"prompt.system": "x", "prompt.chat": False}))


def test_a_mapping_of_names() -> None:
    assert job_config(raw()).data.rename is None
    assert job_config(raw(**{"data.rename": {"a": "b"}})).data.rename == {"a": "b"}
    for wrong in ("a", ["a"], {"a": ["b"]}):
        with pytest.raises(ValueError, match=r"data\.rename=.*: give a mapping, \{NAME: VALUE\}"):
            job_config(raw(**{"data.rename": wrong}))
    with pytest.raises(ValueError, match=r"data\.rename: 'a' gets the name ''"):
        job_config(raw(**{"data.rename": {"a": ""}}))


def test_a_missing_field_is_named() -> None:
    config = raw()
    del config["model"]["path"]
    with pytest.raises(ValueError, match=r"model\.path is missing"):
        job_config(config)


FILES_OF_GROUPS = [
    its
    for its in conf_folder().glob("*/*.yaml")
    if its.parent.name not in ("slurm", "authors", "settings")
]


@pytest.mark.parametrize("file", sorted(FILES_OF_GROUPS), ids=lambda f: f.stem)
def test_the_yaml_of_a_group_lists_exactly_the_fields_of_its_dataclass(file: Path) -> None:
    """So Hydra knows every field, and nobody can forget to add a new one to the yaml."""
    listed, group = yaml.safe_load(file.read_text()), file.parent.name
    if group in COMPONENTS:
        name = listed.pop("name")
        cls = COMPONENTS[group][name]
        assert file.stem == name or file.stem.startswith(f"{name}_"), (
            "NAME.yaml or NAME_SETTING.yaml"
        )
    else:
        cls = SECTIONS[group]
    if group == "model":  # its file chooses other groups and sets fields of theirs too
        assert set(listed) <= {"defaults", "model", "engine", "prompt"}
        listed = listed["model"]
    assert set(listed) == {field.name for field in fields(cls)}


def test_a_share_and_what_goes_with_it() -> None:
    assert job_config(raw(share="3/4")).share == "3/4"
    for text in ("4/4", "a", "", "1/0"):
        with pytest.raises(ValueError, match=rf"share={text}: .*give "):
            job_config(raw(share=text))
    with pytest.raises(ValueError, match=r"share=0/4 with data\.part_minutes=5: .*give data\.part"):
        job_config(raw(share="0/4", **{"data.part_minutes": 5.0}))
