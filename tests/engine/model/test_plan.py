"""`python -m engine.model.plan` prints the right table and advice, and refuses wrong arguments."""

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from engine.model.plan.__main__ import main
from engine.model.plan.arguments import Arguments
from engine.model.plan.published import PUBLISHED
from tests.tiny import write_tiny_checkpoint, write_tiny_llada2_checkpoint

CONF = Path(__file__).parents[3] / "conf"


def rows_of(out: str) -> dict[str, list[str]]:
    """The printed table: layout -> the other cells of its row, split at two or more spaces."""
    found = re.findall(r"^ +(\d+ x \d+)  +(.*)$", out, re.MULTILINE)
    return {layout: re.split(r"  +", rest) for layout, rest in found}


def test_the_figures_of_llada_8b_equal_a_calculation_by_hand(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["model=llada_8b", "gpus=2", "gpu_memory_gb=80"]) == 0
    out = capsys.readouterr().out
    layer = 4 * 4096 * 4096 + 3 * 4096 * 12288 + 2 * 4096
    weights = 2 * (2 * 126464 * 4096 + 32 * layer + 4096)
    position = 2 * 32 * 32 * 128 * 2  # K and V, layers, heads, head size, bytes of a bfloat16
    sequences = int(0.8 * (80 * 10**9 - weights)) // (16 * position) // (1024 // 16)
    assert (weights, 1024 * position, sequences) == (16031162368, 536870912, 95)
    row = rows_of(out)["2 x 1"]
    assert row[:3] == ["16.03 GB", "0.54 GB", "2.15 GB"]
    assert row[4:] == ["0.80", "95", "190"]
    assert "llada_8b (GSAI-ML/LLaDA-8B-Instruct): 8.02 billion parameters in bfloat16" in out
    assert (
        "smallest groups  engine=gpu engine.tensor_parallel=1 engine.max_sequences=95 "
        "engine.memory_fraction=0.8\n"
    ) in out


