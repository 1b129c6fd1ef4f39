"""The processes of one job: which one is this, and what do they share?

`ranks.py`: this process's rank, device and number of CPU threads.
`session.py`: the values and counters that all ranks share.
`groups.py`: the ranks that hold one model together.
`shutdown.py`: SIGTERM and Ctrl-C, and the time they leave to finish.
`command.py`: the command that started them, to be typed again.
`logs.py`: one log file per rank.
`last_words.py`: why a worker stops, said where its user reads it.
`refusals.py`: what the machine or a store has refused, and what helps.
"""
