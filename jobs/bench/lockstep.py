"""Lock-step batching, as today's engines do it: the baseline for iteration-level batching.

A batch is admitted as a whole and retired as a whole. All its sequences are in the same block at
the same iteration. Every forward computes the spans of all of them until the slowest has finished
the block, and the batch runs until its last sequence has ended. A sequence that has ended commits
nothing more (the rest of its region counts as EOS, as in dInfer, arXiv 2510.08666), but its spans
are still computed.

The baseline has two advantages over today's engines: prompts are packed without padding, and it
uses this engine's cache, decoding and kernels.

The policies vicinity and dkv cannot be compared. They count a sequence's forwards, here including
those in which it only waits for others, and would therefore give different tokens.
"""

import numpy as np

from engine.batch import Plan
from engine.cache import CACHE_POLICIES
from engine.iterations import IterationManager
from engine.request import Result, Sequence

LOCKSTEP_CACHES = [name for name in CACHE_POLICIES if name not in ("vicinity", "dkv")]


class LockStepManager(IterationManager):
    """The engine's iteration manager, changed to move all live sequences together."""

    def schedule(self) -> Plan:
        if not self.live:
            self._admit_waiting()
        return [(sequence, self._rules.span(sequence, self._policy)) for sequence in self.live]

    def give_way(self, plan: Plan) -> Sequence | None:
        """Out of memory: a lock-step batch cannot be split, so the benchmark stops."""
        raise MemoryError("out of memory for a lock-step batch: lower --max-sequences")

    def advance(self, plan: Plan, committed: np.ndarray) -> list[Result]:
        tokens, confidences = committed[0].tolist(), committed[1].view(np.float32).tolist()
        start = 0
        for sequence, span in plan:
            self._rules.count(sequence, span)
            if span.is_decoding:
                end = start + len(sequence.asked_positions)
                self._rules.record_commits(sequence, tokens[start:end], confidences[start:end])
                start = end
                self._stop_asking_if_done(sequence)
        if not all(self._rules.is_finished(s) or self._rules.has_ended(s) for s in self.live):
            return []
        if all(self._rules.has_ended(s) or s.block_end >= s.end_position for s in self.live):
            return self._retire_all()
        for sequence in self.live:
            self._enter_next_block(sequence)
        return []

    def _enter_next_block(self, sequence: Sequence) -> None:
        """Enter the next block. A sequence in its last block stays there, and is still computed."""
        has_ended = self._rules.has_ended(sequence)
        if sequence.block_end < sequence.end_position:
            self._rules.enter_block(sequence, sequence.block_end)
        if has_ended:
            sequence.masked_positions = sequence.asked_positions = []

    def _stop_asking_if_done(self, sequence: Sequence) -> None:
        """Ask for no more tokens of a sequence that has finished its block or has ended."""
        if self._rules.has_ended(sequence):
            sequence.masked_positions = []
        if self._rules.has_ended(sequence) or self._rules.is_finished(sequence):
            sequence.asked_positions = []

    def _retire_all(self) -> list[Result]:
        done = list(self.live)
        for sequence in done:
            self.retire(sequence)
        return [self._rules.result(sequence) for sequence in done]
