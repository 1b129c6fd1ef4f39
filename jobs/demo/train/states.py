"""Turns tasks into training batches: canvases masked as decoding will find them.

Most canvases of the last stage are states of semi-autoregressive decoding: the blocks before the
active one are clean, the active block is partly masked, and everything after it is masked. The
others follow LLaDA (arXiv 2502.09992): every position of the answer is masked with one probability
t ~ U(0, 1). In earlier stages, canvases may also have only constants or only whole lines masked.

Shape letters: B sequences, S positions of the longest of them, M positions to be learnt.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from random import Random

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from jobs.demo.task.evaluate import BLOCK, REGION
from jobs.demo.task.generator import draw_tasks
from jobs.demo.task.operations import WORDS
from jobs.demo.task.tokenizer import EOS, MASK, render_prompt, token_id

ROUNDING = 8
"""The length of a batch is padded to a multiple of this."""
TASKS_AT_A_TIME = 512
CONSTANT_WEIGHT = 3.0
"""Weight of a constant in the loss; other tokens of the body, and the first end-of-text, have 1."""
EOS_WEIGHT = 0.1
"""Weight of every end-of-text token after the first."""
SUFFIX_WEIGHT = 0.05
"""Factor on the weights of positions after the active block."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of the curriculum. Copying is learnt first, with few end-of-text tokens (the tail)
    after the body; then the tail grows to the whole generation region."""

    until: float
    """Share of the training tokens after which the stage ends at the latest."""
    copied: float
    """Share of constants copied right at which the stage ends earlier."""
    constants_share: float
    """Share of the canvases (block-causal model: noisy copies) in which only constants are
    masked."""
    line_share: float
    """Of the others, the share in which only some whole lines are masked."""
    literal_weight: float
    """Relative frequency of operations with a literal of several entries; the others' is 1."""
    longest_task: int
    """Most operations in one task."""
    num_tokens: int
    """Positions in one batch."""
    shortest_region: int = 0
    """Least length of body and tail together."""
    longest_tail: int = 0
    """Most end-of-text tokens after the body, unless shortest_region requires more."""
    block_share: float = 1.0
    """Of the rest, the share that are states of semi-autoregressive decoding (full attention)."""
    recital_share: float = 0.0
    """Share of the canvases that only repeat literals (block-causal model)."""


