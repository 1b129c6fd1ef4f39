"""Trains the demo model from scratch: `python -m jobs.demo.train --work FOLDER --minutes 60`.

The objective is LLaDA's masked diffusion (arXiv 2502.09992) on answers padded with end-of-text,
unweighted over the masked positions but for three things: constants count more, padding less, and
positions behind the active block hardly at all (jobs/demo/states.py). The schedule follows the
clock, not a number of iterations, because the machine is shared. The last state lies in --work, and
a run goes on from it; the best checkpoint is in --work/model, to be copied to jobs/demo/model.

The weights in jobs/demo/model took 65 minutes on two shared CPU cores (Xeon with avx512_bf16,
bfloat16 autocast, about 16,000 tokens/s), in two runs. The first, of 25 minutes, was on an earlier
wording of the task in which sentences had no names: it learnt to copy constants (6 % right after
1,800 iterations, 93 % after 3,700), never which sentence a line answers. The second began with the
first one's weights, embedding and head rows carried over by token: 34 minutes with the schedule
below, and 5 more at a learning rate of 3e-4 falling to 8e-5. It reached a pass@1 of 0.94 with one
token per iteration. From scratch this schedule has been run only to its ninth minute; a longer
first stage (half the time, constants alone on half of its canvases) is what the first run suggests.
"""

import argparse
import json
import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from engine.cache.none import NoCache
from engine.decoding.threshold import Threshold
from engine.model import llada
from engine.model.load import read_config
from engine.model.transformer import Transformer
from engine.model.weights import save_weights
from jobs.demo.evaluate import evaluate
from jobs.demo.states import STAGES, Batch, CanvasMaker, stage_at
from jobs.demo.tasks import held_out_rows
from jobs.demo.tokenizer import EOS, MASK, MODEL_FOLDER, token_id

PEAK_LR = 1.5e-3
WARM_UP = 150
VALIDATION_SEED = 3
NUM_VALIDATION = 64
EVALUATE_EVERY_S = 150
SHAPE: dict[str, Any] = {
    "d_model": 192,
    "n_layers": 5,
    "n_heads": 6,
    "n_kv_heads": 6,
    "mlp_hidden_size": 512,
    "embedding_size": 960,
    "max_sequence_length": 1024,
}


