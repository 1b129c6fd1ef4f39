"""Lock-step batching, as today's engines do it: the baseline that iteration-level batching is held
to.

A batch is admitted together and leaves together. All its sequences are in the same block at the
same iteration; each forward computes the spans of all of them, until the slowest has filled its
block, and the batch goes on until its last sequence has ended. A sequence that has ended commits
no more (its rest counts as EOS, as in dInfer, arXiv 2510.08666), but is computed on.

Two things are kinder to it than today's engines are: prompts are packed without padding, and it has
this engine's cache, decoder and kernels.
"""

import numpy as np

from engine.batch import Plan
from engine.iterations import IterationManager
from engine.request import Result, Sequence


class LockStepManager(IterationManager):
    def schedule(self) -> Plan:
        if not self.live:
            return super().schedule()
        return [(sequence, self._policy.next_span(sequence)) for sequence in self.live]

    def advance(self, plan: Plan, committed: np.ndarray) -> list[Result]:
        tokens, confidences = committed[0].tolist(), committed[1].view(np.float32).tolist()
        start = 0
        for sequence, span in plan:
            end = start + len(sequence.masked_positions)
            if end > start:
                self._take_in(sequence, tokens[start:end], confidences[start:end])
            self._count(sequence, span)
            if self._ended(sequence):
                sequence.masked_positions = []
            start = end
        if any(sequence.masked_positions for sequence in self.live):
            return []
        if all(self._ended(s) or s.block_end == s.canvas_len for s in self.live):
            return self._retire_all()
        for sequence in self.live:
            ended = self._ended(sequence)
            self._enter_block(sequence, sequence.block_end)
            if ended:
                sequence.masked_positions = []
        return []

    def _retire_all(self) -> list[Result]:
        done, self.live = self.live, []
        for sequence in done:
            self.pages.free(sequence.first_page)
        return [self._result(sequence) for sequence in done]

    @staticmethod
    def _ended(sequence: Sequence) -> bool:
        eos, masked = sequence.eos_position, sequence.masked_positions
        return eos is not None and not (masked and masked[0] < eos)
