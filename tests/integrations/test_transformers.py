"""The Trainer with F3EO equals the plain loop, bit for bit."""

import copy
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch._dynamo.utils import counters
from torch.optim import SGD, AdamW

pytest.importorskip("accelerate")

from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    HfArgumentParser,
    T5Config,
    T5ForConditionalGeneration,
    Trainer,
    TrainingArguments,
)

from f3eo import F3EO, Fixed, Weighted
from f3eo.integrations.sample_losses import sample_losses
from f3eo.integrations.transformers import F3EOArguments, F3EOMixin, F3EOTrainer

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*pin_memory.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*:DeprecationWarning"),
]
SMALL = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
BERT = {**SMALL, "intermediate_size": 32, "max_position_embeddings": 32}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def bert(**config):
    torch.manual_seed(0)
    config = BertConfig(**{**BERT, **NO_DROPOUT, "num_labels": 3, **config})
    return BertForSequenceClassification(config).double()


def gpt(dropout=0.0):
    torch.manual_seed(0)
    drop = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), dropout)
    sizes = {"vocab_size": 50, "n_positions": 16, "n_embd": 16, "n_layer": 1, "n_head": 2}
    return GPT2LMHeadModel(GPT2Config(**sizes, **drop, bos_token_id=0, eos_token_id=0)).double()


def sentences(count=48, length=9):
    draw = torch.Generator().manual_seed(1)
    ids = torch.randint(50, (count, length), generator=draw)
    labels = torch.randint(3, (count,), generator=draw)
    ones = torch.ones(length, dtype=torch.long)
    rows = zip(ids, labels, strict=True)
    return [{"input_ids": i, "attention_mask": ones, "labels": y} for i, y in rows]


def texts(count=48, length=9):
    """Sentences whose first tokens, of unequal number, have no label."""
    draw = torch.Generator().manual_seed(1)
    ids = torch.randint(50, (count, length), generator=draw)
    starts = torch.randint(1, length - 1, (count, 1), generator=draw)
    labels = ids.masked_fill(torch.arange(length) < starts, -100)
    return [{"input_ids": i, "labels": y} for i, y in zip(ids, labels, strict=True)]


def arguments(folder, kind=TrainingArguments, **given):
    given = {"max_steps": 4, "save_strategy": "no", "max_grad_norm": 0.0, **given}
    quiet = {"report_to": [], "use_cpu": True, "logging_steps": 1, "disable_tqdm": True}
    return kind(str(folder), per_device_train_batch_size=8, **quiet, **given)


class Recorded(F3EOTrainer):
    """Keeps the micro-batches."""

    def training_step(self, model, inputs, num_items_in_batch=None):
        self.seen = [*getattr(self, "seen", []), copy.deepcopy(dict(inputs))]
        return super().training_step(model, inputs, num_items_in_batch)


def f3eo(model, **options):
    options = {"generator": torch.Generator().manual_seed(5), "every": 2, **options}
    return F3EO(model, AdamW, lr=1e-2, **options)


def constant(optimizer):
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)


def trained(model, data, args, optimizer=None, kind=Recorded, **given):
    optimizer = f3eo(model) if optimizer is None else optimizer
    pair = optimizer, constant(optimizer)
    trainer = kind(model, args, train_dataset=data, optimizers=pair, **given)
    trainer.train()
    return trainer, optimizer


def plain_loop(model, optimizer, losses, seen, parts, norm=0.0):
    model.train()
    for start in range(0, len(seen), parts):
        for batch in seen[start : start + parts]:
            optimizer.accumulate(losses, batch)
        if norm:
            torch.nn.utils.clip_grad_norm_(model.parameters(), norm)
        optimizer.step()


