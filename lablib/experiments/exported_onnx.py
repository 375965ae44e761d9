"""Exported networks as ONNX: the graph, built node by node, and reading the numbers back."""

from typing import Any

import numpy as np

from lablib.experiments.exported_numbers import Numbers, by_group, by_place

OPSET, IR_VERSION = 17, 8  # of 2022: read by every runtime of today
PAIRWISE = 4  # up to this group size a sort is made of minima and maxima, above it is TopK


def onnx_model(name: str, numbers: Numbers) -> Any:
    """Return the ``onnx.ModelProto``: input "x" (rows, I) float32, output "y" (rows, O) float32."""
    import onnx

    model = _model(name, numbers)
    onnx.checker.check_model(model, full_check=True)
    return model


def read_onnx(content: bytes) -> Numbers:
    """Return the numbers of a serialised :func:`onnx_model`.

    Raises:
        ValueError: if the model, graph and versions, is not exactly what these numbers are exported as.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load_from_string(content)
    except DecodeError as error:
        raise ValueError(f"it is no ONNX file ({error}); export it again") from None
    numbers, again = None, None
    try:
        said = {entry.key: entry.value for entry in model.metadata_props}
        arrays = {  # not by onnx, which would open other files that the entries name
            entry.name: np.frombuffer(entry.raw_data, "<f4").reshape(entry.dims).copy()
            for entry in model.graph.initializer
            if entry.data_type == onnx.TensorProto.FLOAT
        }
        depth = sum(key.startswith("weight_") for key in arrays)
        numbers = by_group(
            Numbers(
                weights=[np.ascontiguousarray(arrays[f"weight_{k}"].T) for k in range(depth)],
                biases=[arrays[f"bias_{k}"] for k in range(depth)],
                sizes=[int(size) for size in said["group_sizes"].split(",") if size],
                added=np.ascontiguousarray(arrays["added"].T) if "added" in arrays else None,
                head=said["head"] or None,
                mean=arrays.get("mean"),
                factor=arrays.get("factor"),
            )
        )
        again = _model(model.graph.name, numbers).SerializeToString(deterministic=True)
    except (KeyError, IndexError, ValueError, TypeError):
        pass  # then nothing is the same
    if again != model.SerializeToString(deterministic=True):
        raise ValueError("its graph is not what is exported for its numbers; export it again")
    return numbers


def _model(name: str, numbers: Numbers) -> Any:
    from onnx import helper

    opset = helper.make_opsetid("", OPSET)
    model = helper.make_model(
        _graph(name, numbers), producer_name="lablib", opset_imports=[opset], ir_version=IR_VERSION
    )
    helper.set_model_props(
        model, {"group_sizes": ",".join(map(str, numbers.sizes)), "head": numbers.head or ""}
    )
    return model


def _graph(name: str, numbers: Numbers) -> Any:
    from onnx import TensorProto, helper, numpy_helper

    weights, biases = by_place(numbers)
    nodes: list[Any] = []
    arrays: dict[str, np.ndarray] = {}

    def node(kind: str, inputs: list[str], outputs: list[str], **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, outputs, **attributes))
        return outputs[0]

    start = "x"
    if numbers.factor is not None:
        arrays |= {"mean": numbers.mean, "factor": numbers.factor}
        start = node("Mul", [node("Sub", ["x", "mean"], ["centred"]), "factor"], ["z"])
    value = start
    for k, (weight, bias) in enumerate(zip(weights, biases)):
        arrays |= {f"weight_{k}": np.ascontiguousarray(weight.T), f"bias_{k}": bias}
        value = node("Gemm", [value, f"weight_{k}", f"bias_{k}"], [f"linear_{k}"])
        size = numbers.sizes[k] if k < len(numbers.sizes) else 1
        if 1 < size <= PAIRWISE:
            places = [f"place_{k}_{i}" for i in range(size)]
            node("Split", [value], places, axis=1)
            value = node("Concat", _sorted(node, places), [f"sorted_{k}"], axis=1)
        elif size > PAIRWISE:
            arrays |= {f"groups_{k}": np.array([0, size, len(bias) // size]), f"size_{k}": np.array([size])}
            arrays |= {f"units_{k}": np.array([0, len(bias)])}
            node("Reshape", [value, f"groups_{k}"], [f"grouped_{k}"])
            node("TopK", [f"grouped_{k}", f"size_{k}"], [f"ascending_{k}", f"order_{k}"], axis=1, largest=0)
            value = node("Reshape", [f"ascending_{k}", f"units_{k}"], [f"sorted_{k}"])
    if numbers.added is not None:
        arrays["added"] = np.ascontiguousarray(numbers.added.T)
        value = node("Gemm", [start, "added", value], ["sum"])
    head = {None: "Identity", "sigmoid": "Sigmoid", "softplus": "Softplus"}[numbers.head]
    node(head, [value], ["y"])
    ends = [
        helper.make_tensor_value_info(end, TensorProto.FLOAT, ["rows", width])
        for end, width in (("x", numbers.inputs), ("y", numbers.outputs))
    ]
    stored = [numpy_helper.from_array(values, key) for key, values in arrays.items()]
    return helper.make_graph(nodes, name, ends[:1], ends[1:], stored)


def _sorted(node: Any, places: list[str]) -> list[str]:
    """Compare and exchange neighbours, whole vectors at a time; returns the names in ascending order."""
    places = [*places]
    for last in range(len(places) - 1, 0, -1):
        for k in range(last):
            pair = places[k], places[k + 1]
            places[k] = node("Min", [*pair], [f"{pair[0]}_min{last}"])
            places[k + 1] = node("Max", [*pair], [f"{pair[1]}_max{last}"])
    return places
