"""Lock-step batching, as today's engines do it: the baseline that iteration-level batching is held
to.

A batch is admitted together and leaves together. All its sequences are in the same block at the
same iteration; each forward computes the spans of all of them, until the slowest has finished its
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
            self._admit_waiting()
        return [(sequence, self._policy.next_span(sequence)) for sequence in self.live]

    def advance(self, plan: Plan, committed: np.ndarray) -> list[Result]:
        tokens, confidences = committed[0].tolist(), committed[1].view(np.float32).tolist()
        start = 0
        for sequence, span in plan:
            self._rules.count(sequence, span)
            if span.is_decoding:
                end = start + len(sequence.asked_positions)
                self._rules.take_in(sequence, tokens[start:end], confidences[start:end])
                start = end
                self._rest(sequence)
        if not all(self._rules.is_finished(s) or self._rules.has_ended(s) for s in self.live):
            return []
        if all(self._rules.has_ended(s) or s.block_end >= s.end_position for s in self.live):
            return self._retire_all()
        for sequence in self.live:
            has_ended = self._rules.has_ended(sequence)
            self._rules.enter_block(sequence, sequence.block_end)
            if has_ended:
                sequence.masked_positions = sequence.asked_positions = []
        return []

    def _rest(self, sequence: Sequence) -> None:
        """A sequence that is done with its block, or for good, is asked nothing more."""
        if self._rules.has_ended(sequence):
            sequence.masked_positions = []
        if self._rules.has_ended(sequence) or self._rules.is_finished(sequence):
            sequence.asked_positions = []

    def _retire_all(self) -> list[Result]:
        done = list(self.live)
        for sequence in done:
            self.retire(sequence)
        return [self._rules.result(sequence) for sequence in done]
