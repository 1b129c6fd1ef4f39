"""From tasks to training batches: canvases in the states that decoding will meet.

Half of the canvases or more are states of semi-autoregressive decoding: blocks before the active
one clean, the active block partly masked, everything behind it masked. The rest follow LLaDA (arXiv
2502.09992): every position of the answer is masked with one probability t ~ U(0, 1).

Shape letters: B sequences, S positions of the longest of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from random import Random

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from jobs.demo.evaluate import BLOCK, REGION
from jobs.demo.operations import WORDS
from jobs.demo.tasks import draw_tasks
from jobs.demo.tokenizer import EOS, MASK, render_prompt, token_id

ROUNDING = 8
"""Batches are padded to a multiple of this length."""
TASKS_AT_A_TIME = 512
CONSTANT_WEIGHT = 3.0
EOS_WEIGHT = 0.1
SUFFIX_WEIGHT = 0.05


@dataclass(frozen=True, slots=True)
class Stage:
    """How hard the canvases are: copying is learnt on short tails first, then the tail grows."""

    until: float
    """Share of the training tokens at which the stage ends, at the latest."""
    copied: float
    """Share of constants copied right at which it ends before that."""
    shortest_region: int
    longest_tail: int
    constants_share: float
    """Share of the canvases on which constants alone are masked."""
    line_share: float
    """Of the others, the share on which some whole lines alone are masked."""
    block_share: float
    literal_weight: float
    longest_task: int
    num_tokens: int
    """Positions in one batch."""


STAGES = (
    Stage(
        until=0.25,
        copied=0.95,
        shortest_region=0,
        longest_tail=8,
        constants_share=0.5,
        line_share=0.6,
        block_share=0.4,
        literal_weight=4.0,
        longest_task=6,
        num_tokens=4096,
    ),
    Stage(
        until=0.35,
        copied=1.01,
        shortest_region=0,
        longest_tail=32,
        constants_share=0.2,
        line_share=0.2,
        block_share=0.7,
        literal_weight=2.0,
        longest_task=8,
        num_tokens=6144,
    ),
    Stage(
        until=1.0,
        copied=1.01,
        shortest_region=REGION,
        longest_tail=0,
        constants_share=0.0,
        line_share=0.0,
        block_share=0.85,
        literal_weight=1.5,
        longest_task=8,
        num_tokens=6144,
    ),
)


@dataclass(slots=True)
class Canvas:
    prompt_ids: list[int]
    answer_ids: list[int]
    """The body and the end-of-text tokens behind it."""
    is_masked: list[bool]
    weights: list[float]

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.answer_ids)


@dataclass(slots=True)
class Batch:
    tokens_BS: Tensor
    targets_BS: Tensor
    weights_BS: Tensor
    """Zero wherever nothing is to be learnt."""
    is_real_BS: Tensor


class CanvasMaker:
    """Draws tasks and masks them; one per run, fed by one random generator."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, rng: Random) -> None:
        self.tokenizer = tokenizer
        self.rng = rng
        constants = [*WORDS, *(str(number) for number in range(100))]
        self.constants = frozenset(token_id(tokenizer, constant) for constant in constants)
        self.line_ends = frozenset(
            i for text, i in tokenizer.get_vocab().items() if "\u010a" in text
        )
        """Ids with a line feed, as a byte-level vocabulary spells it."""
        self.eos = token_id(tokenizer, EOS)
        self.mask = token_id(tokenizer, MASK)

    def canvases(self, stage: Stage, count: int) -> list[Canvas]:
        tasks = list(
            islice(draw_tasks(self.rng, False, stage.literal_weight, stage.longest_task), count)
        )
        prompts = self.tokenizer([render_prompt(task.prompt) for task in tasks])["input_ids"]
        bodies = self.tokenizer([task.body for task in tasks])["input_ids"]
        pairs = zip(prompts, bodies, strict=True)
        return [self._canvas(prompt, body, stage) for prompt, body in pairs]

    def _canvas(self, prompt: list[int], body: list[int], stage: Stage) -> Canvas:
        tail = max(
            self.rng.randint(1, max(1, stage.longest_tail)), stage.shortest_region - len(body)
        )
        answer = body + [self.eos] * min(tail, REGION - len(body))
        weights = [CONSTANT_WEIGHT if token in self.constants else 1.0 for token in body]
        weights += [1.0] + [EOS_WEIGHT] * (len(answer) - len(body) - 1)
        if self.rng.random() < stage.constants_share:
            is_masked = self._constants_mask(answer)
        elif self.rng.random() < stage.line_share:
            is_masked = self._line_mask(answer)
        elif self.rng.random() < stage.block_share:
            start = BLOCK * self.rng.randrange(len(body) // BLOCK + 1)
            end = min(start + BLOCK, len(answer))
            is_masked = [False] * start + self._block_mask(end - start)
            is_masked += [True] * (len(answer) - end)
            weights[end:] = [weight * SUFFIX_WEIGHT for weight in weights[end:]]
        else:
            is_masked = self._even_mask(len(answer))
        return Canvas(prompt, answer, is_masked, weights)

    def _constants_mask(self, answer: list[int]) -> list[bool]:
        """Some constants or all, and nothing else: copying, without any doubt what to copy."""
        rate = self.rng.choice((0.5, 1.0))
        return [token in self.constants and self.rng.random() < rate for token in answer]

    def _line_mask(self, answer: list[int]) -> list[bool]:
        """Some whole lines: which sentence does a line answer, with no doubt where it begins?"""
        rate, is_masked, hidden = self.rng.choice((0.3, 0.6)), [], self.rng.random() < 0.5
        for token in answer:
            is_masked.append(hidden and token not in self.line_ends)
            if token in self.line_ends:
                hidden = self.rng.random() < rate
        return is_masked

    def _block_mask(self, size: int) -> list[bool]:
        """The active block: untouched, committed here and there, or mostly from the left."""
        form = self.rng.random()
        if form < 0.3:
            return [True] * size
        if form < 0.65:
            return self._even_mask(size)
        clean = self.rng.randrange(size)
        return [i >= clean and self.rng.random() < 0.9 for i in range(size - 1)] + [True]

    def _even_mask(self, size: int) -> list[bool]:
        rate = self.rng.random()
        is_masked = [self.rng.random() < rate for _ in range(size)]
        is_masked[self.rng.randrange(size)] = True
        return is_masked

    def batches(self, stage: Stage) -> Iterator[Batch]:
        """One draw of tasks as batches of canvases of about one length, in random order."""
        canvases = sorted(self.canvases(stage, TASKS_AT_A_TIME), key=len)
        ready = []
        while canvases:
            size = -(-len(canvases[-1]) // ROUNDING) * ROUNDING
            count = stage.num_tokens // size
            ready.append(self._batch(canvases[-count:], size))
            canvases = canvases[:-count]
        self.rng.shuffle(ready)
        yield from ready

    def _batch(self, canvases: list[Canvas], size: int) -> Batch:
        shape = (len(canvases), size)
        tokens_BS = torch.full(shape, self.eos)
        targets_BS = torch.zeros(shape, dtype=torch.int64)
        weights_BS = torch.zeros(shape)
        is_real_BS = torch.zeros(shape, dtype=torch.bool)
        for i, canvas in enumerate(canvases):
            pairs = list(zip(canvas.answer_ids, canvas.is_masked, strict=True))
            ids = canvas.prompt_ids + [
                self.mask if is_masked else token for token, is_masked in pairs
            ]
            start, end = len(canvas.prompt_ids), len(ids)
            tokens_BS[i, :end] = torch.tensor(ids)
            targets_BS[i, start:end] = torch.tensor(canvas.answer_ids)
            weights = torch.tensor(canvas.weights) * torch.tensor(canvas.is_masked)
            weights_BS[i, start:end] = weights
            is_real_BS[i, :end] = True
        return Batch(tokens_BS, targets_BS, weights_BS, is_real_BS)
