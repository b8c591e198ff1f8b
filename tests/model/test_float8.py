import pytest
import torch

from falcon_job.errors import InputError
from falcon_job.model.adapter import add_adapter
from falcon_job.model.compute import ComputeSettings, prepare_layers
from falcon_job.model.float8 import FLOAT8, Float8Linear, products_in_input_dtype, quantize_rows, to_float8
from falcon_job.params import load_params
from tests.test_presets import PRESETS
from tests.tiny_models import VOCABULARY, falcon_7b_type

CPU = torch.device("cpu")
ROUNDING = 2.0**-4
"""Half a unit in the last place of e4m3, relative."""


def linear(rows=48, columns=64, bias=False, seed=0):
    torch.manual_seed(seed)
    return torch.nn.Linear(columns, rows, bias=bias).to(torch.bfloat16)


def relative(value, reference):
    return float((value.double() - reference.double()).norm() / reference.double().norm())


def test_rounding_is_within_half_a_unit_in_the_last_place_at_any_size():
    values = torch.randn(5, 64) * torch.tensor([[1e-20], [1e-3], [1.0], [1e4], [1e20]])
    rows, scale = quantize_rows(values)
    back = rows.float() * scale

    assert rows.dtype == FLOAT8
    large = values.abs() > values.abs().amax(-1, keepdim=True) / 1000  # below, e4m3 has fewer digits
    assert ((back - values).abs() <= ROUNDING * values.abs())[large].all()


def test_a_row_of_zeros_stays_zero():
    rows, scale = quantize_rows(torch.zeros(2, 16, dtype=torch.bfloat16))

    assert (rows.float() * scale == 0).all()


@pytest.mark.parametrize("bias", [False, True])
def test_product_and_gradient_equal_those_in_float64_up_to_rounding(bias):
    original = linear(bias=bias)
    layer = Float8Linear.from_linear(original, CPU)
    inputs = torch.randn(2, 10, 64, dtype=torch.bfloat16, requires_grad=True)
    exact = inputs.detach().double().requires_grad_()
    gradient = torch.randn(2, 10, 48, dtype=torch.bfloat16)

    output, expected = layer(inputs), original.double()(exact)
    output.backward(gradient)
    expected.backward(gradient.double())

    assert output.dtype == inputs.grad.dtype == torch.bfloat16
    assert relative(output, expected) < ROUNDING
    assert relative(inputs.grad, exact.grad) < ROUNDING


def test_rows_of_very_different_size_do_not_share_a_scale():
    """With one scale for all, the small ones would round to nothing."""
    layer, original = Float8Linear.from_linear(linear(), CPU), linear()
    inputs = torch.randn(2, 64, dtype=torch.bfloat16) * torch.tensor([[1e-6], [1e6]], dtype=torch.bfloat16)

    for row in range(2):
        assert relative(layer(inputs)[row], original(inputs)[row]) < ROUNDING


def test_the_output_for_a_token_does_not_depend_on_its_pack():
    layer = Float8Linear.from_linear(linear(), CPU)
    tokens = torch.randn(6, 64, dtype=torch.bfloat16)
    tokens[3] *= 1000

    assert torch.equal(layer(tokens)[:3], layer(tokens[:3]))


def test_the_weight_takes_one_byte_a_number_and_is_frozen():
    layer = Float8Linear.from_linear(linear(), CPU)

    assert layer.weight.element_size() == 1
    assert not layer.weight.requires_grad
    assert layer.scale.shape == (48, 1)


def test_all_linear_layers_but_the_head_are_converted():
    model = falcon_7b_type().to(torch.bfloat16)
    head = model.get_output_embeddings()
    count = to_float8(model, head, CPU)

    left = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and not isinstance(m, Float8Linear)]
    assert left == [head]
    assert count == 2 * 4


def test_layers_that_are_not_multiples_of_16_are_named():
    model = falcon_7b_type(hidden_size=24)
    with pytest.raises(InputError, match=r"fp8 needs .* multiples of 16, but .*query_key_value has 24 inputs and 36"):
        to_float8(model, model.get_output_embeddings(), CPU)
    assert not any(isinstance(m, Float8Linear) for m in model.modules()), "nothing is half converted"


def adapted(convert, seed=3):
    """A tiny Falcon with the job's own adapter, on float8 or on bf16 weights."""
    lora = load_params(PRESETS[0].with_name("demo.yaml")).lora
    model = falcon_7b_type(initializer_range=0.05).to(torch.bfloat16)
    if convert:
        to_float8(model, model.get_output_embeddings(), CPU)
    return add_adapter(model.requires_grad_(requires_grad=False), lora, seed)


def test_an_adapter_starts_with_the_same_float32_weights_as_on_bf16():
    in_float8, in_bf16 = (
        {name: p for name, p in adapted(convert).named_parameters() if p.requires_grad} for convert in (True, False)
    )
    assert in_float8.keys() == in_bf16.keys()
    for name, weight in in_float8.items():
        assert weight.dtype == torch.float32
        torch.testing.assert_close(weight, in_bf16[name], rtol=2**-8, atol=0)  # peft rounds those on bf16 once


def gradients(model):
    """Of an adapter whose B is not zero, on some tokens."""
    ids = torch.randint(VOCABULARY, (1, 24), generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    model(input_ids=ids, labels=ids).loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad])


def test_gradients_of_an_adapter_are_close_to_those_on_bf16_weights():
    assert 1e-3 < relative(gradients(adapted(convert=True)), gradients(adapted(convert=False))) < 0.15


def test_products_in_input_dtype_use_the_rounded_weights_meanwhile():
    layer = Float8Linear.from_linear(linear(), CPU)
    inputs = torch.randn(3, 64, dtype=torch.bfloat16)
    rounded = (layer.weight.view(FLOAT8).float() * layer.scale).to(torch.bfloat16)
    with products_in_input_dtype(torch.nn.Sequential(layer)):
        assert torch.equal(layer(inputs), inputs @ rounded.T)
    assert not torch.equal(layer(inputs), inputs @ rounded.T)


def test_rounded_rows_are_contiguous_as_the_kernel_needs_them():
    rows, _ = quantize_rows(torch.randn(64, 5).T)

    assert rows.is_contiguous()


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", ["off", "on"])
def test_compiled_layers_give_the_same_gradients(checkpointing):
    compiled = adapted(convert=True).train()
    prepare_layers(compiled.get_base_model(), ComputeSettings("sdpa", "on", checkpointing, 64))

    assert relative(gradients(compiled), gradients(adapted(convert=True).train())) < 0.05
