"""How are the demo models trained?

`__main__.py`: the command `python -m jobs.demo.train`, one training run
`recipes.py`: what differs between the two models, initial weights, optimizers
`states.py`, `block_states.py`: tasks to batches of partly masked canvases
`objective.py`: the loss
`muon.py`: the optimizer of the matrices
`balance.py`: keeps the experts equally busy
`config_json.py`: the models' `config.json`
`carry_over.py`: initial weights for the block-causal model from the other one
"""
