import pytest
import torch
from torch import nn

from f3eo.optimizer.checks import WRAPPERS, check_model, check_parameters, in_range

INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize("value", [1e-9, 0.5, 1, 1.0])
def test_numbers_in_range_are_handed_back(value):
    assert in_range("fraction", value, 0.0, 1.0) is value


@pytest.mark.parametrize(
    ("value", "high"), [(0, 1), (0.0, None), (-1, None), (1.1, 1), (NAN, None)]
)
def test_numbers_out_of_range_are_refused_with_the_bounds(value, high):
    bound = r"in \(0, 1\]" if high else "> 0"
    with pytest.raises(ValueError, match=rf"size must be {bound}, received {value}"):
        in_range("size", value, 0, high)


@pytest.mark.parametrize("value", ["1", None, True, [1], torch.tensor(1.0), 1j])
@pytest.mark.parametrize("integer", [True, False])
def test_what_is_no_number_is_refused_by_its_value(value, integer):
    word = "an integer" if integer else "a number"
    with pytest.raises(TypeError, match=rf"size must be {word}, received"):
        in_range("size", value, 0, None, integer=integer)


def test_a_float_is_no_integer():
    with pytest.raises(TypeError, match=r"must be an integer, received 2.0"):
        in_range("every", 2.0, 0, None, integer=True)
    assert in_range("every", 2, 0, None, integer=True) == 2


def named(name):
    """A module whose class has this name, as a wrapper of torch's would."""
    return type(name, (nn.Module,), {})()


def test_a_model_of_fully_shard_is_refused_without_the_estimator_for_it():
    for model in (named("FSDPModule"), nn.Sequential(named("FSDPModule"))):
        with pytest.raises(NotImplementedError, match=r"fully_shard.*estimator=Sharded\(\)"):
            check_model(model)
        check_model(model, sharded=True)


@pytest.mark.parametrize("name", WRAPPERS)
def test_wrappers_that_average_over_processes_are_refused_at_any_depth(name):
    for model in (named(name), nn.Sequential(nn.Sequential(named(name)))):
        with pytest.raises(NotImplementedError, match=rf"{name}.*model\.module"):
            check_model(model, WRAPPERS)


@pytest.mark.parametrize("name", WRAPPERS)
def test_f3eo_takes_the_wrapper_that_only_sums(name):
    if name == "DistributedDataParallel":
        check_model(named(name))
    else:
        with pytest.raises(NotImplementedError, match=rf"{name}.*or with DistributedDataParallel"):
            check_model(named(name))


@pytest.mark.parametrize("kind", [nn.Embedding, nn.EmbeddingBag])
def test_sparse_embeddings_are_refused_by_name(kind):
    model = nn.Sequential(nn.Identity(), kind(3, 2, sparse=True))
    with pytest.raises(ValueError, match=r"1 gives sparse gradients.*sparse=False"):
        check_model(model)
    check_model(nn.Sequential(kind(3, 2)))


def test_no_model_and_ordinary_models_pass():
    check_model(None)
    check_model(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))


P = nn.Parameter(torch.zeros(2, 3))
GROUPS = {  # groups, words
    "complex": ([torch.zeros(2, dtype=torch.complex64)], r"0 of group 0 \(shape \(2,\)\) is compl"),
    "complex, named": ([("a", P), ("b", torch.zeros(1, dtype=torch.complex128))], "parameter 1 of"),
    "sparse": ([torch.eye(3).to_sparse()], r"is sparse.*to_dense\(\)"),
    "twice": ([P, P], r"parameter 1 of group 0 \(shape \(2, 3\)\) is there twice"),
}


@pytest.mark.parametrize("name", GROUPS)
def test_parameters_without_a_trace_are_refused_by_place(name):
    params, words = GROUPS[name]
    with pytest.raises(ValueError, match=words):
        check_parameters([{"params": params}], None)


def test_a_parameter_in_two_groups_is_refused():
    with pytest.raises(ValueError, match=r"parameter 0 of group 1.*twice"):
        check_parameters([{"params": [P]}, {"params": [P]}], None)


def test_parameters_belong_to_the_model_if_there_is_one():
    model = nn.Linear(3, 2)
    check_parameters([{"params": list(model.parameters())}], model)
    check_parameters([{"params": [model.bias]}], model)  # the rest is frozen
    with pytest.raises(ValueError, match=r"0 of group 0.*does not belong to the model.*alone"):
        check_parameters([{"params": [P]}], model)


@pytest.mark.parametrize("value", ["no", 0, 1, None])
def test_structure_is_true_or_false(value):
    with pytest.raises(ValueError, match=rf'"structure" of group 0.*received {value!r}'):
        check_parameters([{"params": [P], "structure": value}], None)
