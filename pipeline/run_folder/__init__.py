"""Where is each file of a run, and how is it read and written on a disk or on an object store?

`layout.py`: the paths of a run's files, and atomic writes
`files.py`: reading them
`strangers.py`: whether a folder holds files that are not of a run
`at_work.py`: which launch is at work, or was last
`store.py`: requests to an object store (S3, Google Cloud Storage, Azure)
`output_rows.py`: the schema and the table of a part's output
`lock.py`: one launch at a time in a run folder, by a kernel lock
`lease.py`: the same on an object store, by an object that the launch keeps renewing
"""
