"""Does the engine compute the right numbers? It is compared with plain loops and with transformers.

`reference_*.py`: the plain loops, one sequence at a time; `test_reference*.py` test them by hand.
`authors/`: the rules of the authors of the models as plain loops; `cases.py` and `test_authors*.py`
compare the engine with them.
`exact.py`, `combinations.py`: compare every combination of components with the loops.
`test_logits*.py`, `test_published.py`: compare the logits of loaded checkpoints with transformers.
"""
