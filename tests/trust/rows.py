"""Which tests stand for which row of the two tables of docs/trust.md."""

BASES, PARTS = "tests/optimizer/test_bases.py", "tests/optimizer"
SUITE, MEMORY = "tests/trust/test_optimizers.py", "tests/trust/test_memory.py"
SECOND = "tests/second_order"

EACH, MEASURED, SGD, SECOND_ORDER = "each", "measured", "SGD", "second order"
"""What a test is of: every optimizer that is in its parameters; the estimators, with no base at
all; F3EO over SGD or the base it names; a second-order optimizer."""

CHECKS: dict[str, list[tuple[str, str]]] = {
    "1. Wrong arguments, groups and closures are errors that say what was received": [
        (EACH, f"{SUITE}::test_bad_arguments"),
        (SGD, f"{PARTS}/test_bad_input.py"),
        (SGD, f"{PARTS}/test_checks.py"),
        (SECOND_ORDER, f"{SECOND}/test_bad_input.py"),
    ],
    "2. The loss falls, and Tr F; `maximize`, strides and schedulers": [
        (EACH, f"{BASES}::test_every_base_trains"),
        (EACH, f"{BASES}::test_loss_and_trace_fall_and_the_trace_below_that_of_the_base_alone"),
        (EACH, f"{SUITE}::test_parameters_that_are_not_contiguous_train_as_others"),
        (SGD, f"{PARTS}/test_decoupled.py"),
        (SGD, f"{PARTS}/test_parameters.py"),
        (
            SGD,
            f"{PARTS}/test_protocol.py::test_schedulers_act_on_the_base_as_they_do_on_the_base_alone",
        ),
        (
            SECOND_ORDER,
            f"{SECOND}/test_steps.py::test_the_loss_never_rises_and_a_rejected_step_changes_nothing",
        ),
        (SECOND_ORDER, f"{SECOND}/test_restore.py::test_a_scheduler_sets_the_learning_rate"),
    ],
    "3. `foreach` equals the loop; scalars, and steps without some gradients": [
        (EACH, f"{SUITE}::test_foreach_equals_the_loop"),
        (EACH, f"{SUITE}::test_scalars_and_unused_parameters_are_trained"),
        (EACH, f"{PARTS}/test_left_alone.py"),
    ],
    "4. Complex and sparse parameters are refused": [
        (EACH, f"{SUITE}::test_bad_arguments"),
        (
            SGD,
            f"{PARTS}/test_traps.py::test_sparse_gradients_are_refused_even_where_the_module_is_not_known",
        ),
    ],
    "5. State: saved with `weights_only`, copied, pickled, hooks, another dtype": [
        (EACH, f"{SUITE}::test_a_loaded_optimizer_and_a_copy_go_on_in_lockstep"),
        (EACH, f"{SUITE}::test_all_hooks_fire_once"),
        (EACH, f"{BASES}::test_every_base_resumes_bit_for_bit"),
        (SGD, f"{PARTS}/test_state.py"),
        (SGD, f"{PARTS}/test_distributed_checkpoint.py"),
        (SECOND_ORDER, f"{SECOND}/test_state.py"),
    ],
    "6. Memory: the peak stays, and nothing grows with the collector off": [
        (EACH, f"{MEMORY}::test_the_peak_of_memory_is_that_of_the_first_steps"),
        (EACH, f"{MEMORY}::test_no_tensor_is_left_with_the_collector_off"),
        (SGD, f"{PARTS}/test_memory.py"),
        (
            SECOND_ORDER,
            f"{SECOND}/test_state.py::test_steps_leave_no_tensor_with_the_collector_off",
        ),
    ],
    "7. g, H g, norms, the trace and its gradient against dense float64": [
        (MEASURED, "tests/fisher/test_per_sample.py"),
        (MEASURED, "tests/fisher/test_coverage.py"),
        (MEASURED, "tests/fisher/test_sample_norms.py"),
        (MEASURED, "tests/curvature/test_engines.py"),
        (SECOND_ORDER, "tests/curvature/test_matrices.py"),
        (SECOND_ORDER, f"{SECOND}/test_steps.py"),
    ],
    "8. Estimators: mean and variance against theory": [
        (MEASURED, "tests/fisher/test_estimators.py"),
        (
            SECOND_ORDER,
            "tests/closure/test_likelihood.py::test_s_s_transposed_is_the_covariance_of_the_score",
        ),
    ],
    "9. A trajectory in closed form, a golden one; strength 0 is the base bit for bit": [
        (EACH, f"{BASES}::test_strength_zero_is_the_base_bit_for_bit"),
        (SGD, f"{PARTS}/test_trajectories.py"),
        (SGD, f"{PARTS}/test_golden.py"),
        (
            SECOND_ORDER,
            f"{SECOND}/test_steps.py::test_several_steps_follow_the_dense_ones_with_the_damping_of_the_report",
        ),
        (SECOND_ORDER, f"{SECOND}/test_steps.py::test_the_minimum_of_a_quadratic_is_one_step_away"),
    ],
    "10. Micro-batches equal the large batch": [
        (EACH, f"{SUITE}::test_micro_batches_equal_the_large_batch"),
        (SGD, f"{PARTS}/test_accumulate.py"),
    ],
    "11. Two and four processes equal one; compiled equals eager": [
        (EACH, "tests/processes/test_processes.py"),
        (EACH, "tests/integrations/test_fsdp.py"),
        (MEASURED, "tests/fisher/test_compiled.py"),
        (SECOND_ORDER, f"{PARTS}/test_processes.py::test_second_order_optimizers_are_refused_too"),
    ],
    "13. What is not finite, or throws, moves nothing and is counted": [
        (EACH, f"{SUITE}::test_a_step_that_is_not_finite_moves_nothing"),
        (EACH, f"{SUITE}::test_a_step_that_fails_leaves_weights_state_and_random_numbers"),
        (EACH, f"{PARTS}/test_nonfinite.py::test_a_bad_step_leaves_every_base"),
        (SGD, f"{PARTS}/test_nonfinite.py"),
        (SGD, f"{PARTS}/test_restore.py"),
        (SECOND_ORDER, f"{SECOND}/test_restore.py"),
        (
            SECOND_ORDER,
            f"{SECOND}/test_bad_input.py::test_what_is_not_finite_is_skipped_counted_or_raised",
        ),
    ],
    "14. Killed and resumed bit for bit; a truncated file is found": [
        (MEASURED, "tests/test_checkpoint.py"),
        (MEASURED, "tests/killed"),
        (MEASURED, "tests/integrations/test_trainer_checkpoints.py"),
        (MEASURED, "tests/bench/execute/test_store.py"),
        (
            SECOND_ORDER,
            f"{SECOND}/test_state.py::test_a_saved_and_loaded_optimizer_goes_on_bit_for_bit",
        ),
    ],
    "15. Random shapes and architectures, batches of none and of one": [
        (EACH, f"{SUITE}::test_batches_of_any_size_and_of_one_sample"),
        (EACH, f"{SUITE}::test_a_batch_of_none_is_refused_or_skipped_and_leaves_everything"),
        (MEASURED, "tests/fisher/test_random_architectures.py"),
    ],
}
"""Row 12 is the table of traps, row 16 that of mutants."""

