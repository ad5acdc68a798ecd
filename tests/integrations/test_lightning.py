"""Lightning's automatic optimisation with F3EO equals the plain loop, bit for bit."""

import logging

import pytest
import torch
import torch.nn.functional as F
from torch.optim import SGD

L = pytest.importorskip("pytorch_lightning")

from f3eo.integrations.lightning import F3EOMixin  # noqa: E402
from integrations.small import loader, network, optimizer_of, vector  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*number of training batches.*"),
    pytest.mark.filterwarnings("ignore:.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory.*exists and is not empty"),
]
logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)


class Plain(L.LightningModule):
    """Everything but the optimisation."""

    def __init__(self):
        super().__init__()
        self.net = network()

    def losses(self, batch, batch_idx):
        x, y = batch
        return F.cross_entropy(self.net(x), y, reduction="none")

    def configure_optimizers(self):
        self.made = optimizer_of(self.net)
        schedule = torch.optim.lr_scheduler.StepLR(self.made, 2, gamma=0.5)
        return {"optimizer": self.made, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Automatic(F3EOMixin, Plain):
    pass


def trainer(folder, **given):
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    given = {"enable_checkpointing": False, "max_epochs": 2, **given}
    return L.Trainer(accelerator="cpu", default_root_dir=str(folder), **quiet, **given)


def plain_loop(parts, norm, epochs=2, by=torch.nn.utils.clip_grad_norm_):
    net = network()
    optimizer = optimizer_of(net)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.5)
    for _ in range(epochs):
        pending = list(loader())
        for start in range(0, len(pending), parts):
            for x, y in pending[start : start + parts]:
                optimizer.accumulate(
                    lambda x, y: F.cross_entropy(net(x), y, reduction="none"), x, y
                )
            if norm is not None:
                by(net.parameters(), norm)
            optimizer.step()
            schedule.step()
    return net, optimizer


@pytest.mark.parametrize("parts", [1, 2, 4])
@pytest.mark.parametrize("norm", [None, 0.1])
def test_automatic_optimisation_equals_the_plain_loop(parts, norm, tmp_path):
    model = Automatic()
    run = trainer(tmp_path, accumulate_grad_batches=parts, gradient_clip_val=norm)
    run.fit(model, loader())
    net, optimizer = plain_loop(parts, norm)
    assert torch.equal(vector(model.net), vector(net))
    assert run.global_step == model.made.steps == optimizer.steps == 2 * -(-6 // parts)


def test_a_resumed_run_ends_as_the_whole_one(tmp_path):
    whole, first, second = Automatic(), Automatic(), Automatic()
    trainer(tmp_path, accumulate_grad_batches=2).fit(whole, loader())
    run = trainer(tmp_path, accumulate_grad_batches=2, max_epochs=1)
    run.fit(first, loader())
    path = str(tmp_path / "first.ckpt")
    run.save_checkpoint(path)
    rest = trainer(tmp_path, accumulate_grad_batches=2)
    rest.fit(second, loader(), ckpt_path=path, weights_only=False)
    assert rest.global_step == second.made.steps == 6
    assert torch.equal(vector(whole.net), vector(second.net))


def test_hooks_and_the_loss_that_callbacks_see(tmp_path):
    class Told(L.Callback):
        def __init__(self):
            self.losses, self.norms = [], []

        def on_before_optimizer_step(self, trainer, module, optimizer):
            self.norms.append(float(module.net[0].weight.grad.norm()))

        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            self.losses.append(float(outputs["loss"]))

    told, model = Told(), Automatic()
    trainer(tmp_path, max_epochs=1, callbacks=[told]).fit(model, loader())
    x, y = next(iter(loader()))
    net = network()
    loss = F.cross_entropy(net(x), y)
    loss.backward()
    assert told.losses[0] == pytest.approx(float(loss.detach()), rel=1e-12)
    assert told.norms[0] == pytest.approx(float(net[0].weight.grad.norm()), rel=1e-12)
    assert len(told.norms) == 6


def test_a_loss_is_logged_by_training_step(tmp_path):
    class Logging(Automatic):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            self.log("loss", loss)
            return loss

    run = trainer(tmp_path, max_epochs=1)
    run.fit(Logging(), loader())
    assert torch.isfinite(run.callback_metrics["loss"])


class Manual(Plain):
    """As Lightning's documentation has it; F3EO's `step` uses what was accumulated."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        optimizer.optimizer.accumulate(lambda *part: self.losses(part, batch_idx), *batch)
        if batch_idx % 2:
            optimizer.step()
            self.lr_schedulers().step()


def test_manual_optimisation_needs_no_mixin(tmp_path):
    model = Manual()
    run = trainer(tmp_path)
    run.fit(model, loader())
    assert torch.equal(vector(model.net), vector(plain_loop(2, None)[0]))
    assert run.global_step == model.made.steps == 6


def test_what_is_missing_is_named(tmp_path):
    class NoLosses(F3EOMixin, L.LightningModule):
        configure_optimizers = Plain.configure_optimizers

        def __init__(self):
            super().__init__()
            self.net = network()

    class Other(Automatic):
        def configure_optimizers(self):
            return SGD(self.net.parameters(), lr=0.1)

    with pytest.raises(NotImplementedError, match=r"NoLosses needs losses\(batch, batch_idx\)"):
        trainer(tmp_path).fit(NoLosses(), loader())
    with pytest.raises(TypeError, match="Other must give one F3EO, received SGD"):
        trainer(tmp_path).fit(Other(), loader())


def test_without_the_mixin_automatic_optimisation_is_refused_with_the_cure(tmp_path):
    class Bare(Plain):
        def training_step(self, batch, batch_idx):
            return self.losses(batch, batch_idx).mean()

    with pytest.raises(RuntimeError, match=r"f3eo\.integrations\.lightning"):
        trainer(tmp_path).fit(Bare(), loader())


def test_losses_are_told_the_number_of_their_batch(tmp_path):
    class Counting(Automatic):
        def losses(self, batch, batch_idx):
            self.seen = {*getattr(self, "seen", ()), batch_idx}
            return super().losses(batch, batch_idx)

    model = Counting()
    trainer(tmp_path, max_epochs=1).fit(model, loader())
    assert model.seen == set(range(6))


def test_a_training_step_of_the_old_kind_is_named(tmp_path):
    class Old(Automatic):
        def training_step(self, batch, batch_idx):
            return self.losses(batch, batch_idx).mean()

    with pytest.raises(TypeError, match="training_step of Old returned a loss to differentiate"):
        trainer(tmp_path).fit(Old(), loader())
