"""The rules of engine/rules.py, cache policies, iterations.py and batch.py for one sequence at a
time, in plain Python: the definition that tests compare the arrays with."""
