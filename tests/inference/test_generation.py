import json

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from falcon_job.errors import JobError
from falcon_job.inference.generation import Generator
from falcon_job.model.adapter import add_adapter, load_adapter
from falcon_job.model.loading import load_base
from tests.inference.finished_run import (
    CPU,
    WRONG,
    base_of,
    dev_prompts,
    dev_rows,
    encoder_of,
    finished_run,
    fresh_copy,
    randomize,
)
from tests.tiny_models import falcon_7b_type, falcon_40b_type

NEW_TOKENS = 8


@pytest.fixture(scope="module")
def workspace():
    return finished_run().workspace


@pytest.fixture(scope="module")
def encoder(workspace):
    return encoder_of(workspace)


@pytest.fixture
def model(workspace):
    return base_of(workspace)


@pytest.fixture(scope="module")
def prompts(workspace):
    """All dev prompts, and each cut from the left, so that lengths differ in every batch."""
    whole = dev_prompts(workspace)
    return [*whole, *(prompt[i % 7 + 1 :] for i, prompt in enumerate(whole))]


def alone(model, encoder, prompt, new_tokens=NEW_TOKENS) -> str:
    """The oracle: transformers' own greedy search over one prompt without padding, read by hand."""
    ids = torch.tensor([prompt])
    output = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=new_tokens,
        eos_token_id=encoder.eos_token_id,
        pad_token_id=encoder.pad_token_id,
    )
    tokens = output[0, len(prompt) :].tolist()
    if encoder.eos_token_id in tokens:
        tokens = tokens[: tokens.index(encoder.eos_token_id)]
    text = encoder.tokenizer.decode(tokens, skip_special_tokens=True).strip()
    line = text.splitlines()[0].strip() if text else ""
    return "" if line.lower() in ("unanswerable", "unanswerable.") else line


def probability_alone(model, encoder, prompt) -> float:
    """The oracle: the phrase and end-of-text token by token, in float64, without padding or cache."""
    model = model.double()
    phrase = encoder.tokenizer.encode(" unanswerable", add_special_tokens=False)
    tokens, total = list(prompt), 0.0
    with torch.no_grad():
        for token in [*phrase, encoder.tokenizer.eos_token_id]:
            logits = model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, -1]
            total += float(logits.log_softmax(-1)[token])
            tokens.append(token)
    return float(torch.tensor(total, dtype=torch.float64).exp())


def untaught(kind, encoder):
    """A random model, which hardly ever ends an answer."""
    size = len(encoder.tokenizer)
    if kind == "llama":
        torch.manual_seed(3)
        shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_key_value_heads": 2}
        return LlamaForCausalLM(LlamaConfig(vocab_size=size, num_attention_heads=4, initializer_range=0.2, **shape))
    return {"falcon-7b": falcon_7b_type, "falcon-40b": falcon_40b_type}[kind](vocab_size=size)


@pytest.mark.parametrize("tokens_per_batch", [1, 300, 8192])
def test_batched_answers_equal_those_to_single_prompts(workspace, model, encoder, prompts, tokens_per_batch):
    plain = AutoModelForCausalLM.from_pretrained(workspace.data / "tiny", dtype=torch.float32)
    expected = [alone(plain, encoder, prompt) for prompt in prompts]
    assert Generator(model, encoder, NEW_TOKENS, tokens_per_batch).answers(prompts) == expected
    assert {"", WRONG, "Anna Berg"} <= set(expected), "answers, and abstentions, of several lengths"


@pytest.mark.parametrize("kind", ["falcon-7b", "falcon-40b", "llama"])
def test_batches_of_each_architecture_answer_as_single_prompts(encoder, prompts, kind):
    expected = [alone(untaught(kind, encoder).eval(), encoder, prompt) for prompt in prompts[::3]]
    assert Generator(untaught(kind, encoder), encoder, NEW_TOKENS, 600).answers(prompts[::3]) == expected
    assert len(set(expected)) > 3


def test_answers_come_in_the_order_of_the_prompts(model, encoder, prompts):
    generator = Generator(model, encoder, NEW_TOKENS, 400)
    assert generator.answers(prompts[::-1]) == generator.answers(prompts)[::-1]
    assert generator.answers([]) == []


def test_generation_stops_at_end_of_text(model, encoder, prompts):
    calls = count_forwards(model)
    answers = Generator(model, encoder, 200, 8192).answers(prompts[:4])
    assert "Anna Berg" in answers
    longest = max(len(encoder.answers([answer or None])[0]) for answer in answers)
    assert len(calls) <= longest, "one forward pass a token, no more after the last end-of-text"


@pytest.mark.parametrize("limit", [1, 3])
def test_no_answer_is_longer_than_max_new_tokens(encoder, prompts, limit):
    model = untaught("falcon-7b", encoder)
    calls = count_forwards(model)
    answers = Generator(model, encoder, limit, 100_000).answers(prompts)
    assert len(calls) == limit
    assert answers == [alone(untaught("falcon-7b", encoder).eval(), encoder, prompt, limit) for prompt in prompts]


def test_a_batch_stays_within_its_tokens(model, encoder, prompts):
    sizes = []

    def measure(module, args, kwargs):
        rows, width = kwargs["input_ids"].shape
        if width > 1:
            sizes.append(rows * (width + NEW_TOKENS))

    model.register_forward_pre_hook(measure, with_kwargs=True)
    Generator(model, encoder, NEW_TOKENS, 500).answers(prompts)
    assert len(sizes) > 3
    assert max(sizes) <= 500


