"""Fast_dLLM_v2 (arXiv 2509.26328, generate): block-causal attention, shifted logits, sub-blocks."""

from engine.model.transformer import Transformer
from engine.request import Request
from tests.numerics.authors.drawing import NOTHING_HELD, Held, Sampling, without
from tests.numerics.authors.forwards import Kept, begin, best_first


def fast_dllm_v2(
    model: Transformer,
    request: Request,
    *,
    threshold: float,
    sub_block_length: int,
    use_block_cache: bool = False,
    held: Held = NOTHING_HELD,
) -> list[int]:
    """Sub-blocks from left to right; in each, all positions above the threshold commit, and the
    best.

    A block's first token comes from the forward that writes the K and V of the finished block
    before it, by arg max at any temperature, and commits alone on it. Where the block begins with
    the prompt's tail, or there is no block before it, that forward decides nothing. Theirs feeds no
    prompt of exactly one block; this loop does.

    `use_block_cache`: while a sub-block's first position is masked, and in a block's first forward,
    the whole block is computed; then the sub-block alone, whose K and V replace the block's.
    """
    sampling = Sampling(
        temperature=request.temperature,
        top_k=request.top_k,
        top_p=request.top_p,
        is_filtered=True,
        held=held,
    )
    length = model.config.block_length
    assert length is not None, "the model is not block-causal"
    run = begin(model, request, sampling, length)
    kept = Kept(model, len(run.canvas))
    num_prompt_tokens = len(request.prompt_ids)
    num_prefilled = num_prompt_tokens // length * length
    for start in range(num_prefilled, len(run.canvas), length):
        block = range(start, start + length)
        if start >= max(num_prompt_tokens, 1):
            before = range(0 if start == num_prefilled else start - length, start)
            row = without(kept.forward(run.canvas, before)[start], held.never)
            run.commit({start: int(row.argmax())})
        elif start > 0:
            kept.forward(run.canvas, range(start))
        has_block_cache = False
        for first in range(start, start + length, sub_block_length):
            sub_block = range(first, first + sub_block_length)
            while run.masked(sub_block):
                is_whole = not has_block_cache or run.canvas[first] == run.mask
                positions = block if is_whole or not use_block_cache else sub_block
                has_block_cache = True
                drawn = run.draw(kept.forward(run.canvas, positions), run.masked(sub_block))
                best = best_first(drawn)[0]
                chosen = [i for i in drawn if i == best or drawn[i].confidence > threshold]
                run.commit({i: drawn[i].word for i in chosen})
    return run.generated()
