"""Packed prefill and decoding, against transformers' generate and a plain forward pass on each prompt alone."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GenerationConfig

from falcon_job.inference.decoding import decode
from falcon_job.inference.prefill import prefill
from falcon_job.packing import Branch, Packer, Tree
from tests.tiny_models import falcon_7b_type, falcon_40b_type, llama_type, with_lora

END = 1
PHRASE = (90, 91, END)
FORBIDDEN = (PHRASE[0], END)
CPU = torch.device("cpu")
TOKENS = st.integers(2, 89)
PROMPTS = st.lists(TOKENS, min_size=1, max_size=6, unique=True).map(tuple)
TREES = st.builds(
    lambda prefix, prompts: Tree(prefix, tuple(Branch(prompt, PHRASE) for prompt in prompts)),
    st.lists(TOKENS, max_size=20).map(tuple),
    st.lists(PROMPTS, min_size=1, max_size=5, unique=True),
)
MODELS = {
    "falcon_7b": falcon_7b_type().eval(),
    "falcon_40b": falcon_40b_type().eval(),
    "llama": llama_type(initializer_range=0.3).eval(),
    "adapter": with_lora(falcon_7b_type(seed=1)).eval(),
    "sdpa": falcon_7b_type(attn_implementation="sdpa").eval(),
}


@torch.inference_mode()
def answer(model, trees, packer, max_new_tokens):
    """Return, for each prompt with its prefix, the decoded answer and the log probability of the phrase."""
    keyed = [
        Tree(tree.prefix_ids, tuple(replace(b, key=(*tree.prefix_ids, *b.prompt_ids)) for b in tree.branches))
        for tree in trees
    ]
    prefills = [prefill(model, pack, CPU) for pack in packer.make_packs(keyed)]
    decoded = decode(model, prefills, max_new_tokens=max_new_tokens, end=END, forbidden_starts=FORBIDDEN)
    prompts = [key for each in prefills for key in each.keys]
    assert sorted(prompts) == sorted(branch.key for tree in keyed for branch in tree.branches)
    phrases = torch.cat([each.log_probabilities for each in prefills]).tolist()
    return list(zip(prompts, decoded, phrases, strict=True))


@torch.inference_mode()
def generated(model, prompt, max_new_tokens):
    """The oracle: transformers' greedy generate, on the prompt alone."""
    config = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        eos_token_id=END,
        pad_token_id=0,
        begin_suppress_tokens=list(FORBIDDEN),
    )
    return model.generate(input_ids=torch.tensor([prompt]), generation_config=config)[0, len(prompt) :].tolist()


@torch.inference_mode()
def log_probability(model, prompt, continuation):
    """The oracle: a plain forward pass over prompt and continuation."""
    logits = model(input_ids=torch.tensor([[*prompt, *continuation]])).logits[0].double().log_softmax(-1)
    return sum(logits[len(prompt) - 1 + i, token].item() for i, token in enumerate(continuation))


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=15)
@given(trees=st.lists(TREES, min_size=1, max_size=4), length=st.sampled_from([40, 64, 512]), new=st.integers(1, 6))
def test_answers_equal_those_of_generate_on_each_prompt_alone(name, trees, length, new):
    model = MODELS[name]
    for prompt, decoded, phrase in answer(model, trees, Packer.dense(length), new):
        assert decoded.token_ids == generated(model, prompt, new)
        assert decoded.log_probability == pytest.approx(log_probability(model, prompt, decoded.token_ids), abs=1e-4)
        assert phrase == pytest.approx(log_probability(model, prompt, PHRASE), abs=1e-4)


def test_rows_that_finish_early_are_dropped_and_keep_their_answers():
    """Another end token cuts the same greedy answers at different lengths."""
    model = falcon_7b_type(seed=3).eval()
    pack = Packer.dense(512).make_pack([Tree((5, 6), tuple(Branch((k, 7), PHRASE) for k in range(8, 40)))])
    rows = []
    model.register_forward_pre_hook(lambda _, args, kwargs: rows.append(len(kwargs["input_ids"])), with_kwargs=True)

    def answers(end):
        done = decode(model, [prefill(model, pack, CPU)], max_new_tokens=8, end=end, forbidden_starts=())
        return [each.token_ids for each in done]

    with torch.inference_mode():
        whole = answers(end=-1)
        end = Counter(token for each in whole for token in set(each[1:-1])).most_common(1)[0][0]
        cut = answers(end)
    assert cut == [each[: each.index(end) + 1] if end in each else each for each in whole]
    assert len({len(each) for each in cut}) > 1, "answers of one length would show nothing"
    assert rows[8:][1] == len(whole) > rows[-1], "the batch shrinks"


def test_keys_and_values_are_kept_unexpanded():
    model = falcon_7b_type().eval()
    with torch.inference_mode():
        done = prefill(model, Packer.dense(64).make_pack([Tree((5, 6), (Branch((7,), PHRASE),))]), CPU)

    assert {layer.keys.shape for layer in done.cache.layers} == {(1, 1, 6, 8)}, "one key head for four query heads"


@pytest.mark.parametrize("make", [Packer.dense, Packer.block_sparse])
def test_the_slots_of_a_prompt_are_its_prefix_and_its_own(make):
    tree = Tree((5, 6), (Branch((7, 8), PHRASE), Branch((7, 9), PHRASE)))
    pack = make(256).make_pack([tree, Tree((4,), (Branch((3,), PHRASE),))])

    assert [pack.input_ids[0, slots].tolist() for slots in pack.prompt_slots()] == [[5, 6, 7, 8], [5, 6, 7, 9], [4, 3]]
