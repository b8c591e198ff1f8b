"""Frozen linear layers whose weights, inputs and gradients are multiplied in float8 (e4m3), scaled row by row.

Every token has a scale of its own, and every output of the layer, so that how a token is rounded does not depend on
what else stands in its pack. Rows as in Micikevicius et al. 2022 (arXiv 2209.05433), section 3; accumulation and
results are wider.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

FLOAT8 = torch.float8_e4m3fn
MULTIPLE = 16
"""What the kernels need the numbers of inputs and outputs to be a multiple of."""


def quantize_rows(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return rows as float8, and what to multiply each with to get them back.

    Args:
        values: [M, N].

    Returns:
        float8 [M, N], and float32 [M, 1].
    """
    wide = values.float()
    scale = wide.abs().amax(-1, keepdim=True).clamp(min=1e-30) / torch.finfo(FLOAT8).max
    return (wide / scale).to(FLOAT8).contiguous(), scale


class Float8Product(torch.autograd.Function):
    """x W^T by float8, and the gradient of x; W is frozen."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
        """Return [..., N] for [..., K]."""
        ctx.save_for_backward(weight, scale)
        return _multiply(inputs, weight.t(), scale.t())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient of the inputs, [..., K], from that of the product, [..., N]."""
        (gradient,) = gradients
        weight, scale = ctx.saved_tensors
        columns = weight.t().contiguous().t()  # the layout that the kernel takes
        ones = torch.ones(1, weight.shape[1], device=weight.device)
        scaled = gradient * scale.squeeze(-1)  # the weight's scales lie along what is summed over
        return _multiply(scaled, columns, ones).to(gradient.dtype), None, None


def float8_product(inputs: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """Return x W^T, [..., N], with the gradient of the inputs, [..., K].

    Args:
        inputs: [..., K], 16 bits.
        weight: float8 [N, K].
        scale: of the rows of weight, float32 [N, 1].
    """
    product: Tensor = Float8Product.apply(inputs, weight, scale)
    return product


def _multiply(inputs: Tensor, columns: Tensor, scale: Tensor) -> Tensor:
    """Return inputs, [..., K], times float8 columns, [K, N], with a scale each, [1, N], in the type of the inputs."""
    rows, row_scale = quantize_rows(inputs.reshape(-1, inputs.shape[-1]))
    product = torch._scaled_mm(
        rows, columns, scale_a=row_scale, scale_b=scale, out_dtype=torch.bfloat16, use_fast_accum=True
    )
    return product.view(*inputs.shape[:-1], -1).to(inputs.dtype)


class Float8Linear(nn.Linear):
    """A frozen linear layer in float8; its weight is kept as bytes, for which no library takes it for a small float."""

    scale: Tensor
    wide = False
    """Whether products are taken in the type of the input, of the same rounded weights."""

    @classmethod
    def of(cls, linear: nn.Linear, device: torch.device) -> "Float8Linear":
        """Return a linear layer in float8 on a device."""
        weight, scale = quantize_rows(linear.weight.detach().to(device))
        layer = cls(linear.in_features, linear.out_features, bias=False, device="meta")
        layer.weight = nn.Parameter(weight.view(torch.uint8), requires_grad=False)
        layer.register_buffer("scale", scale)
        layer.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach().to(device), requires_grad=False)
        return layer

    def forward(self, input: Tensor) -> Tensor:
        """Return the product, [..., in] to [..., out], in the type of the input."""
        if self.wide:
            weight = self.weight.view(FLOAT8).float() * self.scale
            return functional.linear(input, weight.to(input.dtype), self.bias)
        product = float8_product(input, self.weight.view(FLOAT8), self.scale)
        # Falcon adds to it in place, which autograd forbids on what a Function returns as a view
        return product.clone() if self.bias is None else product + self.bias


@contextmanager
def wide_products(model: nn.Module) -> Iterator[None]:
    """Let float8 layers round their weights alone, for what float8's rounding would hide."""
    layers = [module for module in model.modules() if isinstance(module, Float8Linear)]
    for layer in layers:
        layer.wide = True
    try:
        yield
    finally:
        for layer in layers:
            layer.wide = False


def to_float8(model: nn.Module, head: nn.Module | None, device: torch.device) -> int:
    """Put all linear layers of a model but its output head into float8, one after the other, on a device.

    Returns:
        How many.

    Raises:
        ValueError: a layer's inputs or outputs are no multiple of 16.
    """
    linear = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear) and m is not head}
    for name, module in linear.items():
        if module.in_features % MULTIPLE or module.out_features % MULTIPLE:
            raise ValueError(f"{name} takes {module.in_features} numbers to {module.out_features}")
    for name, module in linear.items():
        parent, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(parent), attribute, Float8Linear.of(module, device))
    return len(linear)
