"""Which cache, decoding strategy and threshold are the fastest that lose nothing, for one model and
one task?

`grid.py`: the settings that are tried, and the reference: one token per iteration.
`rungs.py`: on how many rows, by which shares of a run's parts.
`measure.py`: runs one setting, as an ordinary run folder, and reads its figures from there.
`speeds.py`: how fast is each, without the luck of its own few seconds on the clock?
`halving.py`: which settings go on to more rows, and which of the last are chosen.
`sweep.py`: all of it, in order; one load of the model.
`answers.py`: the answers with their uncertainty and commands, and what is to be known of them.
`tell.py`: what is printed and written; `frontier_chart.py`: what is drawn.
`__main__.py`: `python -m pipeline.calibrate conf=NAME model=NAME`.
"""
