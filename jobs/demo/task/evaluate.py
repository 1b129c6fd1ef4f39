"""Scores a model on the demo task: decodes it with the engine, and runs each task's own tests.

`python -m jobs.demo.task.evaluate --file jobs/demo/task/prompts.parquet --decoding fixed` scores
the model in jobs/demo/model. Training scores the model that it trains with the same function.
"""

import argparse
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from engine.cache import CACHE_POLICIES
from engine.cache.base import CachePolicy
from engine.decoding import DECODERS
from engine.decoding.base import DecodingStrategy
from engine.engine import DiffusionEngine, EngineConfig
from engine.model.load import load_model
from engine.model.transformer import Transformer
from engine.request import Request, Result
from jobs.demo.task.generator import FOLDER
from jobs.demo.task.tokenizer import MODEL_FOLDER, decode, render_prompt
from pipeline.tasks.functions import program
from pipeline.tasks.sandbox import Limits, run_program

REGION = 128
"""Length of the generation region."""
BLOCK = 32
"""Block length."""
LIMITS = Limits(timeout_s=5, cpu_s=5)


@dataclass(frozen=True, slots=True)
class Score:
    passed: float
    """Share of tasks whose tests pass."""
    exact: float
    """Share of bodies that equal the canonical solution, character by character."""
    tokens_per_forward: float
    failed_ids: tuple[str, ...]

    def __str__(self) -> str:
        return f"pass {self.passed:.3f} exact {self.exact:.3f} TPF {self.tokens_per_forward:.2f}"


def requests_of(
    tokenizer: PreTrainedTokenizerBase, rows: Iterable[dict[str, str]]
) -> Iterable[Request]:
    for i, row in enumerate(rows):
        ids = tokenizer(render_prompt(row["prompt"]))["input_ids"]
        yield Request(request_id=i, prompt_ids=ids, max_new_tokens=REGION)


def evaluate(
    model: Transformer,
    tokenizer: PreTrainedTokenizerBase,
    rows: list[dict[str, str]],
    decoding: DecodingStrategy,
    cache: CachePolicy,
) -> Score:
    engine = DiffusionEngine(
        model, config=EngineConfig(block_length=BLOCK), decoding=decoding, cache=cache
    )
    results = list(engine.results(requests_of(tokenizer, rows)))
    exact, failed = 0, []
    for result in results:
        row = rows[int(str(result.request_id))]
        body = decode(tokenizer, result.token_ids)
        exact += body == row["canonical_solution"]
        if not _passes(row, body):
            failed.append(row["task_id"])
    passed = 1 - len(failed) / len(rows)
    return Score(passed, exact / len(rows), _tokens_per_forward(results), tuple(failed))


def _passes(row: dict[str, str], body: str) -> bool:
    if body == row["canonical_solution"]:
        return True
    return run_program(program(row, body), LIMITS).passed


def _tokens_per_forward(results: list[Result]) -> float:
    num_forwards = sum(result.num_iterations for result in results)
    return sum(result.num_generated_tokens for result in results) / num_forwards


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=MODEL_FOLDER)
    parser.add_argument("--file", type=Path, default=FOLDER / "prompts.parquet")
    parser.add_argument("--decoding", choices=DECODERS, default="threshold")
    parser.add_argument("--cache", choices=CACHE_POLICIES, default="none")
    parser.add_argument("--limit", type=int, help="use only the first rows")
    options = parser.parse_args()
    rows = pq.read_table(options.file).to_pylist()[: options.limit]
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = load_model(options.model, torch.float32)
    decoding, cache = DECODERS[options.decoding](), CACHE_POLICIES[options.cache]()
    score = evaluate(model, tokenizer, rows, decoding, cache)
    print(f"{options.file.name} {options.decoding} {options.cache}: {score}")
    print("failed:", *score.failed_ids)


if __name__ == "__main__":
    main()