TRAPS: dict[str, tuple[str, list[str]]] = {
    "fused attention has no second derivative": (
        "recomputed as it was, or by the mathematical kernel",
        [
            f"{PARTS}/test_fused.py",
            f"{PARTS}/test_traps.py::test_fused_attention_is_recomputed_as_it_was_computed",
        ],
    ),
    "fused recurrent layers (cuDNN) have none": (
        "decomposed into what has one",
        [
            "tests/decompositions/test_decompositions.py::test_recurrent_layers",
            f"{PARTS}/test_fused.py::test_fused_kernels_on_a_gpu",
        ],
    ),
    "DDP: `autograd.grad` gives local gradients": (
        "sums over processes; other wrappers refused",
        [
            "tests/processes/test_processes.py",
            f"{PARTS}/test_traps.py::test_wrappers_that_spread_parameters_are_refused",
        ],
    ),
    "FSDP2: no graph of .grad": (
        "`Sharded` takes ordinary backward passes; other estimators refused by name",
        ["tests/integrations/test_fsdp.py"],
    ),
    "torch.compile and an outer double backward": (
        "measured as it is written",
        [
            "tests/closure/test_eager.py",
            f"{PARTS}/test_traps.py::test_compiled_models_are_trained_as_they_are_written",
        ],
    ),
    "`backward(create_graph=True)`: cycles": (
        "none; what is written has no graph",
        [
            f"{PARTS}/test_traps.py::test_what_a_step_writes_carries_no_graph_even_if_the_user_keeps_one",
            f"{PARTS}/test_memory.py",
            f"{PARTS}/test_restore.py::test_a_backward_in_the_closure_is_found_and_undone",
        ],
    ),
    "GradScaler: gradients times 65,536": (
        "refused with the way out",
        [f"{PARTS}/test_traps.py::test_grad_scaler_is_refused_with_the_way_out"],
    ),
    "BatchNorm mixes samples, statistics twice": (
        "refused for single samples; one update a step",
        [
            f"{PARTS}/test_restore.py::test_batch_norm_updates_its_statistics_exactly_once_a_step",
            f"{PARTS}/test_restore.py::test_batch_norm_in_training_is_refused_where_they_may_not",
        ],
    ),
    "dropout draws another mask": (
        "one mask in a step",
        [
            f"{PARTS}/test_restore.py::test_all_evaluations_of_a_step_see_one_dropout_mask_and_steps_differ",
            f"{SECOND}/test_restore.py::test_masks_are_the_same_within_a_step_and_others_in_the_next",
        ],
    ),
    "ReLU, max-pool: no graph for some parameters": (
        "zeros, or no structure term",
        [
            f"{PARTS}/test_traps.py::test_a_loss_linear_in_the_weights_has_no_structure_term",
            "tests/curvature/test_engines.py::test_a_linear_loss_has_product_zero",
        ],
    ),
    "in-place updates, clipping of g alone": (
        "both parts clipped by one factor; in-place layers right",
        [
            f"{PARTS}/test_traps.py::test_in_place_tied_repeated_and_unknown_layers",
            f"{PARTS}/test_clipping.py",
        ],
    ),
    "re-entrant activation checkpointing": (
        "refused with the cure; the other kind is right",
        [
            f"{PARTS}/test_traps.py::test_activation_checkpointing_matches_if_not_reentrant",
            f"{PARTS}/test_traps.py::test_reentrant_checkpointing_is_refused_with_the_cure",
        ],
    ),
    "sparse gradients of embeddings": (
        "refused by name",
        [
            f"{PARTS}/test_checks.py::test_sparse_embeddings_are_refused_by_name",
            f"{PARTS}/test_traps.py::test_sparse_gradients_are_refused_even_where_the_module_is_not_known",
        ],
    ),
    "tied weights, a module called twice": (
        "summed before the norm",
        [
            f"{PARTS}/test_traps.py::test_in_place_tied_repeated_and_unknown_layers",
            "tests/fisher/test_norms_by_leaf.py",
        ],
    ),
    "layers without a rule": (
        "the exact fallback, logged",
        [
            "tests/fisher/test_per_sample.py::test_the_fallback_is_logged_with_its_parameters_and_its_cost",
            "tests/fisher/test_per_sample.py::test_a_hidden_use_is_an_error_that_names_the_parameter",
        ],
    ),
    "a graph that user code keeps": (
        "released at the end of a step",
        [
            f"{PARTS}/test_memory.py::test_steps_leave_nothing_with_the_collector_off",
            f"{PARTS}/test_memory.py::test_resident_memory_is_flat",
        ],
    ),
    "finite differences in float32": (
        "a step of the right size; the error is told",
        [
            f"{PARTS}/test_traps.py::test_differences_in_float32_are_as_exact_as_promised",
            "tests/curvature/test_guard.py::test_the_expected_error_is_that_of_single_precision",
        ],
    ),
}
"""A trap, what f3eo does about it, and the tests of that."""
