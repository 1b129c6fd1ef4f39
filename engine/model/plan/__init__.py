"""Which layouts of GPUs can hold a model, and how many sequences fit beside it?

`__main__.py`: the command `python -m engine.model.plan`, its table and its advice
`arguments.py`: the command's arguments, and the model and engine settings that they select
`footprint.py`: memory per GPU for weights, K/V, logits and activations; sequences that fit
`published.py`: the `config.json` keys of the published checkpoints
"""
