import tomllib
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import ScalingType
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, FalconForCausalLM
from transformers.models.falcon import modeling_falcon

from falcon_job.model import loading
from falcon_job.model.attention import IMPLEMENTATION
from falcon_job.model.compat import keep_4bit_weights, multiply_float8, quantizable_falcon
from falcon_job.model.float8 import quantize_rows
from tests.inference.finished_run import base_of, finished_run
from tests.tiny_models import falcon_7b_type, falcon_40b_type

ROOT = Path(__file__).parents[2]
NO_LONGER_NEEDED = "the installed library needs no patch any more: delete {} from falcon_job/model/compat.py"


def runs_fused(implementation):
    """Whether Falcon's attention, with one key head for all query heads, runs where only a fused kernel is allowed."""
    model = falcon_7b_type(attn_implementation=implementation).eval()
    with torch.no_grad(), sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        try:
            model(torch.zeros(1, 8, dtype=torch.long))
        except RuntimeError as error:
            if "No available kernel" not in str(error):
                raise
            return False
    return True


def test_canary_transformers_own_falcon_attention_is_not_fused():
    fixed = runs_fused("sdpa") and FalconForCausalLM.is_backend_compatible()
    assert not fixed, NO_LONGER_NEEDED.format("FalconFusedAttention")


def test_under_the_patch_falcon_runs_on_a_fused_kernel():
    assert runs_fused(IMPLEMENTATION)


def load_4bit(folder):
    settings = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.bfloat16, quantization_config=settings, device_map={"": "cpu"}
    ).eval()


def four_bit_layers(model):
    from bitsandbytes.nn import Linear4bit

    return [name for name, module in model.named_modules() if isinstance(module, Linear4bit)]


@pytest.mark.parametrize("make", [falcon_7b_type, falcon_40b_type])
def test_canary_transformers_leaves_falcon_unquantized(tmp_path, make):
    make().save_pretrained(tmp_path)
    assert not four_bit_layers(load_4bit(tmp_path)), NO_LONGER_NEEDED.format("quantizable_falcon")


@pytest.mark.parametrize("make", [falcon_7b_type, falcon_40b_type])
def test_under_the_patch_all_of_falcon_is_quantized(tmp_path, make):
    model = make()
    model.save_pretrained(tmp_path)
    linear = [n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and n != "lm_head"]
    with quantizable_falcon():
        assert four_bit_layers(load_4bit(tmp_path)) == linear


def test_the_patch_is_taken_off_again_even_after_an_error():
    original = modeling_falcon.FalconLinear
    assert original is not torch.nn.Linear

    def fail():
        with quantizable_falcon():
            assert modeling_falcon.FalconLinear is torch.nn.Linear
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert modeling_falcon.FalconLinear is original


def test_the_patched_layer_computes_the_same():
    torch.manual_seed(0)
    patched, original = torch.nn.Linear(8, 4), modeling_falcon.FalconLinear(8, 4)
    original.load_state_dict(patched.state_dict())
    x = torch.randn(3, 8)
    torch.testing.assert_close(original(x), patched(x))


def ask_save_ask(model):
    """Logits before and after what every checkpoint and every added adapter does: read the weights."""
    ids = torch.arange(10, 40)[None]
    with torch.no_grad():
        before = model(input_ids=ids).logits
        model.state_dict()
        return before, model(input_ids=ids).logits


def packs_for_this_cpu() -> bool:
    from bitsandbytes.nn import Linear4bit

    return getattr(Linear4bit(4, 4), "support_avx512bf16_for_cpu", False)


@pytest.mark.skipif("not packs_for_this_cpu()", reason="only CPUs with bfloat16 instructions pack")
def test_canary_bitsandbytes_changes_a_frozen_4_bit_base(monkeypatch):
    monkeypatch.setattr(loading, "keep_4bit_weights", lambda model: None)
    before, after = ask_save_ask(base_of(finished_run().workspace, "nf4"))
    assert not torch.equal(before, after), NO_LONGER_NEEDED.format("keep_4bit_weights")


def test_a_frozen_4_bit_base_stays_the_same_after_its_weights_were_read():
    before, after = ask_save_ask(base_of(finished_run().workspace, "nf4"))
    assert torch.equal(before, after)


def test_keeping_4_bit_weights_leaves_other_models_alone():
    model = falcon_7b_type()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    keep_4bit_weights(model)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


def float8_matrices():
    draw = torch.Generator().manual_seed(0)
    (rows, row_scale), (columns, column_scale) = (
        quantize_rows(torch.randn(size, 64, generator=draw)) for size in (32, 48)
    )
    return rows, columns.t(), row_scale, column_scale.t()


def test_canary_torch_without_a_public_float8_product_on_cpus_is_allowed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (torch_allowed,) = (r for r in map(Requirement, project["dependencies"]) if r.name == "torch")
    assert "2.11.0" in torch_allowed.specifier, "use torch.nn.functional.scaled_mm in multiply_float8"


def test_the_public_float8_product_gives_the_same_bits():
    rows, columns, row_scale, column_scale = float8_matrices()
    by_row = ScalingType.RowWise
    try:
        public = functional.scaled_mm(rows, columns, row_scale, by_row, column_scale, by_row, use_fast_accum=True)
    except NotImplementedError:
        pytest.skip("torch 2.11 has no kernel for CPUs")
    assert torch.equal(multiply_float8(rows, columns, row_scale, column_scale), public)
