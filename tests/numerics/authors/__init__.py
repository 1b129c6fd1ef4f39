"""Generation as each family's authors describe it: plain loops over one sequence, full forwards.

These loops follow the authors' rules, not this engine's policies: what commits in the forward that
opens a block, schedules, thresholds, the order of filters. They know nothing of batches, pages or
early ends. Two things are ours: the mask token is never predicted, and noise is the hash that the
engine draws with (reference_words.py), so that sampled tokens can be compared too.
"""
