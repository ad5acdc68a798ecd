"""Adapters of peft: F3EO needs no part of its own for them."""

import pytest
import torch
import torch.nn.functional as F
from torch.optim import SGD

peft = pytest.importorskip("peft")

from transformers import LlamaConfig, LlamaForCausalLM  # noqa: E402

from dense import relative, truth  # noqa: E402
from f3eo import F3EO, DoubleBackward, FiniteDifference, PerSample, Sign  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.*:FutureWarning")

LAYERS = {"target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}
VIRTUAL = {"num_virtual_tokens": 3, "task_type": "CAUSAL_LM"}
ADAPTERS = {
    "LoRA": lambda: peft.LoraConfig(r=2, **LAYERS),
    "rank-stabilised LoRA": lambda: peft.LoraConfig(r=2, use_rslora=True, **LAYERS),
    "DoRA": lambda: peft.LoraConfig(r=2, use_dora=True, **LAYERS),
    "LoRA of an embedding": lambda: peft.LoraConfig(
        r=2, target_modules=["embed_tokens", "o_proj"], task_type="CAUSAL_LM"
    ),
    "LoRA and a whole head": lambda: peft.LoraConfig(r=2, modules_to_save=["lm_head"], **LAYERS),
    "IA3": lambda: peft.IA3Config(
        target_modules=["k_proj", "down_proj"],
        feedforward_modules=["down_proj"],
        task_type="CAUSAL_LM",
    ),
    "prompt tuning": lambda: peft.PromptTuningConfig(**VIRTUAL),
    "prefix tuning": lambda: peft.PrefixTuningConfig(**VIRTUAL),
    "prefix tuning, projected": lambda: peft.PrefixTuningConfig(
        prefix_projection=True, encoder_hidden_size=8, **VIRTUAL
    ),
    "p-tuning": lambda: peft.PromptEncoderConfig(encoder_hidden_size=8, **VIRTUAL),
    "VeRA": lambda: peft.VeraConfig(r=2, **LAYERS),
    "AdaLoRA": lambda: peft.AdaLoraConfig(init_r=2, target_r=2, total_step=10, **LAYERS),
}

HIDDEN = {"LoHa": lambda: peft.LoHaConfig(r=2, **LAYERS)}


def adapted(name):
    torch.manual_seed(0)
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 32}
    sizes = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    tokens = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), 0)
    model = peft.get_peft_model(
        LlamaForCausalLM(LlamaConfig(**sizes, **heads, **tokens)), {**ADAPTERS, **HIDDEN}[name]()
    )
    model = model.double().eval()
    with torch.no_grad():  # adapters begin at zero, where half of their gradients are zero
        for p in trained(model):
            p.add_(0.2 * torch.randn_like(p))
    return model


def trained(model):
    return [p for p in model.parameters() if p.requires_grad]


def losses_of(model):
    def losses(x):
        logits = model(input_ids=x, use_cache=False).logits[:, -x.shape[1] :]
        return F.cross_entropy(logits[:, :-1].transpose(1, 2), x[:, 1:], reduction="none")

    return losses


def tokens():
    return torch.randint(50, (4, 7), generator=torch.Generator().manual_seed(3))


def row(tensors):
    return torch.cat([t.detach().flatten() for t in tensors])


@pytest.mark.parametrize("name", ADAPTERS)
@pytest.mark.parametrize("engine", [DoubleBackward(), FiniteDifference()], ids=repr)
def test_gradients_of_adapters_are_the_truth(name, engine):
    model, x = adapted(name), tokens()
    losses, parameters = losses_of(model), trained(model)
    expected = truth(parameters, losses, x, power=1)
    optimizer = F3EO(model, SGD, lr=0.0, fraction=1, every=1, estimator=PerSample(engine))
    records = []
    optimizer.observe(records.append)
    optimizer.step(losses, x)
    (record,) = records
    assert relative(row(record.gradient), expected.gradient) < 1e-9
    assert relative(record.trace, expected.trace) < 1e-9
    allowed = (
        max(1e-3, 3 * optimizer.structure_error) if isinstance(engine, FiniteDifference) else 1e-8
    )
    assert relative(row(record.structure), expected.structure) < allowed


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_step_moves_the_adapter_alone(name):
    model, x = adapted(name).train(), tokens()
    fixed = [p for p in model.parameters() if not p.requires_grad]
    before, adapter = row(fixed), row(trained(model))
    optimizer = F3EO(model, SGD, lr=0.1)
    optimizer.step(losses_of(model), x)
    assert torch.equal(row(fixed), before)
    assert optimizer.skipped == 0 and not torch.equal(row(trained(model)), adapter)


def test_parameters_behind_an_autograd_function_are_trained_by_sign_and_refused_elsewhere():
    model, x = adapted("LoHa"), tokens()
    with pytest.raises(ValueError, match=r"torch\.autograd\.Function.*estimator=Sign\(\)"):
        F3EO(model, SGD, lr=0.1).step(losses_of(model), x)
    optimizer = F3EO(model, SGD, lr=0.1, estimator=Sign())
    optimizer.step(losses_of(model), x)
    assert optimizer.steps == 1
