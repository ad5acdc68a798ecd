"""Which tests have to kill the mutants of which file, the quickest tests first."""

PER_SAMPLE = (
    "tests/fisher/test_no_graph.py",
    "tests/fisher/test_power.py",
    "tests/fisher/test_reduction.py",
    "tests/fisher/test_quantity.py",
    "tests/fisher/test_per_sample.py",
    "tests/fisher/test_differences.py",
    "tests/fisher/test_metric.py",
)
ESTIMATORS = (
    "tests/fisher/test_trace.py",
    "tests/fisher/test_estimators.py",
    "tests/closure/test_weighted.py",
    "tests/fisher/test_no_graph.py",
    "tests/optimizer/test_accumulate.py",
    "tests/curvature/test_guard.py",
)
ENGINES = (
    "tests/curvature/test_matrices.py",
    "tests/curvature/test_conjugate_gradients.py",
    "tests/curvature/test_engines.py",
)
MATRICES = (*ENGINES, "tests/second_order/test_steps.py", "tests/instruments/test_operator.py")
PRODUCTS = (*ENGINES, "tests/optimizer/test_bad_input.py", "tests/fisher/test_accuracy.py")
RULES = (
    "tests/direction/test_rule.py",
    "tests/direction/test_apart.py",
    "tests/optimizer/test_trajectories.py",
    "tests/optimizer/test_decoupled.py",
)
GROUPS = (
    "tests/processes/test_facts.py",
    "tests/processes/test_buckets.py",
    "tests/processes/test_processes.py",
)

TARGETS: dict[str, dict[str, tuple[str, ...]]] = {
    "update rules": {
        "direction/coupled.py": RULES,
        "direction/decoupled.py": RULES,
        "direction/direct.py": RULES,
        "direction/apart.py": RULES,
        "direction/update.py": RULES,
        "direction/metric.py": ("tests/direction/test_metric.py",),
    },
    "estimators": {
        "fisher/estimand.py": (
            "tests/fisher/test_reduction.py",
            "tests/optimizer/test_accumulate.py",
            "tests/closure/test_weighted.py",
            "tests/fisher/test_sample_norms.py",
        ),
        "fisher/quantity.py": ("tests/fisher/test_power.py", "tests/fisher/test_quantity.py"),
        "fisher/emphasis.py": ("tests/fisher/test_quantity.py",),
        "fisher/metric.py": ("tests/fisher/test_metric.py",),
        "fisher/per_sample.py": (*PER_SAMPLE, "tests/fisher/test_trace.py"),
        "fisher/per_sample_exact.py": PER_SAMPLE,
        "fisher/single_samples.py": PER_SAMPLE,
        "fisher/signs.py": ESTIMATORS,
        "fisher/sampled_labels.py": ESTIMATORS,
        "fisher/mini_batch.py": ESTIMATORS,
        "fisher/by_engine.py": ESTIMATORS,
        "fisher/objective.py": ESTIMATORS,
        "fisher/trace.py": ESTIMATORS,
    },
    "engines": {
        "curvature/conjugate_gradients.py": ENGINES,
        "curvature/double_backward.py": PRODUCTS,
        "curvature/empirical_fisher.py": MATRICES,
        "curvature/finite_difference.py": PRODUCTS,
        "curvature/gauss_newton.py": MATRICES,
        "curvature/hessian.py": MATRICES,
        "curvature/jacobian.py": MATRICES,
        "curvature/mismatch.py": (*ENGINES, "tests/curvature/test_guard.py"),
        "curvature/passes.py": MATRICES,
        "curvature/quadratic.py": MATRICES,
        "curvature/vectors.py": MATRICES,
    },
    "reduction": {
        "fisher/reduction.py": ("tests/fisher/test_reduction.py", "tests/optimizer/test_every.py"),
        "processes/all_reduce.py": GROUPS,
        "processes/buckets.py": ("tests/processes/test_buckets.py",),
        "processes/facts.py": ("tests/processes/test_facts.py",),
        "processes/norms.py": GROUPS,
    },
    "checkpoints": {
        "atomic.py": ("tests/test_checkpoint.py",),
        "checkpoint.py": ("tests/test_checkpoint.py",),
        "integrations/trainer_checkpoints.py": ("tests/integrations/test_trainer_checkpoints.py",),
    },
}
"""Files under src/f3eo, by what they are, each with its tests."""

EXPLAINED: dict[str, str] = {
    "direction/update.py 61146fd9c147": "a column that is too long: map ends with the shortest",
    "direction/apart.py af2f5b312521": "a product of two tensors, in either order",
    "direction/apart.py c9000c36c1c4": "an inner product, in either order",
    "direction/apart.py caaa699dc29b": "an inner product, in either order",
    "curvature/conjugate_gradients.py 4c09fd5568db": "at equality, to the last bit, one step more",
    "curvature/vectors.py a8318e9c90ad": "`strict` of lists that are as long",
    "direction/apart.py 479a63053e67": "the unit of a vector that is 0, whose row of G is 0",
    "integrations/trainer_checkpoints.py 193011294676": "as long as the file: cut, too",
    "checkpoint.py 956cc392b9ec": "the step that is loaded is whole, so that it is not damaged",
}
"""Survivors that are no error, by file and key: why nobody can tell them from the original."""
