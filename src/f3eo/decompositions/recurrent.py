"""Recurrent layers as linear maps and a loop over time.

The arguments are those of torch's fused functions: (input, state, weights, has_biases, num_layers,
dropout, train, bidirectional, batch_first), or (data, batch_sizes, state, weights, …) for a packed
sequence. Shapes inside are (T, B, …).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from f3eo.decompositions.mode import decompose

State = tuple[Tensor, ...]
Options = tuple[bool, int, float, bool, bool]
"""Biases, layers, dropout, train, bidirectional."""
Cell = Callable[[Tensor, State, Callable[[Tensor], Tensor], Tensor | None], State]
"""(input gates, state, hidden → hidden gates, projection) → new state, the output first."""


def _lstm_cell(
    gates: Tensor, state: State, recur: Callable[[Tensor], Tensor], projection: Tensor | None
) -> State:
    hidden, cell = state
    i, f, g, o = (gates + recur(hidden)).chunk(4, -1)
    cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
    hidden = o.sigmoid() * cell.tanh()
    return (hidden if projection is None else F.linear(hidden, projection)), cell


def _gru_cell(
    gates: Tensor, state: State, recur: Callable[[Tensor], Tensor], projection: Tensor | None
) -> State:
    (hidden,) = state
    reset, update, new = gates.chunk(3, -1)
    reset_h, update_h, new_h = recur(hidden).chunk(3, -1)
    update = (update + update_h).sigmoid()
    new = (new + (reset + reset_h).sigmoid() * new_h).tanh()
    return ((1 - update) * new + update * hidden,)


def _simple_cell(
    activation: Callable[[Tensor], Tensor],
    gates: Tensor,
    state: State,
    recur: Callable[[Tensor], Tensor],
    projection: Tensor | None,
) -> State:
    return (activation(gates + recur(state[0])),)


def _direction(
    cell: Cell, x: Tensor, state: State, weights: Sequence[Tensor], biases: bool, active: Tensor
) -> tuple[Tensor, State]:
    """One direction of one layer: outputs (T, B, H) and the state after the last step."""
    count = 4 if biases else 2
    into, recurrent, *rest = weights[:count]
    projection = weights[count] if len(weights) > count else None
    gates = F.linear(x, into, rest[0] if biases else None)
    recur = partial(F.linear, weight=recurrent, bias=rest[1] if biases else None)
    outputs = []
    for t in range(len(x)):
        new = cell(gates[t], state, recur, projection)
        # After its end a sequence of a packed input keeps its state.
        state = tuple(torch.where(active[t], n, s) for n, s in zip(new, state, strict=True))
        outputs.append(state[0])
    return torch.stack(outputs), state


def _layers(
    cell: Cell,
    x: Tensor,
    state: State,
    weights: Sequence[Tensor],
    options: Options,
    active: Tensor,
) -> tuple[Tensor, State]:
    """All layers and directions; x is (T, B, F), `active` (T, B, 1) is True within a sequence."""
    biases, layers, dropout, train, bidirectional = options
    directions = 2 if bidirectional else 1
    each = len(weights) // (layers * directions)
    last: list[State] = []
    for layer in range(layers):
        outputs = []
        for direction in range(directions):
            k = layer * directions + direction
            part = weights[k * each : (k + 1) * each]
            start = tuple(s[k] for s in state)
            if direction:
                out, end = _direction(cell, x.flip(0), start, part, biases, active.flip(0))
                out = out.flip(0)
            else:
                out, end = _direction(cell, x, start, part, biases, active)
            outputs.append(out)
            last.append(end)
        x = torch.cat(outputs, -1) if bidirectional else outputs[0]
        if dropout and train and layer < layers - 1:
            x = F.dropout(x, dropout, train)
    return x, tuple(torch.stack(parts) for parts in zip(*last, strict=True))


def _run(cell: Cell, args: tuple[Any, ...]) -> tuple[Tensor, ...]:
    """Handles both signatures: packed, with the list of weights as fourth argument, and padded."""
    if not isinstance(args[3], (list, tuple)):
        x, state, weights, *options, batch_first = args
        x = x.transpose(0, 1) if batch_first else x
        active = torch.ones_like(x[..., :1], dtype=torch.bool)  # of samples only where x is
        out, last = _layers(cell, x, _initial(state, x), weights, tuple(options), active)
        return (out.transpose(0, 1) if batch_first else out), *last
    data, sizes, state, weights, *options = args
    # Row j of step t stands at offset_t + j; sequences are sorted by length, so j counts samples.
    sizes = sizes.to(data.device)
    offsets = (sizes.cumsum(0) - sizes).unsqueeze(1)
    column = torch.arange(int(sizes[0]), device=data.device)
    real = column < sizes.unsqueeze(1)
    index = torch.where(real, offsets + column, 0)
    x = data[index]
    out, last = _layers(cell, x, _initial(state, x), weights, tuple(options), real.unsqueeze(-1))
    return out[real], *last


def _initial(state: Any, x: Tensor) -> State:
    """Initial states (layers, B, H), made a function of the samples by adding zeros from them."""
    state = tuple(state) if isinstance(state, (list, tuple)) else (state,)
    return tuple(s + torch.zeros_like(x[:1, :, :1]) for s in state)


@decompose(torch.lstm)
def lstm(*args: Any) -> tuple[Tensor, ...]:
    """As `torch.lstm`: outputs, hidden state, cell state."""
    return _run(_lstm_cell, args)


@decompose(torch.gru)
def gru(*args: Any) -> tuple[Tensor, ...]:
    """As `torch.gru`: outputs, hidden state."""
    return _run(_gru_cell, args)


@decompose(torch.rnn_tanh)
def rnn_tanh(*args: Any) -> tuple[Tensor, ...]:
    """As `torch.rnn_tanh`: outputs, hidden state."""
    return _run(partial(_simple_cell, torch.tanh), args)


@decompose(torch.rnn_relu)
def rnn_relu(*args: Any) -> tuple[Tensor, ...]:
    """As `torch.rnn_relu`: outputs, hidden state."""
    return _run(partial(_simple_cell, torch.relu), args)


def _cell(cell: Cell, x: Tensor, state: Any, into: Tensor, recurrent: Tensor, *biases: Any) -> Any:
    state = tuple(state) if isinstance(state, (list, tuple)) else (state,)
    b_in, b_re = biases or (None, None)
    recur = partial(F.linear, weight=recurrent, bias=b_re)
    new = cell(F.linear(x, into, b_in), state, recur, None)
    return new if cell is _lstm_cell else new[0]


decompose(torch.lstm_cell)(partial(_cell, _lstm_cell))
decompose(torch.gru_cell)(partial(_cell, _gru_cell))
decompose(torch.rnn_tanh_cell)(partial(_cell, partial(_simple_cell, torch.tanh)))
decompose(torch.rnn_relu_cell)(partial(_cell, partial(_simple_cell, torch.relu)))
