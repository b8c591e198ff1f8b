"""Frozen linear layers that multiply in float8 (e4m3: 4 bits of exponent, 3 of mantissa), with one scale per row.

A float8 number has only 256 values, up to 448. So each row is first divided by a scale that makes its largest absolute
value 448. For example:

    [0.02, -0.5, 3.5]   a row, whose scale is 3.5 / 448 = 1/128
    [2.56, -64, 448]    divided by the scale
    [2.5, -64, 448]     rounded to float8

The dot product of two such rows is multiplied by both scales. Each token of the input is a row, and each output of the
layer is a row of its weight. So the rounding of a token does not depend on other tokens in its pack. With one scale for
the whole matrix, it would depend on the largest number in the pack. The format is that of Micikevicius et al. 2022
(arXiv 2209.05433), section 3. Sums are accumulated, and results returned, in wider types.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from falcon_job.errors import InputError
from falcon_job.model.compat import multiply_float8

FLOAT8 = torch.float8_e4m3fn
MULTIPLE = 16
"""The kernels need `in_features` and `out_features` to be multiples of this."""


def quantize_rows(values: Tensor) -> tuple[Tensor, Tensor]:
    """Round each row to float8, after dividing it by its scale.

    Args:
        values: [M, N].

    Returns:
        The rounded rows, float8 [M, N], and the scales, float32 [M, 1]: their product is close to `values`.
    """
    exact = values.float()
    scale = exact.abs().amax(-1, keepdim=True).clamp(min=1e-30) / torch.finfo(FLOAT8).max
    return (exact / scale).to(FLOAT8).contiguous(), scale


class Float8Product(torch.autograd.Function):
    """The product x W^T of inputs x with a frozen float8 weight W, and the gradient of x, both multiplied in float8."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
        """Return [..., N] for inputs [..., K]."""
        ctx.save_for_backward(weight, scale)
        return _multiply(inputs, weight.t(), scale.t())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient of the inputs, [..., K], given the gradient g of the product, [..., N].

        It is g W, a sum over the rows of W, so the scales of these rows cannot be taken out of the sum. Instead, g is
        multiplied by them before it is rounded.
        """
        (gradient,) = gradients
        weight, scale = ctx.saved_tensors
        columns = weight.t().contiguous().t()  # the memory layout that the kernel needs
        ones = torch.ones(1, weight.shape[1], device=weight.device)
        scaled = gradient * scale.squeeze(-1)
        return _multiply(scaled, columns, ones).to(gradient.dtype), None, None


def float8_product(inputs: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """Return x W^T, multiplied in float8, as is the gradient of x in the backward pass.

    Args:
        inputs: x, a 16-bit dtype, [..., K].
        weight: W, float8 [N, K], as `quantize_rows` returns it.
        scale: float32 [N, 1], one for each row of W.

    Returns:
        [..., N], in the dtype of the inputs.
    """
    product: Tensor = Float8Product.apply(inputs, weight, scale)
    return product


def _multiply(inputs: Tensor, columns: Tensor, scale: Tensor) -> Tensor:
    """Round inputs [..., K] to float8 and multiply them by float8 columns [K, N] with scales [1, N]."""
    rows, row_scale = quantize_rows(inputs.reshape(-1, inputs.shape[-1]))
    product = multiply_float8(rows, columns, row_scale, scale)
    return product.view(*inputs.shape[:-1], -1).to(inputs.dtype)


class Float8Linear(nn.Linear):
    """A frozen linear layer that multiplies in float8.

    Its weight is stored as uint8, because libraries cast weights of a floating-point dtype to another dtype.

    Attributes:
        scale: float32 [out_features, 1], one for each row of the weight.
        multiplies_in_float8: whether products are in float8; False within `products_in_input_dtype`.
    """

    scale: Tensor
    multiplies_in_float8 = True

    @classmethod
    def from_linear(cls, linear: nn.Linear, device: torch.device) -> "Float8Linear":
        """Return a copy of a linear layer with its weight rounded to float8, on a device."""
        weight, scale = quantize_rows(linear.weight.detach().to(device))
        layer = cls(linear.in_features, linear.out_features, bias=False, device="meta")
        layer.weight = nn.Parameter(weight.view(torch.uint8), requires_grad=False)
        layer.register_buffer("scale", scale)
        layer.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach().to(device), requires_grad=False)
        return layer

    def forward(self, input: Tensor) -> Tensor:
        """Return the product in the dtype of the input: [..., out_features] for [..., in_features]."""
        if not self.multiplies_in_float8:
            weight = self.weight.view(FLOAT8).float() * self.scale
            return functional.linear(input, weight.to(input.dtype), self.bias)
        product = float8_product(input, self.weight.view(FLOAT8), self.scale)
        # Falcon adds to the result in place, which autograd forbids for a view that a custom function returns
        return product.clone() if self.bias is None else product + self.bias


@contextmanager
def products_in_input_dtype(model: nn.Module) -> Iterator[None]:
    """Within this context, let float8 layers multiply in the dtype of their input. Their weights stay rounded.

    This is for checks that look for differences smaller than those from rounding inputs and gradients.
    """
    layers = [module for module in model.modules() if isinstance(module, Float8Linear)]
    for layer in layers:
        layer.multiplies_in_float8 = False
    try:
        yield
    finally:
        for layer in layers:
            layer.multiplies_in_float8 = True


def to_float8(model: nn.Module, head: nn.Module | None, device: torch.device) -> int:
    """Replace all linear layers of a model, except its output head, with float8 layers on a device, one by one.

    Returns:
        The number of layers replaced.

    Raises:
        InputError: the number of inputs or outputs of a layer is not a multiple of 16. Then no layer is replaced.
    """
    linear = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear) and m is not head}
    for name, module in linear.items():
        if module.in_features % MULTIPLE or module.out_features % MULTIPLE:
            raise InputError(
                f"needs layers whose numbers of inputs and outputs are multiples of {MULTIPLE}, but {name} has "
                f"{module.in_features} inputs and {module.out_features} outputs",
                place="model.precision fp8",
                fix="use bf16 or nf4",
            )
    for name, module in linear.items():
        parent, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(parent), attribute, Float8Linear.from_linear(module, device))
    return len(linear)