STAGES = (
    Stage(
        until=0.2,
        copied=0.9,
        shortest_region=0,
        longest_tail=8,
        constants_share=0.6,
        line_share=0.6,
        block_share=0.4,
        literal_weight=4.0,
        longest_task=2,
        num_tokens=4096,
    ),
    Stage(
        until=0.35,
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
        until=0.45,
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
    """One training sequence: its token ids, masks included, and what to learn at each position."""

    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    parts: list[int] = field(default_factory=list)
    """The part that each position belongs to; CanvasMaker.attn_mask uses it."""
    targets: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    """Weight in the loss; 0 where nothing is to be learnt."""

    def __len__(self) -> int:
        return len(self.ids)

    def add(
        self, ids: list[int], position: int, part: int, targets: list[int], weights: list[float]
    ) -> None:
        self.ids += ids
        self.positions += range(position, position + len(ids))
        self.parts += [part] * len(ids)
        self.targets += targets
        self.weights += weights


@dataclass(slots=True)
class Batch:
    """Canvases padded to one length, as tensors."""

    tokens_BS: Tensor
    positions_BS: Tensor
    attn_mask_BSS: Tensor
    """True where the query of the row attends to the key of the column. Has one row per sequence if
    all its queries attend to the same keys."""
    learnt_M: Tensor
    """Indices of the positions to be learnt, among the B * S positions."""
    targets_M: Tensor
    weights_M: Tensor

    def to(self, device: str) -> "Batch":
        return Batch(*(getattr(self, name).to(device) for name in self.__slots__))


class CanvasMaker:
    """Draws tasks, masks them and batches them, with one random generator per run."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, rng: Random) -> None:
        self.tokenizer = tokenizer
        self.rng = rng
        constants = [*WORDS, *(str(number) for number in range(100))]
        self.constants = frozenset(token_id(tokenizer, constant) for constant in constants)
        self.line_ends = frozenset(
            i for text, i in tokenizer.get_vocab().items() if "\u010a" in text
        )
        """Ids of tokens with a line feed, which a byte-level vocabulary spells \\u010a."""
        self.eos = token_id(tokenizer, EOS)
        self.mask = token_id(tokenizer, MASK)

    def canvases(self, stage: Stage, count: int) -> list[Canvas]:
        tasks = list(
            islice(draw_tasks(self.rng, False, stage.literal_weight, stage.longest_task), count)
        )
        return self._canvases([(task.prompt, task.body) for task in tasks], stage)

    def _canvases(self, texts: list[tuple[str, str]], stage: Stage) -> list[Canvas]:
        prompts = self.tokenizer([render_prompt(prompt) for prompt, _ in texts])["input_ids"]
        bodies = self.tokenizer([body for _, body in texts])["input_ids"]
        pairs = zip(prompts, bodies, strict=True)
        return [self._canvas(prompt, body, stage) for prompt, body in pairs]

    def _canvas(self, prompt: list[int], body: list[int], stage: Stage) -> Canvas:
        tail = max(
            self.rng.randint(1, max(1, stage.longest_tail)), stage.shortest_region - len(body)
        )
        answer = body + [self.eos] * min(tail, REGION - len(body))
        weights = self._answer_weights(body, len(answer))
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
        canvas = Canvas()
        canvas.add(prompt, 0, 0, prompt, [0.0] * len(prompt))
        canvas.add(*self._masked(answer, is_masked, weights, len(prompt), 0))
        return canvas

    def _answer_weights(self, body: list[int], answer_len: int) -> list[float]:
        weights = [CONSTANT_WEIGHT if token in self.constants else 1.0 for token in body]
        return weights + [1.0] + [EOS_WEIGHT] * (answer_len - len(body) - 1)

    def _masked(
        self,
        answer: list[int],
        is_masked: list[bool],
        weights: list[float],
        position: int,
        part: int,
    ) -> tuple[list[int], int, int, list[int], list[float]]:
        """The arguments of Canvas.add for a partly masked `answer`, to be learnt where masked."""
        pairs = list(zip(answer, is_masked, strict=True))
        ids = [self.mask if masked else token for token, masked in pairs]
        learnt = [w * masked for w, masked in zip(weights, is_masked, strict=True)]
        return ids, position, part, answer, learnt

    def _constants_mask(self, answer: list[int]) -> list[bool]:
        """Masks about half of the constants or all, and nothing else: this teaches copying, with
        no doubt about what to copy."""
        rate = self.rng.choice((0.5, 1.0))
        return [token in self.constants and self.rng.random() < rate for token in answer]

    def _line_mask(self, answer: list[int]) -> list[bool]:
        """Masks some whole lines: this teaches which sentence a line belongs to, with no doubt
        about where the line starts."""
        rate, is_masked, hidden = self.rng.choice((0.3, 0.6)), [], self.rng.random() < 0.5
        for token in answer:
            is_masked.append(hidden and token not in self.line_ends)
            if token in self.line_ends:
                hidden = self.rng.random() < rate
        return is_masked

    def _block_mask(self, size: int) -> list[bool]:
        """A state of the active block: all masked, some committed at random, or committed mostly
        from the left."""
        form = self.rng.random()
        if form < 0.3:
            return [True] * size
        if form < 0.65:
            return self._even_mask(size)
        clean = self.rng.randrange(size)
        return [i >= clean and self.rng.random() < 0.9 for i in range(size - 1)] + [True]

    def _even_mask(self, size: int) -> list[bool]:
        """Masks every position with the same random probability, and at least one."""
        rate = self.rng.random()
        is_masked = [self.rng.random() < rate for _ in range(size)]
        is_masked[self.rng.randrange(size)] = True
        return is_masked

    def batches(self, stage: Stage) -> Iterator[Batch]:
        """One draw of tasks, as batches of canvases of similar length, in random order."""
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
        def padded(lines: list[list[int]], padding: int) -> Tensor:
            return torch.tensor([line + [padding] * (size - len(line)) for line in lines])

        positions_BS = padded([canvas.positions for canvas in canvases], 0)
        targets_BS = padded([canvas.targets for canvas in canvases], 0)
        weights_BS = torch.zeros(positions_BS.shape)
        for weights_S, canvas in zip(weights_BS, canvases, strict=True):
            weights_S[: len(canvas)] = torch.tensor(canvas.weights)
        learnt_M = weights_BS.flatten().nonzero()[:, 0]
        return Batch(
            tokens_BS=padded([canvas.ids for canvas in canvases], self.eos),
            positions_BS=positions_BS,
            attn_mask_BSS=self.attn_mask(
                padded([canvas.parts for canvas in canvases], -1), positions_BS
            ),
            learnt_M=learnt_M,
            targets_M=targets_BS.flatten()[learnt_M],
            weights_M=weights_BS.flatten()[learnt_M],
        )

    def attn_mask(self, parts_BS: Tensor, positions_BS: Tensor) -> Tensor:
        """Every position attends to the whole canvas, but not to padding (part -1)."""
        return (parts_BS >= 0)[:, None]