def test_flash_needs_groups_of_four(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model=llada2_flash", "gpus=8", "gpu_memory_gb=80"]) == 0
    out = capsys.readouterr().out
    rows = rows_of(out)
    assert list(rows) == ["8 x 1", "4 x 2", "2 x 4", "1 x 8"]
    assert rows["8 x 1"][-1] == "refused: the weights take 206.04 GB"
    assert rows["4 x 2"][-1] == "refused: the weights take 103.83 GB"
    assert rows["2 x 4"][1] == rows["1 x 8"][1] == "16.8 MB"  # four K/V heads: none is split
    assert float(rows["2 x 4"][4]) < 0.8
    assert "engine.tensor_parallel=4" in out


def test_if_nothing_fits_it_says_what_would(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model=llada2_flash", "gpus=1", "gpu_memory_gb=80"]) == 1
    out = capsys.readouterr().out
    assert rows_of(out)["1 x 1"][-1] == "refused: the weights take 206.04 GB"
    assert "  GPUs of 80 GB, in groups of 4" in out
    needed = re.search(r"GPUs of (\d+) GB, each alone", out)
    assert needed is not None
    assert main(["model=llada2_flash", f"gpu_memory_gb={needed[1]}"]) == 0
    assert main(["model=llada2_flash", f"gpu_memory_gb={int(needed[1]) - 1}"]) == 1
    assert main(["model=llada2_flash", "gpus=4", "gpu_memory_gb=80"]) == 0


def test_smaller_settings_are_suggested_if_they_are_enough(
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["model=dream", "gpu_memory_gb=17"]
    assert main(arguments) == 1
    out = capsys.readouterr().out
    assert "the weights leave 1.77 GB, logits and activations need" in out
    settings = re.search(r"GPUs of 17 GB, each alone, with (\S+) (\S+)", out)
    assert settings is not None
    assert main([*arguments, *settings.groups()]) == 0


def test_group_sizes_that_the_heads_do_not_allow_are_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["model=llada2_mini", "gpus=6", "gpu_memory_gb=80"]) == 0
    out = capsys.readouterr().out
    assert list(rows_of(out)) == ["6 x 1", "3 x 2"]
    assert "not listed: groups of 3, 6: 16 query heads and 4 K/V heads cannot" in out


def test_whole_experts_have_their_own_row_if_their_footprint_differs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tiny_llada2_checkpoint(tmp_path)
    sizes = ["prompt_tokens=20", "max_new_tokens=20", "gpu_memory_gb=2", "gpus=2"]
    assert main([f"model={tmp_path}", *sizes]) == 0
    out = capsys.readouterr().out
    assert re.findall(r"(\d x \d).*\(whole experts\)", out) == ["1 x 2"]
    assert "a canvas of 40 tokens, 3 pages" in out


def test_canvases_are_rounded_up_to_whole_blocks(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model=sdar_4b", "gpu_memory_gb=40", "canvas_tokens=70"]) == 0
    assert "a canvas of 72 tokens, 5 pages" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("model=llada_9b gpu_memory_gb=80", r"model=llada_9b is neither .* one of llada_8b, .*"),
        (
            "model=llada_8b gpu_memory=80",
            "gpu_memory=80 is not an argument: .* model=, gpu_memory_gb=",
        ),
        ("model=llada_8b 80", "80 is not an argument"),
        ("model=llada_8b", "gpu_memory_gb= is missing"),
        ("gpu_memory_gb=80", "model= is missing"),
        ("model=llada_8b gpu_memory_gb=80GB", "gpu_memory_gb=80GB: give a number"),
        ("model=llada_8b gpu_memory_gb=80 gpus=1.5", "gpus=1.5: give a whole number"),
        ("model=llada_8b gpu_memory_gb=80 gpus=0", "gpus=0: give a number above 0"),
        ("model=llada_8b gpu_memory_gb=nan", "gpu_memory_gb=nan: give a number above 0"),
        ("model=llada_8b gpu_memory_gb=80 canvas_tokens=0", "canvas_tokens=0: give a number"),
        ("model=llada_8b gpu_memory_gb=80 dtype=int8", "dtype=int8: give one of bfloat16"),
        ("model=llada_8b gpu_memory_gb=80 memory_fraction=1", "memory_fraction=1.0: give a share"),
        ("model=llada_8b gpu_memory_gb=80 page_size=0", "page_size=0: give at least 1"),
        (
            "model=llada_8b gpu_memory_gb=80 canvas_tokens=4097",
            "a canvas of 4097 tokens exceeds the 4096 positions that llada_8b was trained for",
        ),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(
    arguments: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments.split()) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert re.fullmatch(f"engine.model.plan: {message}.*\n", said.err)


def test_a_folder_without_a_checkpoint_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([f"model={tmp_path}", "gpu_memory_gb=80"]) == 2
    assert "holds no config.json" in capsys.readouterr().err


def test_it_runs_as_a_command(tmp_path: Path) -> None:
    write_tiny_checkpoint(tmp_path)
    command = [sys.executable, "-m", "engine.model.plan", f"model={tmp_path}", "gpu_memory_gb=2"]
    done = subprocess.run([*command, "canvas_tokens=200"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "a canvas of 200 tokens, 13 pages" in done.stdout


def test_defaults_equal_those_of_conf_engine_gpu() -> None:
    conf = yaml.safe_load((CONF / "engine" / "gpu.yaml").read_text())
    defaults = {field.name: field.default for field in fields(Arguments)}
    shared = ("memory_fraction", "iteration_tokens", "page_size", "logits_bytes")
    assert {name: defaults[name] for name in shared} == {name: conf[name] for name in shared}


def test_every_model_yaml_has_an_entry_in_published() -> None:
    paths = {
        file.stem: yaml.safe_load(file.read_text()) for file in (CONF / "model").glob("*.yaml")
    }
    models = {name: raw.get("model", raw)["path"] for name, raw in paths.items()}
    on_hub = {name: path for name, path in models.items() if "${" not in path}
    assert on_hub
    assert on_hub == {name: PUBLISHED[name].hub_id for name in on_hub}
    assert set(PUBLISHED) == set(on_hub)
