"""The names that other projects have for our fields."""

FOREIGN: dict[str, str] = {
    "model.path": "model_path model_name model_name_or_path model_id model_dir pretrained "
    "pretrained_model_name_or_path checkpoint checkpoint_path ckpt ckpt_path hf_model llm",
    "model.revision": "model_revision",
    "model.dtype": "torch_dtype precision",
    "model.max_positions": "max_model_len max_seq_len max_position_embeddings context_length "
    "session_len model_max_length",
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
    "prompt.add_bos": "add_bos_token",
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
    "there is no such setting: temperature, top_k and top_p are what shapes a draw": "min_p "
    "repetition_penalty presence_penalty frequency_penalty num_beams do_sample",
}
"""What to do -> names of things that no field sets."""
SLURM_FOREIGN: dict[str, str] = {
    "slurm": "cluster hydra/launcher launcher executor",
    "slurm.partition": "queue slurm_partition",
    "slurm.account": "slurm_account project",
    "slurm.qos": "slurm_qos",
    "slurm.nodes": "nnodes num_nodes n_nodes node_count",
    "slurm.gpus_per_node": "gpus gres n_gpus num_gpus devices gpus_per_task slurm_gpus_per_node",
    "slurm.gpu_type": "gpu gpu_name",
    "slurm.ranks_per_node": "ntasks ntasks_per_node tasks_per_node n_tasks nproc_per_node "
    "num_workers workers num_processes",
    "slurm.cpus_per_gpu": "cpus_per_task cpus cores num_cpus",
    "slurm.cpus_per_node": "cpus_per_task cpus cores num_cpus",
    "slurm.memory": "mem mem_gb memory_gb mem_per_node mem_per_cpu mem_per_gpu",
    "slurm.time": "time_limit timelimit timeout_min timeout timeout_hours walltime time_min",
    "slurm.signal_s": "signal signal_delay_s",
    "slurm.max_requeues": "max_num_timeout max_restarts requeues",
    "slurm.constraint": "feature features slurm_constraint",
    "slurm.exclude": "exclude_nodes slurm_exclude",
    "slurm.container": "image container_image docker_image sif",
    "slurm.container_mounts": "mounts binds bind",
    "slurm.setup": "modules module_load setup_commands prologue slurm_setup venv condaenv",
    "slurm.env": "env_vars environment export",
    "slurm.extra": "sbatch_args additional_parameters slurm_additional_parameters srun_args",
    "slurm.array_at_once": "array_parallelism slurm_array_parallelism",
    "slurm.array": "num_jobs n_jobs jobs",
    "slurm.after": "dependency depends depends_on depends_job_id afterok",
    "slurm.mail": "mail_user mail_type email",
    "slurm.folder": "log_dir logs_dir slurm_dir submitit_folder logging_dir",
}
"""Field of jobs.submit -> what sbatch, submitit, Hydra's launchers, datatrove and NeMo call it."""
