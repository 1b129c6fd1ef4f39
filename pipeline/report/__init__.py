"""What did the whole run produce, and how did it go?

`finish.py`: checks that data/ is complete, then writes summary.json, README.md and report.html.
`outcomes.py`: counts the output rows by finish reason, length and error.
`dataset_card.py`: the text of README.md.
`page.py`: the sections of report.html.
`over_time.py`: timelines -> the lines of its charts over time.
`charts.py`, `html.py`: charts as SVG, and the other elements of the page.
"""