def write_config(folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """config.json in the keys of LLaDA-8B-Instruct's own."""
    raw = {
        "activation_type": "silu",
        "alibi": False,
        "alibi_bias_max": 8.0,
        "architectures": ["LLaDAModelLM"],
        "attention_dropout": 0.0,
        "attention_layer_norm": False,
        "attention_layer_norm_with_affine": True,
        "bias_for_layer_norm": False,
        "block_group_size": 1,
        "block_type": "llama",
        "embedding_dropout": 0.0,
        "eos_token_id": token_id(tokenizer, EOS),
        "flash_attention": False,
        "include_bias": False,
        "include_qkv_bias": False,
        "init_cutoff_factor": None,
        "init_device": "meta",
        "init_fn": "mitchell",
        "init_std": 0.02,
        "input_emb_norm": False,
        "layer_norm_type": "rms",
        "layer_norm_with_affine": True,
        "mask_token_id": token_id(tokenizer, MASK),
        "mlp_ratio": 4,
        "model_type": "llada",
        "multi_query_attention": None,
        "pad_token_id": token_id(tokenizer, EOS),
        "precision": "amp_bf16",
        "residual_dropout": 0.0,
        "rms_norm_eps": 1e-05,
        "rope": True,
        "rope_full_precision": True,
        "rope_theta": 500000.0,
        "scale_logits": False,
        "use_cache": False,
        "vocab_size": len(tokenizer),
        "weight_tying": False,
        **SHAPE,
    }
    (folder / "config.json").write_text(json.dumps(raw, indent=2, sort_keys=True) + "\n")


def initialise(model: Transformer) -> None:
    """Linear layers by their fan-in, those that write into the residual stream smaller."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.3)
        elif isinstance(module, nn.Linear):
            std = 0.02 if name == "head" else module.in_features**-0.5
            if name.endswith((".out", ".down")):
                std /= math.sqrt(2 * model.config.num_layers)
            nn.init.normal_(module.weight, std=std)


def batch_loss(
    model: Transformer,
    tokens_BS: Tensor,
    is_real_BS: Tensor,
    targets_BS: Tensor,
    weights_BS: Tensor,
) -> Tensor:
    """Weighted mean cross-entropy; every sequence attends densely to its own real positions."""
    B, S = tokens_BS.shape

    def attend(layer: int, q_QHE: Tensor, k_QHE: Tensor, v_QHE: Tensor) -> Tensor:
        q, k, v = (x.unflatten(0, (B, S)).transpose(1, 2) for x in (q_QHE, k_QHE, v_QHE))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=is_real_BS[:, None, None])
        return out.transpose(1, 2).flatten(0, 1)

    positions_Q = torch.arange(S).repeat(B)
    logits_QV = model.logits(model(tokens_BS.flatten(), positions_Q, attend))
    losses_Q = F.cross_entropy(logits_QV.float(), targets_BS.flatten(), reduction="none")
    return (losses_Q * weights_BS.flatten()).sum() / weights_BS.sum().clamp(min=1)


LossFunction = Callable[[Transformer, Tensor, Tensor, Tensor, Tensor], Tensor]


class Run:
    """One training run: everything that its state file holds, and the clock."""

    def __init__(self, work: Path, minutes: float) -> None:
        self.work, self.total_s = work, minutes * 60
        self.tokenizer = AutoTokenizer.from_pretrained(MODEL_FOLDER)
        self.folder = work / "model"
        shutil.copytree(
            MODEL_FOLDER,
            self.folder,
            ignore=shutil.ignore_patterns("*.safetensors"),
            dirs_exist_ok=True,
        )
        write_config(self.folder, self.tokenizer)
        torch.manual_seed(0)
        self.model = Transformer(read_config(self.folder))
        initialise(self.model)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=PEAK_LR, betas=(0.9, 0.98), weight_decay=0.02, fused=True
        )
        self.iteration, self.elapsed_s, self.best = 0, 0.0, -1.0
        self.rows = held_out_rows(VALIDATION_SEED, NUM_VALIDATION, "validation")
        if self._state_file.exists():
            self._load()
        self.maker = CanvasMaker(self.tokenizer, Random(self.iteration + 100))

    @property
    def _state_file(self) -> Path:
        return self.work / "last.pt"

    @property
    def progress(self) -> float:
        return min(1.0, self.elapsed_s / self.total_s)

    def _load(self) -> None:
        state = torch.load(self._state_file)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.iteration, self.elapsed_s = state["iteration"], state["elapsed_s"]
        self.best = state["best"]

    def save(self) -> None:
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "iteration": self.iteration,
            "elapsed_s": self.elapsed_s,
            "best": self.best,
        }
        part = self._state_file.with_suffix(".part")
        torch.save(state, part)
        part.replace(self._state_file)

    def learning_rate(self) -> float:
        warm = min(1.0, (self.iteration + 1) / WARM_UP)
        return PEAK_LR * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * self.progress)))

    def train_on(self, batch: Batch, loss_of: LossFunction) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(
                self.model, batch.tokens_BS, batch.is_real_BS, batch.targets_BS, batch.weights_BS
            )
        if not loss.isfinite():
            raise RuntimeError(f"loss {loss.item()} at iteration {self.iteration}: start again")
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.iteration += 1
        return loss.item()

    def validate(self) -> None:
        score = evaluate(self.model, self.tokenizer, self.rows, Threshold(), NoCache())
        if score.passed >= self.best:
            self.best = score.passed
            pieces = llada.weight_map(self.model.config)
            save_weights(self.model, pieces, self.folder / "model.safetensors", torch.bfloat16)
        self.save()
        print(f"  validation {score} best {self.best:.3f}", flush=True)

    def train(self) -> None:
        loss_of = torch.compile(batch_loss, dynamic=True)
        evaluated_s, losses = self.elapsed_s, []
        while self.progress < 1.0:
            for batch in self.maker.batches(stage_at(self.progress)):
                began = time.monotonic()
                losses.append(self.train_on(batch, loss_of))
                self.elapsed_s += time.monotonic() - began
                if self.iteration % 20 == 0:
                    print(
                        f"{self.iteration:6d} {self.elapsed_s / 60:6.1f} min "
                        f"loss {sum(losses) / len(losses):.4f} lr {self.learning_rate():.5f}",
                        flush=True,
                    )
                    losses.clear()
            if self.elapsed_s - evaluated_s > EVALUATE_EVERY_S:
                evaluated_s = self.elapsed_s
                self.save()
                if self.progress > STAGES[0].until:
                    self.validate()
        self.validate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder of the last state")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.work.mkdir(parents=True, exist_ok=True)
    Run(options.work, options.minutes).train()


if __name__ == "__main__":
    main()
