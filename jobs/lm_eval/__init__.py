"""How does a diffusion model run under lm-evaluation-harness? As its model `dllm`.

    python -m jobs.lm_eval --model dllm --model_args path=FOLDER,decoding=threshold --tasks gsm8k

takes all that the harness's own command `lm_eval` takes. The harness finds models in a registry
that it fills from a list of its own, without entry points; importing this package adds `dllm` to
it, so `import jobs.lm_eval` before `lm_eval.simple_evaluate(model="dllm", ...)` does the same in
Python.

`model.py`: the harness's requests as requests of the engine
`texts.py`: texts as token ids
`arguments.py`: --model_args, and the settings of a generation
`ranks.py`: several processes under torchrun, each with its share of the requests
"""

try:
    from lm_eval.api.registry import model_registry
except ImportError as error:
    raise ImportError(
        "jobs.lm_eval needs lm-evaluation-harness: pip install 'dllm-pipeline[lm-eval]'"
    ) from error
import lm_eval.models  # noqa: F401 - fills the registry, which it would not do once it has an entry

NAME = "dllm"

if NAME not in model_registry:
    model_registry.register(NAME, target="jobs.lm_eval.model:DiffusionLM")
