"""What did the whole run produce, and how did it go?

`finish.py`: checks that data/ is complete, then writes summary.json, README.md and report.html.
`said.py`: what a launch says when its work is done.
`__main__.py`: writes the report of a run that is at work, broken or finished.
`found.py`: what a run folder holds, and what it lacks.
`outcomes.py`: counts the output rows by finish reason, length and error.
`scores.py`, `examples.py`, `settings.py`: the scores, three rows, and the settings by start.
`summary.py`: the contents of summary.json.
`dataset_card.py`: the text of README.md.
`page.py`, `provenance.py`: what report.html says; its markup is in templates/.
`over_time.py`: timelines -> the lines of its charts over time.
`charts.py`, `scatter.py`: where everything in a chart stands.
"""
