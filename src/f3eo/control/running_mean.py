"""A mean of the latest values of a noisy quantity."""


def running_mean(mean: float, count: int, value: float, memory: float) -> float:
    """m_n = m_{n−1} + max(1/n, 1/memory) (x_n − m_{n−1}).

    It is the plain mean of the first `memory` values, so it has no bias at the start, and then an
    exponential mean with that time constant.

    Args:
        mean: m_{n−1}; any number where n is 1.
        count: n, the number of values with this one, at least 1.
        value: x_n.
        memory: time constant in values, at least 1.
    """
    return mean + max(1 / count, 1 / memory) * (value - mean)
