"""Which input rows does the job run, in which parts, and with which ids and settings?

`listing.py`: the files that data.path names, and what is left out
`runs.py`: the output of an earlier run as input
`files.py`: each file's rows, columns and digest
`columns.py`: the columns of all files together, and those that cannot be read
`types.py`, `casting.py`: types that mean the same, and one that holds both
`json_lines.py`, `json_scan.py`: reading JSON Lines; where their values begin and end
`json_kinds.py`: inferring the columns of JSON Lines
`utf8.py`: text that is not valid UTF-8
`where.py`: the row filter `data.where`
`row_settings.py`: each row's generation settings
`row_counts.py`: how many output rows each input row has
`parts.py`: cutting the rows into parts
`reader.py`: reading the rows, ids and seeds of one part
`errors.py`: what is raised when the input is wrong or cannot be reached
"""
