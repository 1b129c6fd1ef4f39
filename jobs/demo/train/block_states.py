"""Makes training batches for the block-causal model: all blocks of an answer in one forward.

This is the doubled form of block diffusion (BD3-LM, arXiv 2503.09573). A training sequence consists
of two parts:

    clean   the prompt and the answer. A position attends to its own block and all blocks before
            it, like the K/V cache that decoding fills.
    noisy   copies of the answer's blocks, partly masked. Each attends to the clean blocks before
            it and to itself, like the active block in decoding.

Blocks begin at multiples of the block length, so the first block of the answer may begin with the
prompt's last tokens, which stay clean. The answer is padded with end-of-text to the end of its last
block. A noisy block without any mask is left out: nothing is learnt in it, and nothing attends to
it.

Shape letters as in jobs/demo/train/states.py.
"""

from dataclasses import replace
from itertools import pairwise
from random import Random

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from jobs.demo.task.generator import num_pieces
from jobs.demo.task.operations import SLOTS, VARIABLES
from jobs.demo.train.states import Canvas, CanvasMaker, Stage

SLOT_NAMES = list(SLOTS)
LONGEST_RECITAL = 64
"""Most pieces (jobs/demo/task/generator.py) in one recital."""
NUM_COPIES = 2
"""Noisy copies of each answer, masked independently, behind the clean sequence."""

BLOCK_STAGES = (
    Stage(
        until=0.15,
        copied=0.9,
        recital_share=0.3,
        constants_share=0.6,
        line_share=0.6,
        literal_weight=4.0,
        longest_task=4,
        num_tokens=4096,
    ),
    Stage(
        until=0.3,
        copied=0.98,
        recital_share=0.1,
        constants_share=0.3,
        line_share=0.3,
        literal_weight=2.0,
        longest_task=8,
        num_tokens=4096,
    ),
    Stage(
        until=1.0,
        copied=1.01,
        constants_share=0.0,
        line_share=0.0,
        literal_weight=1.5,
        longest_task=8,
        num_tokens=6144,
    ),
)


class BlockCanvasMaker(CanvasMaker):
    """Makes canvases of a clean sequence and noisy blocks."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, rng: Random, block_length: int) -> None:
        super().__init__(tokenizer, rng)
        self.block_length = block_length

    def canvases(self, stage: Stage, count: int) -> list[Canvas]:
        num_recitals = round(count * stage.recital_share)
        recitals = [self._recital() for _ in range(num_recitals)]
        constants_alone = replace(stage, constants_share=1.0)
        tasks = super().canvases(stage, count - num_recitals)
        return tasks + (self._canvases(recitals, constants_alone) if recitals else [])

    def _recital(self) -> tuple[str, str]:
        """A prompt of named literals, and as its answer the same lines in another order. Copying is
        learnt fastest from these: there is nothing else to learn, and nothing can be guessed."""
        said: list[str] = []
        for name in VARIABLES[: self.rng.randint(1, len(VARIABLES))]:
            line = f"    {name} = {SLOTS[self.rng.choice(SLOT_NAMES)](self.rng)}"
            if num_pieces("\n".join([*said, line])) > LONGEST_RECITAL:
                break
            said.append(line)
        prompt = "".join(f"{line}.\n" for line in said)
        self.rng.shuffle(said)
        body = "".join(f"{line}\n" for line in said)
        return f'def answer(value: int) -> int:\n    """\n{prompt}    """\n', body

    def _canvas(self, prompt: list[int], body: list[int], stage: Stage) -> Canvas:
        end = self._block_end(len(prompt) + len(body))
        answer = body + [self.eos] * (end - len(prompt) - len(body))
        ids = prompt + answer
        weights = [0.0] * len(prompt) + self._answer_weights(body, len(answer))
        canvas = Canvas()
        canvas.add(ids, 0, 0, ids, [0.0] * end)
        for copy in range(1, NUM_COPIES + 1):
            is_masked = [False] * len(prompt) + self._copy_mask(len(prompt), answer, stage)
            for start in range(self._block_start(len(prompt)), end, self.block_length):
                here = slice(start, start + self.block_length)
                if any(is_masked[here]):
                    canvas.add(
                        *self._masked(ids[here], is_masked[here], weights[here], start, copy)
                    )
        return canvas

    def _block_start(self, position: int) -> int:
        return position // self.block_length * self.block_length

    def _block_end(self, position: int) -> int:
        return self._block_start(position) + self.block_length

    def _copy_mask(self, num_prompt_tokens: int, answer: list[int], stage: Stage) -> list[bool]:
        if self.rng.random() < stage.constants_share:
            return self._constants_mask(answer)
        if self.rng.random() < stage.line_share:
            return self._line_mask(answer)
        end = num_prompt_tokens + len(answer)
        first = self._block_end(num_prompt_tokens)
        edges = [num_prompt_tokens, *range(first, end + 1, self.block_length)]
        return [masked for a, b in pairwise(edges) for masked in self._block_mask(b - a)]

    def attn_mask(self, parts_BS: Tensor, positions_BS: Tensor) -> Tensor:
        """A position attends to its own block in its own part, and to the clean blocks (part 0)
        before that block. Padding attends to padding."""
        blocks_BS = positions_BS // self.block_length
        blocks_BQ1, blocks_B1K = blocks_BS[:, :, None], blocks_BS[:, None]
        own = (parts_BS[:, :, None] == parts_BS[:, None]) & (blocks_BQ1 == blocks_B1K)
        return own | ((parts_BS[:, None] == 0) & (blocks_B1K < blocks_BQ1))
