import pytest
import torch

from falcon_job.model.engine import Engine, decoder_layers
from falcon_job.model.layers import prepare_layers
from falcon_job.packing import Branch, Tree
from falcon_job.packing.loss import answer_loss
from falcon_job.packing.pack import PackForm
from tests.tiny_models import falcon_7b_type, falcon_40b_type, llama_type, with_lora

BUILDS = [falcon_7b_type, falcon_40b_type, llama_type]
TREES = [Tree([1, 2, 3, 4], (Branch([5, 6], [7, 0]), Branch([8], [9, 0])))]


def gradients(model):
    (pack,) = PackForm.dense(64).make_packs(TREES)
    model.train()
    answer_loss(model, pack).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad])


@pytest.mark.parametrize("build", BUILDS)
def test_activation_checkpointing_keeps_nothing_of_a_layer_and_changes_no_gradient(build):
    expected = gradients(with_lora(build()))
    model = with_lora(build())
    prepare_layers(model.get_base_model(), Engine("sdpa", "off", "on", 64))
    runs = []
    for layer in decoder_layers(model.get_base_model()):
        next(layer.children()).register_forward_pre_hook(lambda *_: runs.append(1))

    assert torch.equal(gradients(model), expected)
    assert len(runs) == 2 * 2, "each of two layers is computed twice"
