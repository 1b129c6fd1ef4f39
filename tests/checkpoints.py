"""Writes a complete tiny checkpoint, with tokenizer and chat template, and input files for it."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from pipeline.config.job import JobConfig, job_config
from tests.tiny import write_tiny_checkpoint

BOS, EOS, MASK = "<|startoftext|>", "<|endoftext|>", "<|mdm_mask|>"
SPECIAL = [BOS, EOS, MASK, "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    " + message['content'] + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)


def write_checkpoint(folder: Path, **changes: Any) -> Path:
    """Write a checkpoint with random weights and a byte tokenizer; `changes` go into
    config.json."""
    tokenizer = write_tokenizer(folder)
    ids = {
        "mask_token_id": tokenizer.convert_tokens_to_ids(MASK),
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.eos_token_id,
    }
    sizes = {"vocab_size": len(tokenizer), "embedding_size": len(tokenizer)}
    write_tiny_checkpoint(folder, **{**ids, **sizes, **changes})
    return folder


def write_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(letters)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(SPECIAL)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=BOS, eos_token=EOS, pad_token=EOS, mask_token=MASK
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)
    return tokenizer


def prompts(count: int, first: int = 0) -> list[dict[str, Any]]:
    """Input rows with prompts of different lengths, and with columns that are carried along."""
    return [
        {
            "task_id": f"t/{i}",
            "prompt": "abc xyz"[: 1 + i % 7] * (1 + i % 4),
            "tags": None if i % 3 == 0 else [f"tag{i}", None],
            "about": {"level": i % 5, "note": None if i % 2 else "n"},
        }
        for i in range(first, first + count)
    ]


def write_parquet(file: Path, rows: list[dict[str, Any]], row_group_size: int = 7) -> Path:
    pq.write_table(pa.table(_columns(rows)), file, row_group_size=row_group_size)
    return file


def write_json_lines(file: Path, rows: list[dict[str, Any]]) -> Path:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    file.write_bytes(gzip.compress(text.encode()) if file.suffix == ".gz" else text.encode())
    return file


def job(
    model: Path, data: str | Path | Sequence[str | Path], output: str | Path, **changes: Any
) -> JobConfig:
    """A small job. `changes` set config fields, with __ for the dot:
    `generation__num_samples=2`."""
    raw: dict[str, Any] = {
        "data": {"path": str(data) if isinstance(data, str | Path) else [str(f) for f in data]},
        "prompt": {},
        "generation": {"max_new_tokens": 8},
        "columns": {},
        "model": {"path": str(model)},
        "decoding": {"name": "threshold", "threshold": 0.3},
        "cache": {"name": "dual"},
        "engine": {"block_length": 4, "max_sequences": 6},
        "output": str(output),
        "name": "test",
    }
    raw["data"]["part_rows"] = 4
    for name, value in changes.items():
        section, _, field = name.partition("__")
        if field:
            raw[section][field] = value
        else:
            raw[section] = value
    return job_config(raw)


def output_rows(run: Path) -> list[dict[str, Any]]:
    """All output rows of a run, in the order of its parts."""
    files = sorted((run / "data").glob("*.parquet"))
    return [row for file in files for row in pq.ParquetFile(file).read().to_pylist()]


def assert_same_rows(rows: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> None:
    """Check that rows are equal in every column; mean_confidence may differ by 1e-3."""
    assert [row["row_id"] for row in rows] == [row["row_id"] for row in wanted]
    for row, other in zip(rows, wanted, strict=True):
        mine, its = row.pop("mean_confidence"), other.pop("mean_confidence")
        assert mine == pytest.approx(its, abs=1e-3), row["row_id"]
        assert row == other
        row["mean_confidence"], other["mean_confidence"] = mine, its


def _columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {
        name: [row.get(name) for row in rows] for name in dict.fromkeys(k for r in rows for k in r)
    }
