import pytest
import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
from transformers.models.falcon import modeling_falcon

from falcon_job.model import loading
from falcon_job.model.compat import keep_4bit_weights, quantizable_falcon
from tests.inference.finished_run import base_of, finished_run
from tests.tiny_models import falcon_7b_type, falcon_40b_type

NO_LONGER_NEEDED = "the installed library needs no patch any more: delete {} from falcon_job/model/compat.py"


def load_4bit(folder):
    settings = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.bfloat16, quantization_config=settings, device_map={"": "cpu"}
    ).eval()


def four_bit_layers(model):
    from bitsandbytes.nn import Linear4bit

    return [name for name, module in model.named_modules() if isinstance(module, Linear4bit)]


@pytest.mark.parametrize("make", [falcon_7b_type, falcon_40b_type])
def test_canary_the_installed_transformers_leaves_falcon_unquantized(tmp_path, make):
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
def test_canary_bitsandbytes_changes_a_frozen_4_bit_base_on_this_cpu(monkeypatch):
    monkeypatch.setattr(loading, "keep_4bit_weights", lambda model: None)
    before, after = ask_save_ask(base_of(finished_run().workspace, "nf4"))
    assert not torch.equal(before, after), NO_LONGER_NEEDED.format("keep_4bit_weights")


def test_a_frozen_4_bit_base_answers_the_same_after_its_weights_were_read():
    before, after = ask_save_ask(base_of(finished_run().workspace, "nf4"))
    assert torch.equal(before, after)


def test_keeping_4_bit_weights_leaves_other_models_alone():
    model = falcon_7b_type()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    keep_4bit_weights(model)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
