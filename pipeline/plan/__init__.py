"""What is there to do in this run, and which worker does it?

`build.py`: inspects the input, cuts it into parts and writes the plan
`choice.py`: which columns each step needs, and their names in the output
`rehearsal.py`: sends two rows through all later steps, before anything is written
`run_json.py`: the plan, as it stands in run.json
`fingerprint.py`: the settings and files that every launch into one run folder must share
`part_size.py`: how many rows a part has if `data.part_rows` is null
`pace.py`: how many rows a part has if `data.part_minutes` is set
`broken_files.py`: which files of a run a start must not take for done
`claims.py`: which worker takes which part next
`heartbeat.py`: whether any worker is still at work on the parts without a file
`retry.py`: what is left to do: parts without a file, and failed rows that are to run again
"""
