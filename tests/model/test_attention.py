import pytest
import torch
from torch._dynamo.testing import CompileCounter
from transformers import (
    FalconMambaConfig,
    Gemma2Config,
    Gemma3Config,
    GPTJConfig,
    GptOssConfig,
    MistralConfig,
    Qwen2Config,
)

from falcon_job.errors import InputError, MachineError
from falcon_job.machine import Machine
from falcon_job.model.attention import (
    IMPLEMENTATION,
    check_window,
    choose_implementation,
    choose_kernel,
    fused_attention,
)
from falcon_job.packing import Branch, Packer, Tree
from tests.tiny_models import VOCABULARY, falcon_7b_type, falcon_40b_type, llama_type

BUILDS = [falcon_7b_type, falcon_40b_type, llama_type]
CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def both(build):
    """The same weights under our attention and under transformers' own."""
    ours, theirs = build().eval(), build(attn_implementation="sdpa").eval()
    assert (ours.config._attn_implementation, theirs.config._attn_implementation) == (IMPLEMENTATION, "sdpa")
    return ours, theirs


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("padded", [False, True])
def test_logits_are_those_of_transformers_own_attention(build, padded):
    ours, theirs = both(build)
    ids = torch.randint(VOCABULARY, (2, 17), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[0, :4] = 1 - int(padded)
    with torch.no_grad():
        difference = ours(ids, attention_mask=mask).logits - theirs(ids, attention_mask=mask).logits

    assert difference[mask.bool()].abs().max() < 1e-5


@pytest.mark.parametrize("build", BUILDS)
def test_generation_with_a_cache_gives_the_same_tokens(build):
    ours, theirs = both(build)
    ids = torch.randint(VOCABULARY, (2, 9), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, :3] = 0
    settings = {"attention_mask": mask, "max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}

    assert torch.equal(ours.generate(ids, **settings), theirs.generate(ids, **settings))


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_each_key_head_serves_the_query_heads_next_to_each_other(groups):
    draw = torch.Generator().manual_seed(2)
    query = torch.randn(2, 4, 7, 8, generator=draw)
    key, value = torch.randn(2, 2, groups, 7, 8, generator=draw)
    output, scores = fused_attention(torch.nn.Identity(), query, key, value, None)
    causal = torch.ones(7, 7, dtype=torch.bool).tril()
    for head in range(4):
        group = head * groups // 4
        weights = (query[:, head] @ key[:, group].mT / 8**0.5).masked_fill(~causal, -torch.inf).softmax(-1)
        assert torch.allclose(output[:, :, head], weights @ value[:, group], atol=1e-6)
    assert scores is None


TREES = [
    Tree([5, 6, 7], (Branch([8], [9]), Branch([8, 10], [11]))),
    Tree([], (Branch([12, 13], [14]), Branch([15], [16, 17]))),
    Tree([18], (Branch([19], []),)),
]


@pytest.fixture
def pack():
    """Heads, mask and positions of a pack of three trees, one of them closed-book."""
    pack = Packer.dense(64).make_pack(TREES)
    heads = torch.randn(3, 1, 4, len(pack), 12, generator=torch.Generator().manual_seed(0))
    return heads.double(), pack.mask, pack.position_ids


def test_attending_tree_by_tree_on_a_cpu_gives_the_same_as_the_whole_pack(pack):
    heads, mask, positions = pack
    found = []
    for told in (positions, None):
        inputs = heads.clone().requires_grad_()
        output, _ = fused_attention(None, *inputs, mask, position_ids=told)
        (gradient,) = torch.autograd.grad(output.square().sum(), inputs)
        found.append((output.detach(), gradient))

    for apart, whole in zip(*found, strict=True):
        torch.testing.assert_close(apart, whole, rtol=0, atol=1e-12)


def test_packs_of_any_number_of_trees_compile_once(pack):
    heads, mask, positions = pack
    compiler = CompileCounter()
    torch._dynamo.reset()
    compiled = torch.compile(fused_attention, backend=compiler, dynamic=True)
    for end in (len(TREES[0]), len(TREES[0]) + len(TREES[1]), heads.shape[3]):
        parts = (*heads[:, :, :, :end], mask[..., :end, :end], positions[:, :end])
        query, key, value, seen, places = (part.contiguous() for part in parts)
        compiled(None, query, key, value, seen, position_ids=places)

    assert compiler.frame_count == 1


def test_a_tree_is_computed_without_the_others(pack):
    heads, mask, positions = pack
    first = len(TREES[0])
    heads[:, :, :, first:] = torch.nan
    output, _ = fused_attention(None, *heads, mask, position_ids=positions)

    assert output[:, :first].isfinite().all()


WIDE = {"hidden_size": 64}


@pytest.fixture
def gpu(monkeypatch):
    """Pretend that Triton is installed, or not, beside a GPU of some compute capability."""

    def pretend(capability=(9, 0), triton=True):
        found = object() if triton else None
        monkeypatch.setattr("falcon_job.model.attention.find_spec", lambda _: found)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)

    return pretend


def test_flex_is_chosen_on_a_gpu_with_triton_for_models_on_the_interface(gpu):
    config = falcon_7b_type(**WIDE).config
    gpu()
    assert choose_kernel(CUDA, config, Machine()) == "flex"
    assert choose_kernel(CUDA, llama_type(**WIDE).config, Machine()) == "flex"
    assert choose_kernel(CUDA, GPTJConfig(n_embd=64, n_head=4), Machine()) == "sdpa"
    assert choose_kernel(CUDA, falcon_7b_type().config, Machine()) == "sdpa", "its heads are too small"
    assert choose_kernel(CPU, config, Machine()) == "sdpa"
    assert choose_kernel(CUDA, config, Machine(attention="sdpa")) == "sdpa"
    gpu(triton=False)
    assert choose_kernel(CUDA, config, Machine()) == "sdpa"
    gpu(capability=(6, 1))
    assert choose_kernel(CUDA, config, Machine()) == "sdpa"


def test_flex_on_a_cpu_is_refused():
    with pytest.raises(MachineError, match="FALCON_JOB_ATTENTION=flex needs a GPU"):
        choose_kernel(CPU, falcon_7b_type(**WIDE).config, Machine(attention="flex"))


@pytest.mark.parametrize("config", [Gemma2Config, GptOssConfig])
def test_models_that_attend_by_more_than_a_mask_keep_sdpa(config):
    assert choose_implementation(config()) == "sdpa"


@pytest.mark.parametrize("config", [FalconMambaConfig, Gemma3Config])
def test_configurations_without_attention_heads_are_accepted(config, gpu):
    gpu()
    assert choose_kernel(CPU, config(), Machine()) == "sdpa"
    choose_kernel(CUDA, config(), Machine())


def test_a_sliding_window_shorter_than_the_sequences_is_refused():
    with pytest.raises(InputError, match=r"sliding window of 256 tokens, .* preprocess.max_tokens=384.* at most 256"):
        check_window(MistralConfig(sliding_window=256), 384)
    with pytest.raises(InputError, match="sliding window of 64 tokens"):
        check_window(Qwen2Config(sliding_window=64, use_sliding_window=True, max_window_layers=4), 384)


@pytest.mark.parametrize(
    "config",
    [
        MistralConfig(sliding_window=384),
        Qwen2Config(sliding_window=64, use_sliding_window=False),
        Qwen2Config(sliding_window=64, use_sliding_window=True, layer_types=["full_attention"] * 32),
        FalconMambaConfig(),
    ],
)
def test_models_without_a_shorter_window_pass(config):
    check_window(config, 384)
