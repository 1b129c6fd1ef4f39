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

from engine.cache import CACHE_POLICIES
from engine.iterations import IterationManager
from engine.plans import ALL, Plan
from engine.request import Request, Result
from engine.rules import NOT_FINITE
from engine.sequences import Sequences

LOCKSTEP_CACHES = [name for name in CACHE_POLICIES if name not in ("vicinity", "dkv")]


class LockStepManager(IterationManager):
    """The engine's iteration manager, changed to move all live sequences together."""

    def schedule(self) -> Plan | None:
        if not len(self.live):
            self._admit_waiting()
        if not len(self.live):
            return None
        needs = self._needs()
        return needs.plan(ALL, needs.num_query_tokens())

    def give_way(self, plan: Plan) -> Request | None:
        """Out of memory: a lock-step batch cannot be split, so the benchmark stops."""
        raise MemoryError("out of memory for a lock-step batch: lower --max-sequences")

    def advance(self, plan: Plan, committed: np.ndarray) -> list[Result]:
        s, rules = self.live.arrays, self._rules
        rules.count(self.live, plan)
        has_failed_B = rules.record_commits(
            self.live, plan, committed[0], committed[1].view(np.float32)
        )
        assert has_failed_B is None, NOT_FINITE
        _ask_no_more(s, rules.has_ended(s))
        has_ended_B = rules.has_ended(s)
        s.is_asked_BL[has_ended_B | rules.is_finished(s)] = False
        if not (has_ended_B | rules.is_finished(s)).all():
            return []
        has_next_B = s.block_end < s.end_position
        if (has_ended_B | ~has_next_B).all():
            return self._retire_all()
        # A sequence in its last block stays there, and is still computed.
        rules.enter_blocks(s, np.flatnonzero(has_next_B))
        _ask_no_more(s, has_ended_B)
        return []

    def _retire_all(self) -> list[Result]:
        results = [self._rules.result(self.live, place) for place in range(len(self.live))]
        self.retire(np.arange(len(self.live)))
        return results


def _ask_no_more(s: Sequences, has_ended_B: np.ndarray) -> None:
    """Ask for no more tokens of sequences that have ended."""
    s.is_masked_BL[has_ended_B] = s.is_asked_BL[has_ended_B] = False
    s.num_masked[has_ended_B] = 0
