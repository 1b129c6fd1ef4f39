"""What are the demo models, which task do they solve, and how were they trained?

`task/`: generates prompts and tests, and scores a model on them
`train/`: trains the models
`model/`, `model_block/`: the two checkpoints
"""
