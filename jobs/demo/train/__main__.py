"""Trains a demo model: `python -m jobs.demo.train --work FOLDER`.

`--model full`, the default, trains the model with full attention; `--model block` the block-causal
one with experts. jobs/demo/train/recipes.py has what differs between them.

The objective of `full` is LLaDA's masked diffusion (arXiv 2502.09992) on answers padded with
end-of-text. All masked positions weigh the same, with three exceptions: constants weigh more,
padding less, and positions after the active block almost nothing (jobs/demo/train/states.py).

The objective of `block` is block diffusion (jobs/demo/train/block_states.py). Router biases keep
its experts equally busy (jobs/demo/train/balance.py). With `--init jobs/demo/model` it starts from
the weights of the other model (jobs/demo/train/carry_over.py).

The last state is saved in --work, and a run with the same --work resumes from it. The best
checkpoint is in --work/model, to be copied to jobs/demo/model or jobs/demo/model_block.

The weights in jobs/demo/model were trained in four runs on two shared CPU cores.

    1, 2  with an earlier script and AdamW, in bfloat16 at about 16,000 positions/s. The first (25
          minutes, on an earlier wording of the task) learnt to copy constants; the second (39
          minutes) started from its weights.
    3     with this script, in float32 at about 5,000 positions/s, from the weights of run 2:
          `--init jobs/demo/model --lr-scale 0.3 --tokens 6e6`, 20 minutes.
    4     from the weights of run 3: `--lr-scale 0.2 --tokens 4.5e6`, 14 minutes; the best
          checkpoint came after 4 million positions.

Their head is softened (jobs/demo/train/recipes.py). From scratch, this script has been run only to
its 7 millionth position (26 minutes): after 6 million, it copied half of the constants in tasks of
two operations.

The weights in jobs/demo/model_block were trained with this script alone: `--model block --init
jobs/demo/model --lr-scale 0.5 --tokens 9e6`, on the same machine at about 4,400 positions/s. The
run was stopped after 25 minutes, at 6.4 million positions; the checkpoint is that of the 6
millionth.
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

import torch
from torch import Tensor, nn
from transformers import AutoTokenizer

from engine.model.load import read_config
from engine.model.transformer import Transformer
from engine.model.weight_map import weight_map
from engine.model.weights import save_weights
from jobs.demo.task.generator import held_out_rows
from jobs.demo.task.tokenizer import MODEL_FOLDER
from jobs.demo.train.balance import Balance
from jobs.demo.train.objective import batch_loss, learnt_logits
from jobs.demo.train.recipes import (
    RECIPES,
    initialise,
    load_initial_weights,
    optimizers_of,
    softened,
)
from jobs.demo.train.states import Batch, Stage

WARM_UP = 150
"""Iterations over which the learning rate rises to its peak."""
VALIDATION_SEED = 3
LOG_EVERY = 20
SAVE_EVERY = 200
DEFAULT_TOKENS = 30e6
VALIDATE_EVERY_TOKENS = 2_000_000

LossFunction = Callable[[Transformer, Batch], Tensor]


class Run:
    """One training run. Its state file holds model, optimizers, random generator and counts."""

    def __init__(self, options: argparse.Namespace) -> None:
        recipe, work, device = RECIPES[options.model], options.work, options.device
        self.recipe, self.work, self.device = recipe, work, device
        self.total, self.bfloat16 = int(options.tokens), options.bfloat16
        self.tokenizer = AutoTokenizer.from_pretrained(MODEL_FOLDER)
        self.folder = work / "model"
        shutil.copytree(
            MODEL_FOLDER,
            self.folder,
            ignore=shutil.ignore_patterns("*.safetensors"),
            dirs_exist_ok=True,
        )
        raw = json.dumps(recipe.config_json(self.tokenizer), indent=2, sort_keys=True)
        (self.folder / "config.json").write_text(raw + "\n")
        torch.manual_seed(0)
        model = Transformer(read_config(self.folder))
        initialise(model)
        if options.init is not None:
            maker = recipe.maker(model.config, self.tokenizer, Random(7))
            load_initial_weights(model, options.init, recipe, maker)
        self.model = model.to(device)
        self.balance = Balance(self.model)
        self.optimizers = optimizers_of(self.model)
        self.peak_lrs = [
            options.lr_scale * optimizer.param_groups[0]["lr"] for optimizer in self.optimizers
        ]
        self.iteration, self.num_tokens, self.elapsed_s, self.best = 0, 0, 0.0, -1.0
        self.stage = 0 if options.init is None else recipe.stage_after_init
        self.rows = held_out_rows(VALIDATION_SEED, recipe.num_validation, "validation")
        self.rng = Random(100)
        if self._state_file.exists():
            self._load()
        self.maker = recipe.maker(self.model.config, self.tokenizer, self.rng)

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
        """Write the state file. Called only between two draws of tasks, so that a resumed run gives
        the same result as an uninterrupted one."""
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
        """Learning rate relative to its peak: linear warm-up, times a cosine from 1 to 0.02."""
        warm = min(1.0, (self.iteration + 1) / WARM_UP)
        return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * self.progress)))

    def train_on(self, batch: Batch, loss_of: LossFunction) -> float:
        for optimizer, peak in zip(self.optimizers, self.peak_lrs, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = peak * self.lr_factor()
        with torch.autocast(self.device, torch.bfloat16, enabled=self.bfloat16):
            loss = loss_of(self.model, batch.to(self.device))
        if not loss.isfinite():
            raise RuntimeError(f"loss {loss.item()} at iteration {self.iteration}: start again")
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self.balance.adjust(self.lr_factor())
        self.iteration += 1
        self.num_tokens += batch.tokens_BS.numel()
        return loss.item()

    def validate(self) -> None:
        """Score the model on the validation tasks; save it unless an earlier score was higher."""
        with softened(self.model):
            score = self.recipe.evaluate(self.model, self.tokenizer, self.rows)
            if score.passed >= self.best:
                self.best = score.passed
                pieces = weight_map(self.model.config, self.recipe.family.NAMES)
                save_weights(self.model, pieces, self.folder / "model.safetensors", torch.bfloat16)
        print(f"  validation {score} best {self.best:.3f}", flush=True)

    def train(self) -> None:
        loss_of = torch.compile(batch_loss, dynamic=True)
        validated, saved, losses = self.num_tokens, self.iteration, []
        while self.progress < 1.0:
            for batch in self.maker.batches(self.recipe.stages[self.stage]):
                began = time.monotonic()
                losses.append(self.train_on(batch, loss_of))
                self.elapsed_s += time.monotonic() - began
                if self.iteration % LOG_EVERY == 0:
                    self._log(sum(losses) / len(losses))
                    losses.clear()
            self._advance_stage(self.recipe.stages[self.stage])
            is_ready = self.stage == len(self.recipe.stages) - 1
            if is_ready and self.num_tokens - validated > VALIDATE_EVERY_TOKENS:
                validated = self.num_tokens
                self.validate()
            if self.iteration - saved > SAVE_EVERY:
                saved = self.iteration
                self.save()
        self.validate()
        self.save()

    @torch.no_grad()
    def copied(self, stage: Stage) -> float:
        """The share of constants in fixed tasks that the model copies right, all else being
        given."""
        constants_alone = replace(stage, constants_share=1.0, recital_share=0.0)
        maker = self.recipe.maker(self.model.config, self.tokenizer, Random(7))
        probe = next(maker.batches(constants_alone)).to(self.device)
        tokens_M = learnt_logits(self.model, probe).argmax(-1)
        return (tokens_M == probe.targets_M).float().mean().item()

    def _advance_stage(self, stage: Stage) -> None:
        """Enter the next stage if enough constants are copied right or the stage's time is up."""
        copied = self.copied(stage)
        print(f"  stage {self.stage}: copied {copied:.3f}", flush=True)
        self.stage += (self.progress >= stage.until or copied >= stage.copied) and (
            stage is not self.recipe.stages[-1]
        )

    def _log(self, loss: float) -> None:
        busiest = " ".join(f"{share:.2f}" for share in self.balance.busiest)
        print(
            f"{self.iteration:6d} {self.elapsed_s / 60:6.1f} min {self.num_tokens / 1e6:6.2f} M "
            f"tokens  loss {loss:.4f}  lr x {self.lr_factor():.3f}"
            + f"  busiest experts {busiest}"
            * bool(busiest),
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=RECIPES, default="full")
    parser.add_argument(
        "--work",
        type=Path,
        required=True,
        help="folder for the state and the checkpoint; resumes from it",
    )
    parser.add_argument(
        "--tokens", type=float, default=DEFAULT_TOKENS, help="positions to train on, in total"
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--init", type=Path, help="checkpoint folder with initial weights")
    parser.add_argument("--lr-scale", type=float, default=1.0, help="factor on both learning rates")
    parser.add_argument(
        "--bfloat16",
        action="store_true",
        help="train in bfloat16; fast only if the hardware has it",
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.work.mkdir(parents=True, exist_ok=True)
    Run(options).train()


if __name__ == "__main__":
    main()
