"""How does one worker turn its parts into output? Rows in, requests through the engine, files out.

`worker.py`: builds what a worker needs before its first row (prompter, model, engine, driver)
`models.py`: keeps the model for the next job of this process
`driver.py`: feeds requests to the engine and writes each part once all its rows have an outcome
`prefetch.py`: reads and tokenizes the next part while the engine works on the current one
`cells.py`: whatever happens while a row is prepared is that row's error
`stand_in.py`: replaces the engine in a job without a model (`stand_in=true`)
`dry_run.py`: reports what a job would do (`dry_run=true`)
"""
