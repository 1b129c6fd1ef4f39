"""Trains the demo model from scratch: `python -m jobs.demo.train --work FOLDER`.

The objective is LLaDA's masked diffusion (arXiv 2502.09992) on answers padded with end-of-text,
unweighted over the masked positions but for three things: constants count more, padding less, and
positions behind the active block hardly at all (jobs/demo/states.py). Matrices are trained by Muon
(jobs/demo/muon.py), the rest by AdamW. The schedule follows the positions trained on. The last
state lies in --work, and a run goes on from it; the best checkpoint is in --work/model, to be
copied to jobs/demo/model.

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
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
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
from jobs.demo.muon import Muon
from jobs.demo.states import STAGES, Batch, CanvasMaker, Stage
from jobs.demo.tasks import held_out_rows
from jobs.demo.tokenizer import EOS, MASK, MODEL_FOLDER, token_id

MATRIX_LR = 0.02
"""Muon's, for the matrices of the layers."""
OTHER_LR = 2e-3
"""AdamW's, for embedding, head and norms."""
WARM_UP = 150
HEAD_STD, EMBEDDING_STD = 0.02, 0.3
VALIDATION_SEED = 3
NUM_VALIDATION = 192
LOG_EVERY = 20
SAVE_EVERY = 200
DEFAULT_TOKENS = 36e6
VALIDATE_EVERY_TOKENS = 2_000_000
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
    """Linear layers by their fan-in, those that write into the residual stream smaller.

    The head begins as the embedding, so that a token whose embedding is carried along is already
    the likeliest: half of copying."""
    nn.init.normal_(model.embed.weight, std=EMBEDDING_STD)
    with torch.no_grad():
        model.head.weight.copy_(model.embed.weight * (HEAD_STD / EMBEDDING_STD))
    for name, module in model.layers.named_modules():
        if isinstance(module, nn.Linear):
            std = module.in_features**-0.5
            if name.endswith((".out", ".down")):
                std /= math.sqrt(2 * model.config.num_layers)
            nn.init.normal_(module.weight, std=std)


