"""Compare optimizers on real tasks at equal cost, and write down what was measured."""
