"""Lock-step batching, as today's engines do it: the baseline that iteration-level batching is held
to.

A batch is admitted together and leaves together. All its sequences are in the same block at the
same iteration; each forward computes the spans of all of them, until the slowest has finished its
block, and the batch goes on until its last sequence has ended. A sequence that has ended commits
no more (its rest counts as EOS, as in dInfer, arXiv 2510.08666), but is computed on.

Two things are kinder to it than today's engines are: prompts are packed without padding, and it has
this engine's cache, decoder and kernels.

Policies that count a sequence's forwards, as vicinity and dkv do, would count those in which the
sequence merely waits, and so give other tokens: no baseline for them.
"""

import numpy as np

from engine.batch import Plan
from engine.cache import CACHE_POLICIES
from engine.iterations import IterationManager
from engine.request import Result, Sequence

LOCKSTEP_CACHES = [name for name in CACHE_POLICIES if name not in ("vicinity", "dkv")]


class LockStepManager(IterationManager):
    def schedule(self) -> Plan:
        if not self.live:
            self._admit_waiting()
        return [(sequence, self._rules.span(sequence, self._policy)) for sequence in self.live]

    def give_way(self, plan: Plan) -> Sequence | None:
        """A batch in lock-step cannot be split."""
        raise MemoryError("no memory for a batch in lock-step: lower --max-sequences")

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
            self._go_on(sequence)
        return []

    def _go_on(self, sequence: Sequence) -> None:
        """To the next block; a sequence that has none stays in its last one, and is computed on."""
        has_ended = self._rules.has_ended(sequence)
        if sequence.block_end < sequence.end_position:
            self._rules.enter_block(sequence, sequence.block_end)
        if has_ended:
            sequence.masked_positions = sequence.asked_positions = []

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