def vector(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def of_sentences(model):
    def losses(batch):
        logits = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        return F.cross_entropy(logits, batch["labels"], reduction="none")

    return losses


def of_tokens(model):
    def losses(batch):
        logits, labels = model(batch["input_ids"]).logits[:, :-1], batch["labels"][:, 1:]
        losses = F.cross_entropy(logits.transpose(1, 2), labels, reduction="none")
        return Weighted(losses, (labels != -100).to(losses))

    return losses


TASKS = {"classes": (bert, sentences, of_sentences), "tokens": (gpt, texts, of_tokens)}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(("parts", "norm"), [(1, 0.0), (3, 0.0), (1, 0.05), (3, 0.05)])
def test_the_trainer_equals_the_plain_loop(task, parts, norm, tmp_path):
    build, data, losses = TASKS[task]
    model, reference = build(), build()
    args = arguments(tmp_path, gradient_accumulation_steps=parts, max_grad_norm=norm)
    trainer, optimizer = trained(model, data(96), args)
    assert optimizer.steps == trainer.state.global_step == 4
    plain_loop(reference, f3eo(reference), losses(reference), trainer.seen, parts, norm)
    assert torch.equal(vector(model), vector(reference))


@pytest.mark.parametrize("task", TASKS)
def test_its_loss_is_that_of_the_model(task, tmp_path):
    build, data, _ = TASKS[task]
    model = build()
    batch = {key: torch.stack([row[key] for row in data(6)]) for key in data(6)[0]}
    trainer = F3EOTrainer(model, arguments(tmp_path))
    found = trainer.sample_losses(model, batch)
    expected = model(**batch).loss
    if isinstance(found, Weighted):
        found = (found.losses * found.weights).sum() / found.weights.sum()
    torch.testing.assert_close(found.mean(), expected, rtol=1e-6, atol=0, check_dtype=False)
    logged = trained(build(), data(), arguments(tmp_path, max_steps=1))[0].state.log_history[0]
    seen_loss = build()(**trained(build(), data(), arguments(tmp_path, max_steps=1))[0].seen[0])
    assert logged["loss"] == pytest.approx(float(seen_loss.loss.detach()), abs=1e-4)


def test_a_resumed_run_ends_as_the_whole_one(tmp_path):
    args = arguments(tmp_path, save_strategy="steps", save_steps=3, max_steps=6)
    whole, resumed = gpt(0.1), gpt(0.1)
    trained(whole, texts(), args)
    optimizer = f3eo(resumed)
    pair = optimizer, constant(optimizer)
    trainer = F3EOTrainer(resumed, args, train_dataset=texts(), optimizers=pair)
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert optimizer.steps == 6
    assert torch.equal(vector(whole), vector(resumed))


def test_arguments_make_base_and_f3eo(tmp_path):
    given = ["--output_dir", str(tmp_path), "--learning_rate", "0.01", "--optim", "sgd"]
    given += ["--f3eo_strength", "0.1", "--f3eo_every", "2", "--weight_decay", "0.5"]
    (parsed,) = HfArgumentParser(F3EOArguments).parse_args_into_dataclasses(given)
    optimizer = F3EOTrainer(bert(), parsed).create_optimizer()
    assert isinstance(optimizer, F3EO) and isinstance(optimizer.base, SGD)
    assert (optimizer.strength.value, optimizer.every) == (Fixed(0.1).value, 2)
    assert [group["lr"] for group in optimizer.param_groups] == [0.01, 0.01]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.5, 0.0]


def test_plain_arguments_train_with_f3eos_own_defaults(tmp_path):
    trainer = F3EOTrainer(bert(), arguments(tmp_path, max_steps=2), train_dataset=sentences())
    for _ in range(2):  # train() twice: the optimizer is wrapped once
        trainer.train()
        assert isinstance(trainer.optimizer.optimizer, F3EO)
        assert isinstance(trainer.optimizer.optimizer.base, AdamW)


def test_gradient_checkpointing_changes_no_loss(tmp_path):
    plain, checkpointed = gpt(), gpt()
    trained(plain, texts(), arguments(tmp_path))
    trained(checkpointed, texts(), arguments(tmp_path, gradient_checkpointing=True))
    assert checkpointed.is_gradient_checkpointing
    torch.testing.assert_close(vector(plain), vector(checkpointed), rtol=1e-9, atol=1e-9)


def test_a_loss_of_ones_own(tmp_path):
    def squared(outputs, labels, num_items_in_batch=None):
        return (outputs.logits.softmax(-1)[torch.arange(len(labels)), labels] - 1) ** 2

    model, reference = bert(), bert()
    trainer, _ = trained(model, sentences(), arguments(tmp_path), compute_loss_func=squared)

    def losses(batch):
        return squared(reference(batch["input_ids"], batch["attention_mask"]), batch["labels"])

    plain_loop(reference, f3eo(reference), losses, trainer.seen, 1)
    assert torch.equal(vector(model), vector(reference))


