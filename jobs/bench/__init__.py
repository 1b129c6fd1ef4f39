"""How fast are the engine, loading and a whole job, and how does speed trade against quality?

`__main__.py`: the command `python -m jobs.bench`, with one subcommand per benchmark
`engine.py`: the engine against LLaDA's own loop and against lock-step batching
`lockstep.py`: lock-step batching
`frontier.py`: quality against speed for every legal combination
`table.py`, `plot.py`: the results of `frontier` as a table and as a picture
`workload.py`: the model and prompts that `engine` and `frontier` run, and their scoring
`load.py`: memory and speed of loading a checkpoint
`loading.py`: measures one load in a fresh process
`synthetic.py`: writes the checkpoint that `load` loads
`host.py`: what the host does in an iteration, now and before
`iteration_times.py`: measures it for one checkout, in a fresh process
`job.py`: rows per second of a whole job, with a stand-in for the engine
`gpu/`: the engine on a GPU, against what the card allows
`on_gpu.sh`: all that needs a GPU, in one command: its tests and `gpu`
`provenance.py`: what a report says about where it was made
"""