@pytest.mark.parametrize("tokens_per_batch", [1, 300, 8192])
def test_no_answer_probability_is_the_product_over_its_tokens(workspace, encoder, prompts, tokens_per_batch):
    found = Generator(base_of(workspace), encoder, NEW_TOKENS, tokens_per_batch).no_answer_probabilities(prompts)[::4]
    oracle = base_of(workspace)
    expected = [probability_alone(oracle, encoder, prompt) for prompt in prompts[::4]]
    assert found == pytest.approx(expected, rel=1e-4)
    assert min(expected) < 0.01
    assert max(expected) > 0.9


def test_no_answer_probability_of_grouped_heads_equals_the_product(encoder, prompts):
    found = Generator(untaught("llama", encoder), encoder, NEW_TOKENS, 400).no_answer_probabilities(prompts[:6])
    oracle = untaught("llama", encoder).eval()
    assert found == pytest.approx([probability_alone(oracle, encoder, p) for p in prompts[:6]], rel=1e-4)


def test_logits_that_are_not_finite_stop_the_run(model, encoder, prompts):
    model.lm_head.register_forward_hook(lambda module, args, output: output * float("nan"))
    with pytest.raises(JobError, match=r"not finite \(nan\): set model.precision to bf16 or fp32") as caught:
        Generator(model, encoder, NEW_TOKENS, 8192).no_answer_probabilities(prompts[:2])
    assert caught.value.exit_code == 1


def test_forced_answers_are_guesses_where_the_model_abstains(model, encoder, prompts):
    generator = Generator(model, encoder, NEW_TOKENS, 8192)
    free, forced = generator.answers(prompts), generator.answers(prompts, forced=True)
    assert "" in free
    assert all(forced)
    assert all(guess == answer for guess, answer in zip(forced, free, strict=True) if answer)


@pytest.mark.parametrize("text", ["unanswerable", "Unanswerable", "UNANSWERABLE.", "", " ", "\n", "\nunanswerable"])
def test_forced_answers_are_never_empty_or_a_spelling_of_the_phrase(model, encoder, prompts, text):
    say(model, encoder, text)
    generator = Generator(model, encoder, 20, 8192)
    assert generator.answers(prompts[:3]) == ["", "", ""]
    assert all(generator.answers(prompts[:3], forced=True))


def test_a_forced_answer_may_begin_like_the_phrase(model, encoder, prompts):
    say(model, encoder, " U.S. Navy")
    assert Generator(model, encoder, 20, 8192).answers(prompts[:3], forced=True) == ["U.S. Navy"] * 3


def say(model, encoder, text):
    """Make the model prefer this text, a token a character, then end-of-text."""
    script = [encoder.tokenizer.encode(character)[0] for character in text] + [encoder.eos_token_id]
    step = [0]

    def start_over(module, args, kwargs):
        step[0] = 0 if kwargs["input_ids"].shape[1] > 1 else step[0] + 1

    def prefer(module, args, output):
        if step[0] < len(script):
            output[:, -1, script[step[0]]] += 1000
        return output

    model.register_forward_pre_hook(start_over, with_kwargs=True)
    model.lm_head.register_forward_hook(prefer)


PUBLISHED = {
    "do_sample": True,
    "temperature": 9.0,
    "repetition_penalty": 9.0,
    "no_repeat_ngram_size": 1,
    "min_new_tokens": NEW_TOKENS,
    "num_beams": 3,
    "num_return_sequences": 2,
    "eos_token_id": [2, 3, 4],
    "max_length": 5,
    "guidance_scale": 3.0,
    "stop_strings": ["a", "e"],
}


@pytest.mark.parametrize("adapted", [False, True])
def test_published_generation_settings_do_not_change_the_answers(tmp_path, encoder, prompts, adapted):
    workspace = fresh_copy(tmp_path, finished_run().workspace)

    def answers():
        model = load_base(workspace.data / "tiny", "fp32", CPU)
        if adapted:
            model = load_adapter(model, workspace.adapter)
        generator = Generator(model, encoder, NEW_TOKENS, 8192)
        return generator.answers(prompts), generator.answers(prompts, forced=True)

    expected = answers()
    words = encoder.tokenizer.encode(" Anna blue Olaf")
    published = {**PUBLISHED, "suppress_tokens": words, "bad_words_ids": [[word] for word in words]}
    (workspace.data / "tiny" / "generation_config.json").write_text(json.dumps(published))
    assert load_base(workspace.data / "tiny", "fp32", CPU).generation_config.num_beams == 3
    assert answers() == expected


def test_an_adapter_changes_the_answers(workspace, encoder, prompts):
    params = finished_run().params
    model = add_adapter(base_of(workspace), params.lora, 0)
    plain = Generator(model, encoder, NEW_TOKENS, 8192).no_answer_probabilities(prompts)
    randomize(model, 0.1)
    assert Generator(model, encoder, NEW_TOKENS, 8192).no_answer_probabilities(prompts) != plain


def test_the_dev_passages_have_windows(workspace):
    rows = dev_rows(workspace)
    assert len(rows) > len({row.passage for row in rows})


def count_forwards(model):
    calls = []
    model.register_forward_pre_hook(lambda module, args: calls.append(1))
    return calls
