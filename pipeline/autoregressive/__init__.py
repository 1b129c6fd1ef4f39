"""How does an autoregressive checkpoint run the same job (engine=transformers)?

The rival that a diffusion model is compared with: the same rows, prompts, seeds, files, statistics
and report, through the continuous batching of the transformers library.

`checkpoint.py`: what a job asks of the checkpoint, and its weights
`engine.py`: stands in the place of DiffusionEngine
`sampling.py`: temperature, top_k, top_p and noise, row by row
"""
