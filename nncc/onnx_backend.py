"""nncc as a backend of the onnx package (`onnx.backend.base`), for its conformance suite.

    import nncc.onnx_backend as backend
    rep = backend.prepare(model)                    # an onnx.ModelProto
    outputs = rep.run([x])                          # arrays in the order of the graph's outputs

Devices are targets in capitals: `prepare(model, "TPU")`. A model with inputs whose extents have
neither value nor name is compiled for the shapes that it is called with, once for each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx.backend.base import Backend, BackendRep, namedtupledict

from nncc.diagnostics import NnccError
from nncc.driver import compile as compile_model
from nncc.machines import list_machines
from nncc.machines.machine import HOST
from nncc.runtime.executable import Executable


@dataclass
class Representation(BackendRep):
    """A model that can be run.

    Args:
        model: what was prepared.
        executable: compiled for any sizes; None if it must know the shapes of its inputs.
        target: what it is compiled for.
    """

    model: onnx.ModelProto
    executable: Executable | None
    target: str = HOST
    _by_shape: dict[tuple[tuple[int, ...], ...], Executable] = field(default_factory=dict)

    def run(self, inputs: Any, **kwargs: Any) -> tuple[np.ndarray, ...]:
        """The outputs, as a named tuple in the order of the graph.

        Args:
            inputs: arrays in the order of the graph's inputs without initializers, or by name,
                or the only array itself.
        """
        arrays = self._named(inputs)
        executable = self.executable or self._specialized(arrays)
        executable.reset()
        found = executable.run(arrays)
        names = [o.name for o in self.model.graph.output]
        outputs: tuple[np.ndarray, ...] = namedtupledict("Outputs", names)(
            *(found[n] for n in names)
        )
        return outputs

    def _named(self, inputs: Any) -> dict[str, np.ndarray]:
        names = input_names(self.model)
        if isinstance(inputs, Mapping):
            return {n: np.asarray(x) for n, x in inputs.items()}
        if isinstance(inputs, np.ndarray):
            inputs = [inputs]
        if not isinstance(inputs, Sequence) or len(inputs) > len(names):
            raise NnccError(f"the model takes {len(names)} inputs: {', '.join(names)}")
        return {n: np.asarray(x) for n, x in zip(names, inputs, strict=False)}

    def _specialized(self, arrays: Mapping[str, np.ndarray]) -> Executable:
        key = tuple(x.shape for x in arrays.values())
        if key not in self._by_shape:
            self._by_shape[key] = compile_model(with_shapes(self.model, arrays), self.target)
        return self._by_shape[key]


def target_of(device: str) -> str:
    """The target of a device as the onnx package writes them: `CPU`, `CPU:0`, `TPU`, …"""
    return device.partition(":")[0].lower()


def input_names(model: onnx.ModelProto) -> list[str]:
    """The inputs that have no initializer."""
    initialized = {t.name for t in model.graph.initializer}
    return [i.name for i in model.graph.input if i.name not in initialized]


def with_shapes(model: onnx.ModelProto, arrays: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """The model with the shapes of these arrays as those of its inputs."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for value in fixed.graph.input:
        if value.name in arrays:
            shape = value.type.tensor_type.shape
            del shape.dim[:]
            for extent in arrays[value.name].shape:
                shape.dim.add().dim_value = extent
    for output in fixed.graph.output:
        output.type.tensor_type.ClearField("shape")
    return fixed


class NnccBackend(Backend):
    """The class form that `onnx.backend.test.BackendTest` wants."""

    @classmethod
    def is_compatible(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> bool:
        """Whether nncc can compile the model."""
        try:
            cls.prepare(model, device)
        except (NnccError, onnx.checker.ValidationError):
            return False
        return True

    @classmethod
    def prepare(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> Representation:
        """Compiles a model. Raises NnccError if that cannot be done, and
        `onnx.checker.ValidationError` if it is no right model."""
        if not cls.supports_device(device):
            known = ", ".join(name.upper() for name in list_machines())
            raise NnccError(f"there is no device '{device}'", help=f"devices: {known}")
        onnx.checker.check_model(model)
        target = target_of(device)
        if _has_open_inputs(model):
            return Representation(model, None, target)
        return Representation(model, compile_model(model, target), target)

    @classmethod
    def run_model(
        cls, model: onnx.ModelProto, inputs: Any, device: str = "CPU", **kwargs: Any
    ) -> tuple[np.ndarray, ...]:
        """Compiles and runs a model once."""
        return cls.prepare(model, device).run(inputs)

    @classmethod
    def run_node(
        cls,
        node: onnx.NodeProto,
        inputs: Any,
        device: str = "CPU",
        outputs_info: Sequence[tuple[Any, tuple[int, ...]]] | None = None,
        **kwargs: Any,
    ) -> tuple[np.ndarray, ...]:
        """Compiles and runs one node on arrays in the order of its inputs."""
        arrays = [np.asarray(x) for x in inputs]
        names = [i for i in node.input if i]
        values = [
            onnx.helper.make_tensor_value_info(
                n, onnx.helper.np_dtype_to_tensor_dtype(x.dtype), x.shape
            )
            for n, x in zip(names, arrays, strict=True)
        ]
        outputs = [onnx.helper.make_empty_tensor_value_info(o) for o in node.output if o]
        graph = onnx.helper.make_graph([node], "node", values, outputs)
        opset = onnx.helper.make_opsetid(
            "", kwargs.get("opset_version", onnx.defs.onnx_opset_version())
        )
        model = onnx.helper.make_model(graph, opset_imports=[opset])
        return Representation(model, compile_model(model, target_of(device))).run(arrays)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        return target_of(device) in list_machines()


def _has_open_inputs(model: onnx.ModelProto) -> bool:
    """Whether an input's extent has neither a value nor a name."""
    names = set(input_names(model))
    return any(
        not d.HasField("dim_value") and not d.dim_param
        for value in model.graph.input
        if value.name in names
        for d in value.type.tensor_type.shape.dim
    )


is_compatible = NnccBackend.is_compatible
prepare = NnccBackend.prepare
run_model = NnccBackend.run_model
run_node = NnccBackend.run_node
supports_device = NnccBackend.supports_device

__all__ = [
    "NnccBackend",
    "Representation",
    "is_compatible",
    "prepare",
    "run_model",
    "run_node",
    "supports_device",
]