HEADS = {
    "regression": (lambda: bert(num_labels=1), torch.randn(6)),
    "regression of several": (
        lambda: bert(num_labels=3, problem_type="regression"),
        torch.randn(6, 3, dtype=torch.float64),
    ),
    "several labels": (bert, torch.tensor([[0.0, 1.0, 1.0]]).double().repeat(6, 1)),
    "one label": (bert, torch.tensor([0, 1, 2, 0, 1, 2])),
}


@pytest.mark.parametrize("name", HEADS)
def test_losses_of_heads(name, tmp_path):
    build, labels = HEADS[name]
    model = build()
    labels = labels.double() if labels.is_floating_point() else labels
    batch = {"input_ids": torch.arange(30).reshape(6, 5), "labels": labels}
    found = F3EOTrainer(model, arguments(tmp_path)).sample_losses(model, batch)
    torch.testing.assert_close(found.mean(), model(**batch).loss, check_dtype=False)


def test_losses_of_a_decoder_beside_an_encoder(tmp_path):
    torch.manual_seed(0)
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    config = T5Config(vocab_size=50, **sizes, dropout_rate=0.0, decoder_start_token_id=0)
    model = T5ForConditionalGeneration(config)
    labels = torch.tensor([[1, 2, 3, -100], [4, 5, -100, -100]])
    batch = {"input_ids": torch.arange(10).reshape(2, 5), "labels": labels}
    found = F3EOTrainer(model, arguments(tmp_path)).sample_losses(model, batch)
    mean = (found.losses * found.weights).sum() / found.weights.sum()
    torch.testing.assert_close(mean, model(**batch).loss)


def test_label_smoothing_is_the_trainers(tmp_path):
    model, given = gpt(), {"label_smoothing_factor": 0.2}
    trainer = F3EOTrainer(model, arguments(tmp_path, **given))
    batch = {key: torch.stack([row[key] for row in texts(6)]) for key in texts(6)[0]}
    found = trainer.sample_losses(model, batch)
    mean = (found.losses * found.weights).sum() / found.weights.sum()
    expected = Trainer.compute_loss(trainer, model, dict(batch))
    torch.testing.assert_close(mean, expected, check_dtype=False)


def test_in_float16_the_loss_scale_is_that_of_f3eo(tmp_path):
    """The Trainer has it on accelerators alone; scaler and autocast are put here as there."""
    found = []
    for stop in (False, True):
        model = bert().float()
        given = {"fp16": True, "max_grad_norm": 1.0, "gradient_accumulation_steps": 2}
        saved = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4}
        folder = tmp_path / str(stop)

        def trainer(model=model, given=given | saved, folder=folder):
            made = F3EOTrainer(model, arguments(folder, **given), train_dataset=sentences())
            made.accelerator.scaler = torch.amp.GradScaler("cpu")
            made.accelerator.native_amp = True
            made.compute_loss_context_manager = lambda: torch.autocast("cpu", torch.float16)
            return made

        first = trainer()
        first.train()
        optimizer = first.optimizer.optimizer
        assert optimizer.loss_scale.factor == 2**15 and optimizer.steps == 4
        if stop:
            model = bert().float()
            trainer(model).train(resume_from_checkpoint=str(folder / "checkpoint-2"))
        found.append(vector(model))
    assert torch.equal(*found) and not torch.equal(found[0], vector(bert().float()))


def test_what_is_not_trained_correctly_is_refused_before_the_first_step(tmp_path):
    def make(**given):
        return F3EOTrainer(bert(), arguments(tmp_path, **given), train_dataset=sentences())

    for given, said in {
        "schedule-free": ({"optim": "schedule_free_adamw"}, 'such as "adamw_torch"'),
    }.values():
        trainer = make(**given)
        before = vector(trainer.model)
        with pytest.raises((ValueError, RuntimeError), match=said):
            trainer.train()
        assert torch.equal(vector(trainer.model), before)


