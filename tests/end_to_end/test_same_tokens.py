"""Two cache policies and two strategies, greedy and sampled: one worker, two workers and the
unbatched reference loop give the same token ids for 64 prompts of different lengths."""

from itertools import product
from pathlib import Path

import pytest

from engine.model.load import load_model
from engine.request import Request
from pipeline.config.job import PromptConfig
from pipeline.prompt.prompter import Prompter
from pipeline.run import run
from tests.checkpoints import assert_same_rows, job, output_rows, prompts, write_parquet
from tests.end_to_end.launcher import finished
from tests.numerics.reference_loop import decode

COMBINATIONS = list(product(("none", "dual"), ("fixed", "threshold"), (0.0, 0.7)))
NUM_ROWS, NEW_TOKENS, BLOCK = 64, 20, 8


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_parquet(tmp_path_factory.mktemp("data") / "in.parquet", prompts(NUM_ROWS))


@pytest.fixture(scope="module")
def two_workers(checkpoint: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All combinations as one sweep on two workers, with a run folder for each."""
    folder = tmp_path_factory.mktemp("two")
    args = [
        *("-m", "cache=none,dual", "decoding=fixed,threshold", "generation.temperature=0.0,0.7"),
        *(
            f"data.path={data}",
            "model=demo",
            f"model.path={checkpoint}",
            "data.part_rows=4",
            "seed=5",
        ),
        *(f"generation.max_new_tokens={NEW_TOKENS}", f"engine.block_length={BLOCK}"),
        "output=${cache.name}-${decoding.name}-${generation.temperature}",
    ]
    finished(args, folder)
    return folder


@pytest.mark.parametrize(("cache", "decoder", "temperature"), COMBINATIONS)
def test_workers_and_reference_agree(
    checkpoint: Path,
    data: Path,
    two_workers: Path,
    tmp_path: Path,
    cache: str,
    decoder: str,
    temperature: float,
) -> None:
    config = job(
        checkpoint,
        data,
        tmp_path / "run",
        decoding={"name": decoder},
        cache={"name": cache},
        generation__max_new_tokens=NEW_TOKENS,
        generation__temperature=temperature,
        engine__block_length=BLOCK,
        seed=5,
    )
    run(config, 0)
    rows = output_rows(two_workers / f"{cache}-{decoder}-{temperature}")
    assert_same_rows(rows, output_rows(tmp_path / "run"))

    model, prompter = load_model(checkpoint), Prompter(checkpoint, PromptConfig(), 200)
    lengths = set()
    for row in rows:
        request = Request(
            request_id=row["row_id"],
            prompt_ids=prompter.token_ids(row),
            max_new_tokens=NEW_TOKENS,
            temperature=temperature,
            seed=row["seed"],
        )
        lengths.add(len(request.prompt_ids))
        expected = decode(
            model,
            request,
            cache={"name": cache},
            decoding={"name": decoder},
            block_length=BLOCK,
        )
        assert row["token_ids"] == expected.token_ids, row["row_id"]
        assert row["num_query_tokens"] == expected.num_query_tokens
    assert len(rows) == NUM_ROWS
    assert len(lengths) > 8
