"""Time the matrix products of Falcon-7B's frozen layers in bf16 and float8, by kind of scaling and accumulation.

    python -m benchmarks.float8_products [--tokens 8192] [--hidden 4544] [--layers 32]

Measures the forward product and the product for the input gradient, with random numbers; times are medians. `rows` uses
one scale per token and per output, `tensor` one per matrix, and `fast` accumulates in the tensor cores. Errors are
relative 2-norms against float64.

`rows_cast` and `tensor_cast` are the times to compute the scales and cast, in a separate compiled function.
`delayed_cast` is the time to cast with a scale known from earlier packs. In training, most of this is fused with the
operation that computes the numbers.

Prints one JSON line for each layer and direction, then the sum over all layers.
"""

import json
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import click
import torch
from torch import Tensor
from torch.utils.benchmark import Timer

from falcon_job.model.compat import multiply_float8
from falcon_job.model.float8 import FLOAT8, quantize_rows

CHECKED_ROWS = 512


def quantize_tensor(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return a matrix as float8 with one scale for the whole matrix, float32 [1, 1]."""
    scale = values.float().abs().amax().view(1, 1) / torch.finfo(FLOAT8).max
    return (values.float() / scale).to(FLOAT8), scale


def cast(values: Tensor, scale: Tensor) -> Tensor:
    """Return a matrix as float8 with a known scale, as in delayed scaling, where it comes from earlier packs."""
    limit = torch.finfo(FLOAT8).max
    return (values.float() / scale).clamp(-limit, limit).to(FLOAT8)


def multiply(rows: Tensor, scale: Tensor, columns: Tensor, column_scale: Tensor, fast: bool) -> Tensor:
    """Return the product of float8 [M, K] and the transpose of float8 [N, K]: bfloat16 [M, N]."""
    return multiply_float8(rows, columns.t(), scale, column_scale.t(), fast_accumulation=fast)


def milliseconds(work: Callable[[], Any]) -> float:
    """Return the median time of a call, in milliseconds."""
    work()
    return float(Timer("work()", globals={"work": work}).blocked_autorange(min_run_time=0.2).median * 1e3)


def measure(tokens: int, inputs: int, outputs: int, device: torch.device) -> dict[str, float]:
    """Return the milliseconds and errors of the product of [tokens, inputs] and [inputs, outputs]."""
    x = torch.randn(tokens, inputs, device=device, dtype=torch.bfloat16)
    weight = torch.randn(outputs, inputs, device=device, dtype=torch.bfloat16) / 50
    exact = x[:CHECKED_ROWS].double() @ weight.double().T
    found = {"bf16": milliseconds(lambda: x @ weight.T)}
    for kind, quantize in (("rows", quantize_rows), ("tensor", quantize_tensor)):
        for name, fast in ((kind, False), (f"{kind}_fast", True)):
            product = partial(multiply, *quantize(x), *quantize(weight), fast)
            found[name] = milliseconds(product)
            found[f"{name}_error"] = float((product()[:CHECKED_ROWS].double() - exact).norm() / exact.norm())
        found[f"{kind}_cast"] = milliseconds(partial(torch.compile(quantize), x))
    found["delayed_cast"] = milliseconds(partial(torch.compile(cast), x, quantize_tensor(x)[1]))
    return found


@click.command(help=__doc__)
@click.option("--tokens", default=8192)
@click.option("--hidden", default=4544)
@click.option("--layers", default=32)
def main(tokens: int, hidden: int, layers: int) -> None:
    """Print one JSON line for each product and one for the sum over all layers."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    shapes = {"qkv": (hidden, hidden + 128), "dense": (hidden, hidden), "up": (hidden, 4 * hidden)}
    shapes["down"] = shapes["up"][::-1]
    total: Counter[str] = Counter()
    for layer, (inputs, outputs) in shapes.items():
        for direction, sizes in (("forward", (inputs, outputs)), ("gradient", (outputs, inputs))):
            found = measure(tokens, *sizes, device)
            print("RESULT", json.dumps({"layer": layer, "direction": direction, **found}), flush=True)
            total.update({name: value * layers for name, value in found.items() if not name.endswith("error")})
    print("RESULT", json.dumps({"milliseconds_of_all_layers": {k: round(v, 1) for k, v in total.items()}}))


if __name__ == "__main__":
    main()
