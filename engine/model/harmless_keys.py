"""Keys of `config.json` that do not change what the model computes from a canvas.

Every family may have them. What only one family has stands in that family's module.
"""

_NAMES = """
_attn_implementation _attn_implementation_autoset _commit_hash _name_or_path architectures
attn_implementation auto_map dtype finetuning_task id2label label2id model_type name_or_path prefix
problem_type task_specific_params tokenizer_class torch_dtype transformers_version unsloth_fixed
unsloth_version
"""
"""What the files are called and were written with; the attention kernel of the authors' class."""

_TRAINING = """
attention_dropout aux_loss_alpha embedding_dropout gradient_checkpointing initializer_range
output_dropout output_router_logits resid_pdrop router_aux_loss_coef router_z_loss_coef seq_aux
"""
"""Initialisation, dropout and losses: of no effect in inference."""

_CALLS = """
chunk_size_feed_forward cross_attention_hidden_size output_attentions output_hidden_states
output_scores pretraining_tp return_dict return_dict_in_generate tf_legacy_loss tie_encoder_decoder
torchscript use_bfloat16 use_cache cache_implementation
"""
"""How transformers' classes are called and what they return."""

_GENERATION = """
bad_words_ids begin_suppress_tokens bos_token_id decoder_start_token_id diversity_penalty do_sample
early_stopping encoder_no_repeat_ngram_size exponential_decay_length_penalty forced_bos_token_id
forced_eos_token_id length_penalty max_length min_length no_repeat_ngram_size num_beam_groups
num_beams num_return_sequences pad_token_id remove_invalid_values repetition_penalty sep_token_id
suppress_tokens temperature top_k top_p typical_p
"""
"""Defaults of transformers' autoregressive `generate`, which no diffusion family uses."""

HARMLESS = frozenset(f"{_NAMES} {_TRAINING} {_CALLS} {_GENERATION}".split())