def optimizers_of(model: Transformer) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for the rest."""
    stacked = {"qkv": 3, "gate_up": 2}
    matrices = {
        name: parameter
        for name, parameter in model.layers.named_parameters()
        if parameter.ndim == 2
    }
    pieces = [(p, stacked.get(name.split(".")[-2], 1)) for name, p in matrices.items()]
    others = [
        p for name, p in model.named_parameters() if name.removeprefix("layers.") not in matrices
    ]
    return [
        Muon(pieces, lr=MATRIX_LR, weight_decay=0.02),
        torch.optim.AdamW(others, lr=OTHER_LR, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
    ]


def batch_loss(
    model: Transformer,
    tokens_BS: Tensor,
    is_real_BS: Tensor,
    targets_BS: Tensor,
    weights_BS: Tensor,
) -> Tensor:
    """Weighted mean cross-entropy."""
    logits_QV = dense_logits(model, tokens_BS, is_real_BS)
    losses_Q = F.cross_entropy(logits_QV, targets_BS.flatten(), reduction="none")
    return (losses_Q * weights_BS.flatten()).sum() / weights_BS.sum().clamp(min=1)


def dense_logits(model: Transformer, tokens_BS: Tensor, is_real_BS: Tensor) -> Tensor:
    """float32 [B * S, V]; every sequence attends densely to its own real positions."""
    B, S = tokens_BS.shape

    def attend(layer: int, q_QHE: Tensor, k_QHE: Tensor, v_QHE: Tensor) -> Tensor:
        q, k, v = (x.unflatten(0, (B, S)).transpose(1, 2) for x in (q_QHE, k_QHE, v_QHE))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=is_real_BS[:, None, None])
        return out.transpose(1, 2).flatten(0, 1)

    positions_Q = torch.arange(S, device=tokens_BS.device).repeat(B)
    return model.logits(model(model.embed(tokens_BS.flatten()), positions_Q, attend))


LossFunction = Callable[[Transformer, Tensor, Tensor, Tensor, Tensor], Tensor]


class Run:
    """One training run: everything that its state file holds."""

    def __init__(self, work: Path, num_tokens: int, device: str, bfloat16: bool) -> None:
        self.work, self.total, self.device, self.bfloat16 = work, num_tokens, device, bfloat16
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
        self.model = Transformer(read_config(self.folder)).to(device)
        initialise(self.model)
        self.optimizers = optimizers_of(self.model)
        self.peak_lrs = [optimizer.param_groups[0]["lr"] for optimizer in self.optimizers]
        self.iteration, self.num_tokens, self.elapsed_s, self.best = 0, 0, 0.0, -1.0
        self.stage = 0
        self.rows = held_out_rows(VALIDATION_SEED, NUM_VALIDATION, "validation")
        self.rng = Random(100)
        if self._state_file.exists():
            self._load()
        self.maker = CanvasMaker(self.tokenizer, self.rng)
        constants_only = replace(STAGES[0], constants_share=1.0)
        self.probe = next(CanvasMaker(self.tokenizer, Random(7)).batches(constants_only))

    @property
    def _state_file(self) -> Path:
        return self.work / "last.pt"

    @property
    def progress(self) -> float:
        return min(1.0, self.num_tokens / self.total)

    def _load(self) -> None:
        state = torch.load(self._state_file, map_location=self.device, weights_only=False)
        self.model.load_state_dict(state["model"])
        for optimizer, its in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(its)
        self.rng.setstate(state["rng"])
        self.iteration, self.num_tokens = state["iteration"], state["num_tokens"]
        self.elapsed_s, self.best = state["elapsed_s"], state["best"]
        self.stage = state["stage"]

    def save(self) -> None:
        """Between two draws of tasks, so that a run that goes on is the run unbroken."""
        state = {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "rng": self.rng.getstate(),
            "iteration": self.iteration,
            "num_tokens": self.num_tokens,
            "elapsed_s": self.elapsed_s,
            "best": self.best,
            "stage": self.stage,
        }
        part = self._state_file.with_suffix(".part")
        torch.save(state, part)
        part.replace(self._state_file)

    def lr_factor(self) -> float:
        warm = min(1.0, (self.iteration + 1) / WARM_UP)
        return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * self.progress)))

    def train_on(self, batch: Batch, loss_of: LossFunction) -> float:
        for optimizer, peak in zip(self.optimizers, self.peak_lrs, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = peak * self.lr_factor()
        tensors = (batch.tokens_BS, batch.is_real_BS, batch.targets_BS, batch.weights_BS)
        with torch.autocast(self.device, torch.bfloat16, enabled=self.bfloat16):
            loss = loss_of(self.model, *(tensor.to(self.device) for tensor in tensors))
        if not loss.isfinite():
            raise RuntimeError(f"loss {loss.item()} at iteration {self.iteration}: start again")
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self.iteration += 1
        self.num_tokens += batch.tokens_BS.numel()
        return loss.item()

    def validate(self) -> None:
        score = evaluate(self.model, self.tokenizer, self.rows, Threshold(), NoCache())
        if score.passed >= self.best:
            self.best = score.passed
            pieces = llada.weight_map(self.model.config)
            save_weights(self.model, pieces, self.folder / "model.safetensors", torch.bfloat16)
        print(f"  validation {score} best {self.best:.3f}", flush=True)

    def train(self) -> None:
        loss_of = torch.compile(batch_loss, dynamic=True)
        validated, saved, losses = self.num_tokens, self.iteration, []
        while self.progress < 1.0:
            for batch in self.maker.batches(STAGES[self.stage]):
                began = time.monotonic()
                losses.append(self.train_on(batch, loss_of))
                self.elapsed_s += time.monotonic() - began
                if self.iteration % LOG_EVERY == 0:
                    self._log(sum(losses) / len(losses))
                    losses.clear()
            self._turn(STAGES[self.stage])
            is_ready = STAGES[self.stage] is STAGES[-1]
            if is_ready and self.num_tokens - validated > VALIDATE_EVERY_TOKENS:
                validated = self.num_tokens
                self.validate()
            if self.iteration - saved > SAVE_EVERY:
                saved = self.iteration
                self.save()
        self.validate()
        self.save()

    @torch.no_grad()
    def copied(self) -> float:
        """The share of a fixed batch's constants that are copied right, all else being given."""
        probe = self.probe
        logits_QV = dense_logits(
            self.model, probe.tokens_BS.to(self.device), probe.is_real_BS.to(self.device)
        )
        right_Q = logits_QV.argmax(-1).cpu() == probe.targets_BS.flatten()
        return right_Q[probe.weights_BS.flatten() > 0].float().mean().item()

    def _turn(self, stage: Stage) -> None:
        """Enter the next stage once this one has taught enough, or has had its share."""
        copied = self.copied()
        print(f"  stage {self.stage}: copied {copied:.3f}", flush=True)
        self.stage += (self.progress >= stage.until or copied >= stage.copied) and (
            stage is not STAGES[-1]
        )

    def _log(self, loss: float) -> None:
        print(
            f"{self.iteration:6d} {self.elapsed_s / 60:6.1f} min {self.num_tokens / 1e6:6.2f} M "
            f"tokens  loss {loss:.4f}  lr x {self.lr_factor():.3f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder of the last state")
    parser.add_argument("--tokens", type=float, default=DEFAULT_TOKENS, help="positions, in all")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--bfloat16", action="store_true", help="where the hardware has it")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.work.mkdir(parents=True, exist_ok=True)
    Run(options.work, int(options.tokens), options.device, options.bfloat16).train()


if __name__ == "__main__":
    main()
