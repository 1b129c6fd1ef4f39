"""What did the workers do, how long did it take, and how do the figures add up?

`meter.py`: one worker's counters and clocks, and the stats row of each part.
`starts.py`: a record of each start of the job, and the identity of the rows.
`timeline.py`: one worker's work over time, a point every few seconds.
`totals.py`: stats rows and timelines added up over parts, workers and starts.
`progress.py`: the progress line, and the stop when too many rows fail.
`formatting.py`: figures and texts written for a person.
`clock.py`: a wall clock that never goes back.
`versions.py`: library versions and git revision.
"""
