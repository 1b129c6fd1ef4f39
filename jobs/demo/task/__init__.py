"""What do the demo models have to do? Write the body of a small Python function.

`operations.py`: the operations that a function consists of, as sentences and code
`generator.py`: tasks as chains of operations, with tests; writes the Parquet files
`tokenizer.py`: the demo models' tokenizer
`evaluate.py`: the share of tasks that a model solves
"""
