"""Which field does a name mean that is no field? Other projects' names, and misspellings."""

from difflib import get_close_matches

from engine.from_dict import defaults_of
from pipeline.config.fields import GROUPS, Field, all_fields, sections
from pipeline.config.job import COMPONENTS, SECTIONS, JobConfig

FOREIGN: dict[str, str] = {
    "model.path": "model_path model_name model_name_or_path model_id model_dir pretrained "
    "pretrained_model_name_or_path checkpoint checkpoint_path ckpt ckpt_path hf_model llm",
    "model.revision": "model_revision",
    "model.dtype": "torch_dtype precision",
    "data.path": "input inputs input_file input_files input_path input_dir dataset dataset_path "
    "dataset_name data_path data_file data_files data_dir prompts prompt_file files file",
    "data.where": "filter condition query",
    "data.limit": "max_samples max_rows max_examples num_examples num_prompts num_rows head",
    "data.id_column": "id_field id_key",
    "data.carry": "keep_columns columns_to_keep",
    "data.part_rows": "shard_size rows_per_shard chunk_size rows_per_file save_every",
    "output": "output_dir output_path output_folder output_file out out_dir save_dir save_path "
    "save_folder run_dir result_dir results_dir work_dir",
    "prompt.column": "prompt_column prompt_field prompt_key text_column text_field input_column "
    "content_column question_column",
    "prompt.messages_column": "messages_field conversation_column conversations",
    "prompt.system": "system_prompt system_message",
    "prompt.template": "prompt_template",
    "prompt.chat": "apply_chat_template use_chat_template chat_template raw_prompt",
    "generation.max_new_tokens": "max_tokens max_output_tokens max_completion_tokens max_gen_toks "
    "max_length gen_length gen_len generation_length answer_length n_predict max_gen_len",
    "generation.temperature": "temp sampling_temperature",
    "generation.num_samples": "n num_return_sequences n_samples samples num_generations best_of",
    "seed": "random_seed manual_seed rng_seed",
    "decoding": "remasking remasking_strategy alg algorithm sampler decoding_strategy strategy "
    "unmasking_strategy dllm_unmasking_strategy decode",
    "decoding.threshold": "confidence_threshold dynamic_threshold conf_threshold "
    "dllm_confidence_threshold",
    "decoding.iterations_per_block": "steps num_steps denoising_steps diffusion_steps "
    "steps_per_block num_inference_steps sampling_steps dllm_denoising_steps",
    "cache": "use_cache dual_cache use_dual_cache cache_policy kv_cache cache_type "
    "enable_prefix_caching",
    "engine.block_length": "block_len bd_size dllm_block_length block_size",
    "engine.stop_at_eos": "ignore_eos early_stop early_stopping stop_on_eos",
    "engine.max_sequences": "batch_size max_batch_size bs eval_batch_size max_num_seqs "
    "per_device_eval_batch_size per_device_batch_size max_running_requests num_seqs concurrency",
    "engine.iteration_tokens": "max_num_batched_tokens max_batch_tokens max_prefill_tokens "
    "chunked_prefill_size max_prefill_token_num",
    "engine.memory_fraction": "gpu_memory_utilization mem_fraction_static cache_max_entry_count "
    "gpu_mem_util",
    "engine.cache_tokens": "max_total_tokens max_kv_tokens num_kv_tokens",
    "engine.page_size": "kv_block_size cache_block_seq_len",
    "engine.tensor_parallel": "tensor_parallel_size tensor_model_parallel_size tp tp_size "
    "tensor_parallel_degree",
    "engine.expert_parallel": "enable_expert_parallel expert_parallel_size ep ep_size",
    "task": "benchmark eval_task tasks",
    "threads": "num_threads omp_num_threads cpu_threads",
    "retry_failed": "retry",
    "dry_run": "dryrun preview",
    "conf": "config config_name job recipe",
}
"""Field or group -> what vLLM, SGLang, LMDeploy, transformers, lm-eval, dInfer and Fast-dLLM call
it."""
ELSEWHERE = {
    "torchrun --nproc-per-node=N starts N workers": "data_parallel_size dp dp_size num_gpus gpus "
    "n_gpus num_workers workers nproc_per_node devices world_size num_processes device",
    "there is no such setting: tokens are drawn from the whole distribution": "top_p top_k min_p "
    "repetition_penalty presence_penalty frequency_penalty num_beams do_sample",
}
"""What to do -> names of things that no field sets."""


def no_such_field(key: str, value: str | None) -> str:
    """The message for `key=value` where `key` is no field: what was probably meant, and the fields
    that there are."""
    shown = key if value is None else f"{key}={value}"
    meant = [f"{name}={'NAME' if name in (*GROUPS, 'conf') else value}" for name in alike(key)]
    last = _plain(key).rpartition(".")[2]
    told = next((told for told, names in ELSEWHERE.items() if last in names.split()), None)
    if told is not None:
        return f"{shown}: no such field; {told}"
    did_you = f"did you mean {' or '.join(meant)}? " if meant else ""
    return f"{shown}: no such field; {did_you}{fields_of(key.rpartition('.')[0])}"


def alike(key: str) -> list[str]:
    """The fields and groups that `key` may stand for, the likeliest first; at most three."""
    plain = _plain(key)
    last = plain.rpartition(".")[2]
    names = [*(name for name in all_fields() if name != "name"), *GROUPS, "conf"]
    named = [name for name in names if name.rpartition(".")[2] == last]
    if named:
        return sorted(named, key=lambda name: name.startswith("columns."))[:1]
    foreign = [name for name, others in FOREIGN.items() if last in others.split()]
    if foreign:
        return foreign
    by_last: dict[str, str] = {}
    for name in sorted(names, key=lambda name: name.startswith("columns.")):
        by_last.setdefault(name.rpartition(".")[2], name)
    close = get_close_matches(plain, names, n=1, cutoff=0.8)
    close += [by_last[name] for name in get_close_matches(last, by_last, n=2, cutoff=0.75)]
    return list(dict.fromkeys(close))


def fields_of(section: str) -> str:
    """The fields of a section, such as `data` or `engine.soft`; '' is the root config."""
    found = [name for place, its in sections().items() for name in _below(section, place, its)]
    if section in COMPONENTS:
        choices = (
            f"with {section}={name} {', '.join(defaults_of(cls)) or 'no field'}"
            for name, cls in COMPONENTS[section].items()
        )
        return f"{section} has {'; '.join(choices)}"
    if section and found:
        return f"{section} has {', '.join(dict.fromkeys(found))}"
    scalars = [name for name in defaults_of(JobConfig) if name not in (*GROUPS, "name")]
    return f"there are the groups conf, {', '.join(GROUPS)} and the fields {', '.join(scalars)}"


def is_section(key: str) -> bool:
    """Whether `key` is a section whose fields can be given together: `engine.soft={...}`."""
    return key in SECTIONS or any(name.startswith(f"{key}.") for name in all_fields())


def _below(section: str, place: str, its: list[Field]) -> list[str]:
    if place != section.partition(".")[0]:
        return []
    prefix = f"{section}."
    return [
        field.name.removeprefix(prefix).partition(".")[0]
        for field in its
        if field.name.startswith(prefix)
    ]


def _plain(key: str) -> str:
    return key.lstrip("-+~").replace("-", "_").lower()
