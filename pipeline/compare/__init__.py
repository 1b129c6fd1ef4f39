"""How do runs differ: in their settings, their speed, and, prompt by prompt, their quality?

`runs.py`: reads the runs to be compared; the first is the one that the others are compared with.
`quality.py`: the values of a run's prompts by each score, from scores.parquet.
`match.py`: which prompts of two runs are the same, and what keeps others from being compared.
`answers.py`: how far two runs agree, whatever is right.
`tables.py`: the tables, for a terminal, as Markdown and for the page.
`page.py`: the page, and where all of it is written.
`__main__.py`: `python -m pipeline.compare RUN RUN ...`.
"""
