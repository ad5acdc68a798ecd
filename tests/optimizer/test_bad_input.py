"""Bad arguments, closures and batches: refused at once, by messages with value and cure."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import LBFGS, SGD, Adam

from cases import WHOLE
from f3eo import (
    F3EO,
    Cap,
    DoubleBackward,
    FiniteDifference,
    Fixed,
    MiniBatch,
    ModelSampled,
    PerSample,
    Ratio,
    Sign,
    Warmup,
)
from optimizer.helpers import batches, everything, losses, network

NAN = float("nan")


def wrapped(model=None, base=SGD, **options):
    return F3EO(network().model if model is None else model, base, **WHOLE | {"lr": 0.1} | options)


ARGUMENTS = {  # what is handed over, the error, and words of the message
    "estimator, class": (lambda: wrapped(estimator=PerSample), TypeError, "estimator.*PerSample'>"),
    "estimator, name": (lambda: wrapped(estimator="sign"), TypeError, "estimator.*received 'sign'"),
    "rule, class": (lambda: wrapped(rule=Cap), TypeError, r"rule must be.*Cap'>.*Decoupled\(\)"),
    "rule, strength": (lambda: wrapped(rule=Ratio(1)), TypeError, r"rule must be.*Ratio\(1\)"),
    "strength, number": (
        lambda: wrapped(strength=0.3),
        TypeError,
        r"strength.*received 0.3.*Fitted\(",
    ),
    "fraction 0": (
        lambda: wrapped(fraction=0.0),
        ValueError,
        r"fraction.*\(0.0, 1.0\].*received 0",
    ),
    "fraction 1.5": (lambda: wrapped(fraction=1.5), ValueError, "fraction.*received 1.5"),
    "fraction nan": (lambda: wrapped(fraction=NAN), ValueError, "fraction.*received nan"),
    "fraction text": (lambda: wrapped(fraction="half"), TypeError, "a number, received 'half'"),
    "fraction bool": (lambda: wrapped(fraction=True), TypeError, "fraction.*received True"),
    "fraction tensor": (
        lambda: wrapped(fraction=torch.tensor(0.5)),
        TypeError,
        "fraction must be a number.*tensor",
    ),
    "every 0": (lambda: wrapped(every=0), ValueError, "every must be > 0, received 0"),
    "every 1.5": (lambda: wrapped(every=1.5), TypeError, "every must be an integer, received 1.5"),
    "chunk 0": (lambda: wrapped(chunk=0), ValueError, "chunk must be > 0, received 0"),
    "chunk float": (
        lambda: wrapped(chunk=8.0),
        TypeError,
        "chunk must be an integer, received 8.0",
    ),
    "max_norm 0": (lambda: wrapped(max_norm=0.0), ValueError, "max_norm must be > 0.*received 0.0"),
    "max_norm text": (lambda: wrapped(max_norm="1"), TypeError, "max_norm.*received '1'"),
    "max_norm nan": (lambda: wrapped(max_norm=NAN), ValueError, "max_norm.*received nan"),
    "on_nonfinite": (
        lambda: wrapped(on_nonfinite="ignore"),
        ValueError,
        '"skip" or "raise", received \'ignore\'',
    ),
    "generator": (
        lambda: wrapped(generator=3),
        TypeError,
        r"generator must be a torch.Generator or None, received 3.*manual_seed",
    ),
    "fraction of a batch": (
        lambda: wrapped(fraction=0.5, estimator=MiniBatch()),
        ValueError,
        r"fraction=0.5 needs.*received MiniBatch.*PerSample\(\)",
    ),
    "structure": (
        lambda: wrapped([{"params": network().model.parameters(), "structure": "no"}]),
        ValueError,
        "structure.*group 0.*True or False, received 'no'",
    ),
    "structure, added": (
        lambda: wrapped().add_param_group({"params": [torch.zeros(1)], "structure": 1}),
        ValueError,
        "structure.*received 1",
    ),
    "group, no dict": (
        lambda: wrapped().add_param_group([torch.zeros(1)]),
        TypeError,
        "must be a dict",
    ),
    "group, set": (
        lambda: wrapped(network().model.parameters()).add_param_group({"params": {torch.zeros(1)}}),
        TypeError,
        "ordered",
    ),
    "group, known": (
        lambda: (lambda o: o.add_param_group({"params": o.param_groups[0]["params"]}))(wrapped()),
        ValueError,
        "more than one parameter group",
    ),
    "base None": (
        lambda: F3EO(network().model, None, fraction=1, every=1),
        TypeError,
        "base must be.*SGD.*None",
    ),
    "base name": (
        lambda: F3EO(network().model, "adam", fraction=1, every=1),
        TypeError,
        "base must be.*'adam'",
    ),
    "base, module": (lambda: F3EO(network().model, nn.ReLU(), fraction=1, every=1), TypeError, "."),
    "base, no optimizer": (
        lambda: F3EO(network().model, lambda parameters: SimpleNamespace(), fraction=1, every=1),
        TypeError,
        "base must be.*namespace",
    ),
    "base, F3EO": (
        lambda: F3EO(network().model, wrapped(), fraction=1, every=1),
        TypeError,
        "base must be",
    ),
    "base, L-BFGS": (
        lambda: F3EO(network().model, LBFGS, fraction=1, every=1),
        TypeError,
        "LBFGS evaluates the loss several times.*use SGD",
    ),
    "options of a built base": (
        lambda: F3EO(
            network().model.parameters(),
            SGD(network().model.parameters()),
            lr=0.1,
            fraction=1,
            every=1,
        ),
        ValueError,
        r"options \['lr'\] belong to the base.*already built",
    ),
    "lr": (lambda: wrapped(lr=-1.0), ValueError, "Invalid learning rate: -1.0"),
    "unknown option": (lambda: wrapped(momentun=0.9), TypeError, "momentun"),
    "no parameters": (lambda: wrapped([]), ValueError, "empty parameter list"),
    "a module without parameters": (lambda: wrapped(nn.ReLU()), ValueError, "empty parameter list"),
    "a number for a model": (lambda: wrapped(3), TypeError, "iterable"),
    "one tensor for a model": (lambda: wrapped(torch.zeros(2)), TypeError, "iterable of Tensors"),
    "foreign parameters": (
        lambda: F3EO(
            network().model, SGD(network().model.parameters(), lr=0.1), fraction=1, every=1
        ),
        ValueError,
        r"parameter 0 of group 0 \(shape \(7, 5\)\) does not belong to the model.*pass the module",
    ),
    "foreign parameters, added": (
        lambda: wrapped().add_param_group({"params": [nn.Parameter(torch.zeros(2))]}),
        ValueError,
        "does not belong to the model",
    ),
    "complex": (
        lambda: wrapped([torch.zeros(2, dtype=torch.complex64)]),
        ValueError,
        "parameter 0.*is complex.*view_as_real",
    ),
    "sparse": (
        lambda: wrapped([torch.eye(2).to_sparse()]),
        ValueError,
        r"parameter 0.*is sparse.*to_dense\(\)",
    ),
    "sparse embedding": (
        lambda: wrapped(nn.Sequential(nn.Embedding(3, 2, sparse=True))),
        ValueError,
        "0 gives sparse gradients.*sparse=False",
    ),
    "strength, negative": (lambda: Ratio(-0.1), ValueError, "Ratio.*>= 0, received -0.1"),
    "strength, nan": (lambda: Fixed(NAN), ValueError, "Fixed.*finite.*received nan"),
    "strength, text": (lambda: Ratio("0.3"), TypeError, "Ratio.*number.*received '0.3'"),
    "strength, none": (lambda: Cap(None), TypeError, "Cap.*number.*received None"),
    "strength, schedule": (lambda: Ratio(0.3, 100), TypeError, r"schedule.*received 100.*Warmup\("),
    "cap, limit": (lambda: Cap(1.0, limit=0.0), ValueError, "limit > 0, received 0.0"),
    "cap, limit text": (lambda: Cap(1.0, limit="1"), TypeError, "number as limit, received '1'"),
    "warmup": (lambda: Warmup(0), ValueError, "steps >= 1.*received 0"),
    "warmup, delay": (lambda: Warmup(5, delay=-1), ValueError, "delay >= 0.*-1"),
    "warmup, text": (lambda: Warmup("5"), TypeError, "Warmup.*integer.*received '5'"),
    "difference, step": (lambda: FiniteDifference(step=0.0), ValueError, "step > 0, received 0.0"),
    "memory": (
        lambda: PerSample(DoubleBackward(), memory=0, power=2),
        ValueError,
        "memory > 0 bytes, received 0",
    ),
    "probes": (lambda: ModelSampled(probes=0), ValueError, "probes >= 1.*received 0"),
    "sampled differences": (
        lambda: ModelSampled(Sign(FiniteDifference())),
        ValueError,
        r"DoubleBackward\(\), received FiniteDifference",
    ),
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_bad_arguments_are_refused(name):
    make, error, words = ARGUMENTS[name]
    with pytest.raises(error, match=rf"(?s){words}"):
        make()


@pytest.mark.parametrize("value", [-1.0, NAN, float("inf")])
def test_a_schedule_that_gives_no_factor_is_refused(value):
    """A negative one would ascend Tr F, the others would ruin the weights."""
    row = network()
    optimizer = F3EO(
        row.model, SGD, lr=0.1, strength=Ratio(0.3, lambda step: value), fraction=1, every=1
    )
    before = everything(row.model, optimizer)
    with pytest.raises(ValueError, match=rf"schedule.*>= 0.*step 0.*{value}"):
        optimizer.step(row.losses, *row.batch)
    assert everything(row.model, optimizer) == before


def test_duplicate_parameters_are_refused():
    """Twice in one group, where torch only warns: they would count twice in Tr F."""
    parameters = list(network().model.parameters())
    with (
        pytest.warns(UserWarning, match="duplicate parameters"),
        pytest.raises(ValueError, match=r"parameter 6 of group 0 \(shape \(7, 5\)\).*twice"),
    ):
        wrapped([*parameters, parameters[0]])
    with pytest.raises(ValueError, match="more than one parameter group"):
        wrapped([{"params": parameters}, {"params": parameters[:1]}])


X, Y = batches(1)[0]
CLOSURES = {  # closure of (model, x, y), options, the error, words
    "scalar": (
        lambda m, x, y: F.cross_entropy(m(x), y),
        {},
        ValueError,
        'scalar.*reduction="none"',
    ),
    "scalar, strength 0": (
        lambda m, x, y: F.cross_entropy(m(x), y),
        {"strength": Ratio(0)},
        ValueError,
        r'scalar.*reduction="none".*estimator=MiniBatch\(\)',
    ),
    "none": (lambda m, x, y: None, {}, TypeError, "per-sample losses.*received NoneType"),
    "float": (lambda m, x, y: 1.0, {}, TypeError, "received float"),
    "pair": (lambda m, x, y: (losses(m)(x, y), m(x)), {}, TypeError, "received tuple"),
    "short": (
        lambda m, x, y: losses(m)(x, y)[:4],
        {},
        ValueError,
        r"shape \(4,\) for a batch of 6 samples.*dimension 0",
    ),
    "flattened": (
        lambda m, x, y: losses(m)(x, y).repeat(2),
        {},
        ValueError,
        r"shape \(12,\) for a batch of 6.*\(B, T\)",
    ),
    "integers": (lambda m, x, y: m(x).argmax(1) == y, {}, TypeError, "floating point.*torch.bool"),
    "complex": (lambda m, x, y: losses(m)(x, y) * 1j, {}, TypeError, "real.*torch.complex128"),
    "detached": (
        lambda m, x, y: losses(m)(x, y).detach(),
        {},
        ValueError,
        r"no parameter that requires a gradient.*detach\(\)",
    ),
    "another model": (
        lambda m, x, y: losses(network().model)(x, y),
        {},
        ValueError,
        "none of the 6 parameters.*model that was handed over",
    ),
    "backward": (
        lambda m, x, y: [loss := losses(m)(x, y), loss.sum().backward()][0],
        {},
        RuntimeError,
        r"called backward\(\).*remove",
    ),
    "losses for a sampler": (
        lambda m, x, y: losses(m)(x, y),
        {"estimator": ModelSampled()},
        TypeError,
        r"ModelSampled.*Categorical\(logits, targets\).*not losses",
    ),
    "no closure": (None, {}, TypeError, r"closure.*function.*received 3"),
}


@pytest.mark.parametrize("name", CLOSURES)
def test_bad_closures_are_refused_and_leave_everything(name):
    closure, options, error, words = CLOSURES[name]
    row = network()
    optimizer = F3EO(row.model, Adam, lr=0.1, **WHOLE | options)
    before = everything(row.model, optimizer)
    with pytest.raises(error, match=rf"(?s){words}"):
        optimizer.step((closure and (lambda x, y: closure(row.model, x, y))) or 3, X, Y)
    assert everything(row.model, optimizer) == before


BATCHES = {  # batch, options, the error, words
    "empty": ((X[:0], Y[:0]), {}, ValueError, "holds no samples.*leave it out"),
    "empty, batch": ((X[:0], Y[:0]), {"estimator": MiniBatch()}, ValueError, "holds no samples"),
    "unequal": ((X, Y[:5]), {}, ValueError, r"samples in dimension 0, received sizes \[5, 6\]"),
    "an object": ((SimpleNamespace(x=X), Y), {}, TypeError, "received a SimpleNamespace.*tensors"),
    "a function": ((X, Y, print), {}, TypeError, "received a builtin_function_or_method"),
    "fraction without one": ((), {"fraction": 0.5}, ValueError, r"fraction=0.5.*step\(closure, \*"),
    "chunk without one": ((), {"chunk": 2}, ValueError, r"chunk=2.*step\(closure, \*batch\)"),
    "chunks of a batch": (
        (X, Y),
        {"chunk": 2, "estimator": MiniBatch()},
        ValueError,
        r"chunk=2 needs.*PerSample\(\).*received MiniBatch",
    ),
}


@pytest.mark.parametrize("name", BATCHES)
def test_bad_batches_are_refused_and_leave_everything(name):
    batch, options, error, words = BATCHES[name]
    row = network()
    optimizer = F3EO(row.model, Adam, lr=0.1, **WHOLE | options)
    before = everything(row.model, optimizer)
    with pytest.raises(error, match=rf"(?s){words}"):
        optimizer.step(lambda *_: row.losses(X, Y), *batch)
    assert everything(row.model, optimizer) == before


@pytest.mark.parametrize("rows", [1, 2])
def test_the_smallest_batches_are_no_bad_input(rows):
    for estimator in (
        PerSample(DoubleBackward(), power=2),
        Sign(),
        MiniBatch(),
        ModelSampled(),
        Sign(balanced=True),
    ):
        row = network()
        optimizer = F3EO(row.model, SGD, lr=0.1, estimator=estimator, fraction=1, every=1)
        optimizer.step(row.drawn, X[:rows], Y[:rows])
        assert (optimizer.steps, optimizer.skipped) == (1, 0)
