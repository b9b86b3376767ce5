"""Ranges of values from data: the float graph is run on samples.

    arrays by input name, axis 0 = samples   →   {"conv1": (-1.3, 4.2), …}

`minmax` takes the extremes; `percentile` leaves out the rarest values at both ends, which makes
the others finer.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import Literal

import numpy as np

from nncc.diagnostics import PassError, nearest
from nncc.ir.graph import Module
from nncc.ir.index import Index, variables
from nncc.ir.index import evaluate as evaluate_size
from nncc.ir.interpreter.graph import interpret
from nncc.ir.types import TensorType, i8, u8
from nncc.ops.reference import evaluate

Arrays = Mapping[str, np.ndarray]
Ranges = Mapping[str, tuple[float, float]]

BATCH = 32  # samples that run at once, where the model's batch size is symbolic
BINS = 4096  # of the histograms for percentiles
SYNTHETIC_SAMPLES = 8
SYNTHETIC_SIZE = 8  # what a named size that is not the batch is taken to be


class SyntheticCalibrationWarning(UserWarning):
    """A model was quantized without data: its accuracy is not assured."""


def batches(module: Module, calib: Arrays | None) -> list[Arrays]:
    """The samples in batches that the graph takes.

    Without data they are random, with a warning. Raises PassError if the data do not fit the
    inputs.
    """
    if calib is None:
        warnings.warn(
            "quantize has no calibration data and uses random inputs: accuracy is not assured",
            SyntheticCalibrationWarning,
            stacklevel=2,
        )
        return [synthetic(module, SYNTHETIC_SAMPLES)]
    inputs = module.graph.inputs
    for name in calib:
        if name not in inputs:
            raise PassError(f"calibration data for '{name}', which is no input",
                            help=nearest(name, inputs, "inputs"))  # fmt: skip
    counts = set()
    for name in inputs:
        if name not in calib:
            raise PassError(f"the calibration data lack input '{name}'")
        _check_samples(name, calib[name], module.graph.types[name])
        counts.add(len(calib[name]))
    if len(counts) > 1:
        raise PassError(f"inputs have different numbers of calibration samples: {sorted(counts)}")
    return list(_split(module, calib, counts.pop() if counts else 0))


def _check_samples(name: str, data: np.ndarray, type: TensorType) -> None:
    rest = zip(data.shape[1:], type.shape[1:], strict=False)
    fits = data.ndim == type.rank and all(
        not isinstance(wanted, int) or given == wanted for given, wanted in rest
    )
    if data.ndim == 0 or not fits:
        raise PassError(
            f"calibration data for '{name}' have shape {list(data.shape)}, the input is {type}",
            help="axis 0 counts samples, the others are as in the model",
        )
    if data.dtype != type.dtype.numpy:
        raise PassError(
            f"calibration data for '{name}' are {data.dtype}, the input is {type}",
            help="give the data as the model gets them, for example scaled to 0..1",
        )


def _split(module: Module, calib: Arrays, samples: int) -> Iterator[Arrays]:
    """Batches of the model's fixed size (samples that do not fill one are left out), or of
    BATCH samples and a rest."""
    extents = {module.graph.types[name].shape[0] for name in module.graph.inputs}
    fixed = {e for e in extents if isinstance(e, int)}
    if len(fixed) > 1:
        raise PassError("the inputs have different fixed batch sizes; samples cannot be told")
    batch = fixed.pop() if fixed else None
    step = BATCH if batch is None else batch
    samples -= 0 if batch is None else samples % batch
    if not samples:
        raise PassError(f"the calibration data are less than one batch of {batch or 1}")
    for start in range(0, samples, step):
        yield {name: data[start : start + step] for name, data in calib.items()}


def synthetic(module: Module, samples: int) -> Arrays:
    """Standard normal floats and random bytes, `samples` of them where the batch is symbolic.

    Other integers and bools are zero, which is valid where they index.
    """
    rng = np.random.default_rng(0)
    made: dict[str, np.ndarray] = {}
    for name in module.graph.inputs:
        type = module.graph.types[name]
        sizes = {v for s in type.shape for v in variables(s)}
        batch = type.shape[0] if type.rank else None
        batch_name = str(batch) if isinstance(batch, Index) else ""
        known = {s: samples if s == batch_name else SYNTHETIC_SIZE for s in sizes}
        shape = tuple(evaluate_size(s, known) for s in type.shape)
        if type.dtype.is_float:
            made[name] = rng.standard_normal(shape).astype(type.dtype.numpy)
        elif type.dtype in (i8, u8):
            lo, hi = type.dtype.limits
            made[name] = rng.integers(lo, hi, shape, type.dtype.numpy, endpoint=True)
        else:
            made[name] = np.zeros(shape, type.dtype.numpy)
    return made


def run_graph(module: Module, inputs: Arrays) -> dict[str, np.ndarray]:
    """Every value of the main graph by name, inputs included."""
    with np.errstate(all="ignore"):
        run = interpret(module, inputs, evaluate, keep=True)
    return {**inputs, **run.values}


def ranges(
    module: Module,
    data: list[Arrays],
    calibrator: Literal["minmax", "percentile"],
    percentile: float,
) -> tuple[dict[str, tuple[float, float]], list[dict[str, np.ndarray]]]:
    """The range of every float value, and the graph's outputs for each batch.

    Raises PassError with the value's name if one is NaN or infinite.
    """
    found: dict[str, tuple[float, float]] = {}
    outputs: list[dict[str, np.ndarray]] = []
    for batch in data:
        values = run_graph(module, batch)
        for name, value in values.items():
            if value.dtype.kind != "f" or not value.size:
                continue
            lo, hi = float(value.min()), float(value.max())
            if not np.isfinite([lo, hi]).all():
                raise PassError(f"value '{name}' becomes NaN or infinite on the calibration data")
            old = found.get(name, (lo, hi))
            found[name] = min(lo, old[0]), max(hi, old[1])
        outputs.append({o: values[o] for o in module.graph.outputs if o in values})
    if calibrator == "percentile":
        found = _percentiles(module, data, found, percentile)
    return found, outputs


def _percentiles(
    module: Module, data: list[Arrays], extremes: Ranges, percentile: float
) -> dict[str, tuple[float, float]]:
    """Narrower ranges that hold `percentile` percent of the values, by histograms."""
    counts: dict[str, np.ndarray] = {}
    for batch in data:
        for name, value in run_graph(module, batch).items():
            if name in extremes:
                # in f64, since there may be not BINS numbers of f32 between the extremes
                histogram, _ = np.histogram(value.astype(np.float64), BINS, extremes[name])
                counts[name] = counts.get(name, 0) + histogram
    tail = (100 - percentile) / 200
    narrowed = {}
    for name, histogram in counts.items():
        lo, hi = extremes[name]
        share = np.cumsum(histogram) / histogram.sum()
        first = int(np.searchsorted(share, tail, side="right"))
        last = int(np.searchsorted(share, 1 - tail, side="left"))
        step = (hi - lo) / BINS
        narrowed[name] = lo + first * step, min(hi, lo + (last + 1) * step)
    return narrowed
