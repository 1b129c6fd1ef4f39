"""The batch script: bash reads every word as it is, and sbatch every option."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from engine.errors import UserError
from jobs.slurm.options import Option, check_extra, finisher_options, job_name, job_options
from jobs.slurm.script import Script, quoted
from pipeline.config.slurm import SlurmConfig

WORDS = [
    "plain",
    "a b",
    "it's",
    'say "x"',
    "$HOME `ls` $(ls) ${x}",
    "back\\slash \\n",
    "line\nbreak",
    "tab\tand\r\nDOS",
    "it's\nboth \\ '",
    "*?[a] !x #y ;|&<>~",
    "",
    "Größe 日本",
    "\x01\x7f\x0b1",
    "prompt.template='a \\'b\\'\n{prompt}$x'",
]


def script(folder: Path, python: str, **changes: object) -> Script:
    settings: dict[str, object] = {
        "options": [],
        "run": str(folder),
        "folders": [folder],
        "working_folder": folder,
        "setup": [],
        "python": python,
        "arguments": WORDS,
        "is_finisher": False,
        "origin": ["by hand"],
    }
    return Script(**{**settings, **changes})  # type: ignore[arg-type]


def printer(folder: Path) -> str:
    """A program in place of Python that writes its words, folder and variables as JSON."""
    file = folder / "the python"
    file.write_text(
        f"#!{sys.executable}\nimport json, os, sys\n"
        "print(json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]))\n"
    )
    file.chmod(0o755)
    return str(file)


@pytest.mark.parametrize("word", WORDS)
def test_bash_reads_a_quoted_word_as_it_is_and_on_one_line(word: str) -> None:
    assert "\n" not in quoted(word)
    assert "\r" not in quoted(word)
    done = subprocess.run(
        ["bash", "-c", f"printf %s {quoted(word)}"], capture_output=True, check=True
    )
    assert done.stdout.decode() == word


def test_the_script_hands_all_words_to_the_supervisor_in_the_working_folder(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "a 'b' $c"
    folder.mkdir()
    made = script(folder, printer(tmp_path), setup=["export LOADED='a b'"], is_finisher=True)
    file = tmp_path / "script.sh"
    file.write_text(made.text)
    done = subprocess.run(["bash", str(file)], capture_output=True, text=True, check=True)
    argv, cwd, env = json.loads(done.stdout)
    assert argv == ["-m", "jobs.slurm.supervise", str(folder), "--finish", "--", *WORDS]
    assert cwd == str(folder)
    assert (env["LOADED"], env["SLURM_EXPORT_ENV"]) == ("a b", "ALL")


def test_a_node_that_does_not_see_the_run_folder_says_so(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    text = script(tmp_path, printer(tmp_path), folders=[tmp_path, gone]).text
    done = subprocess.run(["bash", "-c", text], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"does not see {gone}: give output= on a disk that all nodes share" in done.stderr


def test_a_setup_line_that_fails_ends_the_job(tmp_path: Path) -> None:
    text = script(tmp_path, printer(tmp_path), setup=["false", "true"]).text
    assert text.startswith("#!/bin/bash -l\n")  # `module` is defined by the profiles
    done = subprocess.run(["bash", "-c", text], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")


def test_the_signal_before_the_time_limit_does_not_end_the_job_while_it_sets_up(
    tmp_path: Path,
) -> None:
    text = script(tmp_path, printer(tmp_path), setup=["kill -USR1 $$"]).text
    done = subprocess.run(["bash", "-c", text], capture_output=True, text=True)
    assert done.returncode == 0, done
    assert json.loads(done.stdout)[0][:2] == ["-m", "jobs.slurm.supervise"]


def test_the_origin_is_a_comment_behind_the_options(tmp_path: Path) -> None:
    options = [Option(flag="--nodes", value="2"), Option(flag="--requeue")]
    text = script(tmp_path, "python", options=options, origin=["cd x && y"]).text
    assert text.splitlines()[:3] == ["#!/bin/bash", "#SBATCH --nodes=2", "#SBATCH --requeue"]
    assert "\n# cd x && y\n" in text.partition("set -eo pipefail")[2]


def written(slurm: SlurmConfig, **changes: object) -> list[str]:
    options = job_options(slurm, "name", Path("/runs/x/slurm/logs"), ["PATH", "HF_TOKEN"])
    return [option.line.removeprefix("#SBATCH ") for option in options]


def test_every_setting_becomes_its_option() -> None:
    slurm = SlurmConfig(
        partition="gpu",
        account="me",
        qos="high",
        nodes=2,
        gpus_per_node=8,
        gpu_type="h100",
        cpus_per_gpu=12,
        memory="400G",
        time="2-00:00:00",
        signal_s=200,
        constraint="ib&a100",
        exclude="node[3,7-9]",
        extra=["--reservation=maintenance", "--exclusive", "--comment=a b"],
        array=32,
        array_at_once=4,
        after="12:13",
        mail="me@x.org",
    )
    assert written(slurm) == [
        "--job-name=name",
        "--output=/runs/x/slurm/logs/%A_%a.log",
        "--open-mode=append",
        "--export=PATH,HF_TOKEN",
        "--mail-user=me@x.org",
        "--mail-type=END,FAIL",
        "--partition=gpu",
        "--account=me",
        "--qos=high",
        "--nodes=2",
        "--ntasks-per-node=1",
        "--gpus-per-node=h100:8",
        "--cpus-per-task=96",
        "--mem=400G",
        "--time=2-00:00:00",
        "--constraint=ib&a100",
        "--exclude=node[3,7-9]",
        "--signal=B:USR1@200",
        "--requeue",
        "--dependency=afterok:12:13",
        "--kill-on-invalid-dep=yes",
        "--array=0-31%4",
        "--reservation=maintenance",
        "--exclusive",
        '--comment="a b"',
    ]


def test_what_is_not_given_is_left_to_the_cluster() -> None:
    assert written(SlurmConfig(gpus_per_node=0, requeue=False)) == [
        "--job-name=name",
        "--output=/runs/x/slurm/logs/%j.log",
        "--open-mode=append",
        "--export=PATH,HF_TOKEN",
        "--nodes=1",
        "--ntasks-per-node=1",
        "--signal=B:USR1@120",
        "--no-requeue",
    ]


def test_the_job_that_finishes_an_array_asks_for_no_gpu() -> None:
    slurm = SlurmConfig(
        partition="gpu",
        account="me",
        gpus_per_node=8,
        cpus_per_gpu=12,
        nodes=4,
        time="1:00:00",
        array=32,
        after="12",
        extra=["--gres=gpu:8", "--reservation=r"],
    )
    options = finisher_options(slurm, "name", Path("/l"), ["PATH"], "77")
    words = [option.argument for option in options]
    assert not [word for word in words if "gpu:" in word or "--gpus" in word or "array" in word]
    assert {"--partition=gpu", "--account=me", "--nodes=1", "--cpus-per-task=4"} <= set(words)
    assert {"--dependency=afterany:77", "--reservation=r", "--time=1:00:00"} <= set(words)


def test_a_percent_sign_in_a_folder_is_no_pattern() -> None:
    (output,) = [
        its.argument
        for its in job_options(SlurmConfig(), "x", Path("/a%j"), ["PATH"])
        if its.flag == "--output"
    ]
    assert output == "--output=/a%%j/%j.log"


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ("reservation=x", "give an option of sbatch, as --reservation=maintenance"),
        ("--nodes=3", "--nodes is set by the submission; give slurm.nodes"),
        ("-t 3", "-t is set by the submission; give slurm.time"),
        ("--output=x.log", "give slurm.folder"),
        ("--wrap=ls", "it cannot be given"),
    ],
)
def test_an_extra_option_does_not_undo_what_a_field_says(extra: str, said: str) -> None:
    with pytest.raises(UserError) as error:
        check_extra(["--exclusive", extra])
    assert f"slurm.extra={extra}" in str(error.value)
    assert said in str(error.value)


def test_a_job_is_called_after_its_job_and_folder() -> None:
    assert job_name("humaneval", "humaneval") == "humaneval"
    assert job_name("humaneval", "decoding=factor") == "humaneval-decoding=factor"
    assert job_name(None, "my run/x") == "my_run_x"
    assert shlex.quote(job_name("a b", "c'd")) == "a_b-c_d"


@pytest.mark.parametrize(
    ("lines", "failed"),
    [
        (["true", "false"], "false"),
        (["source /no/env"], "source /no/env"),
        (["loads() { return 1; }", "loads x"], "return 1"),
        (["exit 1"], "exit 1"),
        (["false || true"], None),
    ],
)
def test_a_setup_line_that_fails_is_named(
    tmp_path: Path, lines: list[str], failed: str | None
) -> None:
    file = tmp_path / "script.sh"
    file.write_text(script(tmp_path, printer(tmp_path), setup=lines).text)
    done = subprocess.run(["bash", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == (0 if failed is None else 1)
    assert bool(done.stdout) == (failed is None), "the job starts only if all lines succeed"
    said = done.stderr.splitlines()[-1:]
    if failed is None:
        assert said == []
    else:
        assert said[0].startswith("jobs.submit: slurm.setup ended with exit code 1 on ")
        assert said[0].endswith(f", at: {failed}")
