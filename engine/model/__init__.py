"""How does a checkpoint on disk become a transformer that turns token ids into logits?

`config.py`: the architecture of a transformer, as dataclasses
`config_json.py`: helpers that read `config.json`
`families/`: one file per published family: config keys, tensor names, chat template
`layers.py`, `moe.py`, `transformer.py`: the one transformer that all families share
`operations.py`: what it is written with, in plain torch; `triton_operations.py`: the same by the
Triton kernels, with weights laid out for them; `same_bits.py`: which linears give a row other bits
when its neighbours change
`weight_map.py`: which checkpoint tensor fills which parameter, and which rank holds it
`weights.py`: reading and writing safetensors files
`load.py`: from a checkpoint's name to a loaded model
`defaults.py`: the settings that a checkpoint runs with by default
`plan/`: `python -m engine.model.plan`, which GPU layouts can hold a model
"""
