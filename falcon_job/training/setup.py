"""The model that a run trains, and how this machine trains it."""

from pathlib import Path

from peft import PeftModel

from falcon_job.machine import Machine
from falcon_job.model.adapter import add_adapter
from falcon_job.model.attention import check_window, choose_kernel
from falcon_job.model.engine import Engine, choose_engine, pack_sizes
from falcon_job.model.loading import load_base, load_config
from falcon_job.model.precision import choose_device
from falcon_job.params import Params


def load_for_training(weights: Path, params: Params, machine: Machine) -> tuple[PeftModel, Engine]:
    """Return the base with a fresh adapter, and how to train it.

    What can be refused before weights are read is refused then.

    Raises:
        MachineError: a setting does not fit this machine.
        InputError: the model is none that packing can serve.
    """
    config, longest = load_config(weights), params.preprocess.max_tokens
    device = choose_device(machine)
    check_window(config, longest)
    kernel = choose_kernel(device, config, machine)
    sizes = pack_sizes(kernel, longest, machine)
    base = load_base(weights, params.model.precision, device)
    return add_adapter(base, params.lora, params.train.seed), choose_engine(base, kernel, sizes, machine)
