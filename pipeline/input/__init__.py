"""Which input rows does the job run, in which parts, and with which ids and settings?

`files.py`: the input files, their schemas, row counts and digests
`json_lines.py`: reading JSON Lines and inferring its columns
`where.py`: the row filter `data.where`
`row_settings.py`: each row's generation settings
`row_counts.py`: how many output rows each input row has
`parts.py`: cutting the rows into parts
`reader.py`: reading the rows, ids and seeds of one part
`errors.py`: what is raised when the input is wrong or cannot be reached
"""