def test_several_gpus_in_one_process_are_refused(tmp_path):
    trainer = F3EOTrainer(bert(), arguments(tmp_path), train_dataset=sentences())
    trainer.args._n_gpu = 2
    with pytest.raises(ValueError, match="DataParallel on 2 GPUs"):
        trainer.create_optimizer()


@pytest.mark.parametrize("task", TASKS)
def test_a_compiled_model_is_trained_as_any_other(task, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "NO")  # the Trainer sets it
    build, data, _ = TASKS[task]
    ends, compiled = [], []
    for given in ({}, {"torch_compile": True, "torch_compile_backend": "eager"}):
        torch._dynamo.reset()
        counters.clear()
        model = build()
        trained(model, data(), arguments(tmp_path, **given), kind=F3EOTrainer)
        ends.append(vector(model))
        compiled.append(counters["frames"]["ok"])
    assert compiled[0] == 0 < compiled[1]  # the steps between two measurements
    torch.testing.assert_close(ends[1], ends[0], rtol=0, atol=1e-10)


class Head(torch.nn.Module):
    """Gives what it is told to."""

    config = None

    def __init__(self, **outputs):
        super().__init__()
        self.outputs = outputs

    def forward(self, input_ids):
        return SimpleNamespace(**self.outputs)


def test_a_loss_of_the_batch_beside_that_of_the_samples_is_refused():
    head = Head(logits=torch.zeros(2, 3), aux_loss=torch.tensor(1.0))
    batch = {"input_ids": torch.zeros(2, 1), "labels": torch.tensor([0, 1])}
    with pytest.raises(ValueError, match="output_router_logits=False"):
        sample_losses(head, head, batch, shifted=False)
    head.outputs = {"hidden": torch.zeros(2, 3)}
    with pytest.raises(ValueError, match="Head returned no logits"):
        sample_losses(head, head, batch, shifted=False)


def test_losses_of_logits_in_16_bits_are_in_32():
    head = Head(logits=torch.randn(2, 3, dtype=torch.bfloat16))
    batch = {"input_ids": torch.zeros(2, 1), "labels": torch.tensor([0, 1])}
    assert sample_losses(head, head, batch, shifted=False).dtype == torch.float32


def test_a_tuned_prompt_is_before_the_labels(tmp_path):
    peft = pytest.importorskip("peft")
    config = peft.PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM")
    model = peft.get_peft_model(gpt(), config).double()
    batch = {key: torch.stack([row[key] for row in texts(6)]) for key in texts(6)[0]}
    found = F3EOTrainer(model, arguments(tmp_path)).sample_losses(model, batch)
    mean = (found.losses * found.weights).sum() / found.weights.sum()
    torch.testing.assert_close(mean, model(**batch).loss, check_dtype=False)


def test_dropout_is_on_while_it_trains(tmp_path):
    model = gpt(0.5).eval()
    trainer = F3EOTrainer(model, arguments(tmp_path, max_steps=1), train_dataset=texts())
    modes = []

    def note(module, args):
        if torch.is_grad_enabled():  # not in the check for coupled samples, which draws nothing
            modes.append(module.training)

    model.register_forward_pre_hook(note)
    trainer.create_optimizer()
    trainer.current_gradient_accumulation_steps = 1
    batch = {key: torch.stack([row[key] for row in texts(4)]) for key in texts(4)[0]}
    trainer.training_step(model, batch)
    assert modes and all(modes)


def test_logits_and_labels_of_unknown_form_are_refused_with_the_cure(tmp_path):
    model = bert()
    trainer = F3EOTrainer(model, arguments(tmp_path))
    batch = {"input_ids": torch.arange(30).reshape(6, 5), "labels": torch.zeros(6, 5, 2)}
    with pytest.raises(ValueError, match=r"logits \(6, 3\) for labels \(6, 5, 2\).*compute_loss_f"):
        trainer.sample_losses(model, batch)
    with pytest.raises(ValueError, match=r"\['input_ids'\] have no \"labels\""):
        trainer.sample_losses(model, {"input_ids": batch["input_ids"]})


def test_a_mixin_serves_other_trainers(tmp_path):
    class Own(F3EOMixin, Trainer):
        pass

    model = bert()
    optimizer = trained(model, sentences(), arguments(tmp_path), kind=Own)[1]
    assert optimizer.steps == 4
