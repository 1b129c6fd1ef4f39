"""The settings that a checkpoint runs with unless the user chooses others: its file in conf/model.

Hydra composes jobs from these files (`model=llada_8b`), and `engine.LLM` reads them here, so that a
notebook and a job run a checkpoint alike.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from engine.model.families import FAMILIES
from engine.model.load import fetch_config, read_config

PACKAGES = Path(__file__).resolve().parents[2]
"""The folder that holds engine/, pipeline/ and jobs/: a checkout, or site-packages."""
ROOT = "run.yaml"
PACKAGED = "${packaged:"
"""How a YAML names a file that comes with the packages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointDefaults:
    option: str
    """What `model=` calls it, and its file in conf/model."""
    path: str
    """A hub id, or the absolute path of a checkpoint that comes with the project."""
    dtype: str
    decoding: str
    """The file in conf/decoding with the strategy's settings."""
    authors: dict[str, dict[str, Any]]
    """Option of group decoding -> the fields of it that the model's authors set otherwise than
    conf/decoding (conf/authors/MODEL_DECODING.yaml)."""
    cache: str
    """The file in conf/cache."""
    engine: dict[str, Any]
    """Fields of EngineConfig that differ from conf/engine."""
    prompt: dict[str, Any]
    """Fields of the job's PromptConfig: `chat` is false for base models, `add_bos` true for those
    whose prompts begin with BOS."""


def conf_folder() -> Path:
    """conf/ of the checkout, or pipeline/conf of an installed wheel.

    Raises:
        FileNotFoundError: the installation is incomplete.
    """
    for folder in (PACKAGES / "pipeline" / "conf", PACKAGES / "conf"):
        if (folder / ROOT).is_file():
            return folder
    raise FileNotFoundError(
        f"no conf/{ROOT} in or beside {PACKAGES / 'pipeline'}: install the project again"
    )


def settings_in(group: str, option: str) -> dict[str, Any]:
    """The fields in conf/GROUP/OPTION.yaml."""
    settings: dict[str, Any] = yaml.safe_load(
        (conf_folder() / group / f"{option}.yaml").read_text()
    )
    return settings


def options_of(group: str) -> list[str]:
    """The names of the files in conf/GROUP."""
    return sorted(file.stem for file in (conf_folder() / group).glob("*.yaml"))


@cache
def all_defaults() -> dict[str, CheckpointDefaults]:
    """By the name of the file in conf/model."""
    return {option: _read(option) for option in options_of("model")}


def defaults_for(path: str, family: str) -> CheckpointDefaults:
    """The defaults of the checkpoint at `path` (a hub id or a folder): those of the same published
    checkpoint, recognised by its hub id or folder name; otherwise those of its family."""
    return _published_at(path) or all_defaults()[FAMILIES[family].DEFAULTS]


def defaults_at(path: str, revision: str | None = None) -> CheckpointDefaults:
    """As `defaults_for`, with the family that the checkpoint's config.json states. Only that file
    is read, or fetched from the hub, and for a published checkpoint not even that.

    Raises:
        UserError: there is no such checkpoint, or its family is not supported.
    """
    published = _published_at(path)
    return published or defaults_for(path, read_config(fetch_config(path, revision)).family)


def _published_at(path: str) -> CheckpointDefaults | None:
    return next((its for its in all_defaults().values() if _is_same(path, its.path)), None)


def _is_same(path: str, published: str) -> bool:
    if path == published:
        return True
    if Path(published).is_absolute():
        return Path(path).resolve() == Path(published)
    folder = Path(path).resolve()
    if folder.name == published.split("/")[-1]:
        return True
    # The hub's cache: models--GSAI-ML--LLaDA-8B-Base/snapshots/COMMIT.
    return len(folder.parts) > 3 and folder.parts[-3] == "models--" + published.replace("/", "--")


def _read(option: str) -> CheckpointDefaults:
    raw = settings_in("model", option)
    chosen = {key: value for entry in raw.pop("defaults") for key, value in entry.items()}
    model, engine, prompt = (raw.pop(section, {}) for section in ("model", "engine", "prompt"))
    assert not raw, f"conf/model/{option}.yaml sets {', '.join(raw)}, which nobody reads here"
    path = model["path"]
    if path.startswith(PACKAGED):
        path = str(PACKAGES / path.removeprefix(PACKAGED).rstrip("}"))
    return CheckpointDefaults(
        option=option,
        path=path,
        dtype=model["dtype"],
        decoding=chosen["override /decoding"],
        authors=_authors(option),
        cache=chosen["override /cache"],
        engine=engine,
        prompt=prompt,
    )


def _authors(option: str) -> dict[str, dict[str, Any]]:
    names = {decoding: f"{option}_{decoding}" for decoding in options_of("decoding")}
    files = options_of("authors")
    return {key: settings_in("authors", name) for key, name in names.items() if name in files}
