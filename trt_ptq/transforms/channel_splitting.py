"""Split outlier channels: a tensor gets K equal copies of x / K instead of a channel x that would set its range.

The layers that write the tensor compute the copies, since columns of their weights are copied too; the layers that read
it have the weights of the channel once for each copy, so the sum is as before. Nothing is added at run time but the
channels.

Source: Zhao et al., "Improving Neural Network Quantization without Retraining using Outlier Channel Splitting", ICML
2019. There each channel is split into two, and more are split until a fraction is added; here as often as the largest
channels need.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from trt_ptq.onnx_io.graph_editor import GraphEditor
from trt_ptq.onnx_io.lazy_tensor import lazy_map
from trt_ptq.transforms.channel_sources import ChannelConstant, linear_constants
from trt_ptq.transforms.scaling import divide
from trt_ptq.transforms.smoothquant import Pair

# Functions of each element on its own: equal channels stay equal.
_UNARY = {
    *("Abs", "Clip", "Elu", "Erf", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu"),
    *("Mish", "Neg", "Relu", "Sigmoid", "Softplus", "Swish", "Tanh"),
}
_BINARY = {"Add", "Div", "Mul", "Pow", "Sub"}

Ints = npt.NDArray[np.intp]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ChannelOrigin:
    """What the channels of a tensor are computed by.

    Attributes:
        constants: all constants with one entry or column for each channel.
        tensors: the tensors from the layers that write them on, with the tensor itself.
    """

    constants: tuple[ChannelConstant, ...]
    tensors: tuple[ir.Value, ...]


@dataclass(frozen=True)
class Copies:
    """How often each channel is there after the split.

    Attributes:
        counts: [channels], 1 or more.
    """

    counts: Ints

    @property
    def channels(self) -> Ints:
        """[widened channels]: the channel of which each one is a copy; the first ones keep their places."""
        all_channels = np.arange(len(self.counts))
        return np.concatenate([all_channels, np.repeat(all_channels, self.counts - 1)])

    @property
    def divisors(self) -> Floats:
        """[widened channels]: K of each."""
        return self.counts[self.channels].astype(np.float32)

    def parts(self, values: Floats) -> Floats:
        """What each channel has of `values` [..., channels] after the split."""
        divided: Floats = values[..., self.channels] / self.divisors
        return divided


def smallest_range(amax: Floats, num_added: int) -> Copies:
    """The copies that `num_added` further channels are best used for: the largest magnitude is as small as can be.

    Args:
        amax: the largest magnitude of each channel.
        num_added: how many channels are added.
    """
    counts = np.ones(len(amax), np.intp)
    largest = [(-float(value), channel) for channel, value in enumerate(amax)]
    heapq.heapify(largest)
    for _ in range(num_added):
        channel = largest[0][1]
        counts[channel] += 1
        heapq.heapreplace(largest, (-float(amax[channel]) / counts[channel], channel))
    return Copies(counts)


def channel_origin(pair: Pair) -> ChannelOrigin | None:
    """The layers that write the tensor of `pair`; None if its channels cannot be copied there.

    Between them and the tensor may be functions of single elements, of products and of sums, as in a gated MLP.
    """
    readers = {linear.node for linear in pair.linears}
    is_read_elsewhere = any(use.node not in readers or use.idx != 0 for use in pair.tensor.uses())
    if not pair.sources or is_read_elsewhere or any(linear.tied for linear in pair.linears):
        return None
    tensors, by_element, constants = [pair.tensor], set[ir.Node](), list[ChannelConstant]()
    for tensor in tensors:  # grows
        node = tensor.producer()
        if node is None or node.domain != "" or (tensor is not pair.tensor and tensor.is_graph_output()):
            return None
        if node.op_type in _UNARY | _BINARY:
            by_element.add(node)
            data = node.inputs[:1] if node.op_type in _UNARY else node.inputs
            for index, value in enumerate(data):
                if value is None:
                    return None
                if not value.is_initializer():
                    tensors += [value] if value not in tensors else []
                elif not _is_one_number(value):
                    constants.append(ChannelConstant(node, index, -1))
        elif found := linear_constants(node):
            constants += found
        else:
            return None
    if any(constant.channels != pair.channels for constant in constants):
        return None
    inside = tensors[1:]
    if any(use.node not in by_element for value in inside for use in value.uses()):
        return None
    return ChannelOrigin(tuple(constants), tuple(tensors))


def split_channels(graph: ir.Graph, pair: Pair, origin: ChannelOrigin, copies: Copies) -> None:
    """Split the channels of the tensor of `pair`, in place; weights are computed when the model is written."""
    editor = GraphEditor(graph)
    for constant in origin.constants:
        value = constant.node.inputs[constant.index]
        assert value is not None
        if len(value.uses()) > 1 or value.is_graph_output():
            assert value.const_value is not None
            copy = editor.constant(f"{value.name}.split", ir.tensor(value.const_value.numpy()))
            constant.node.replace_input_with(constant.index, copy)
            value = copy
        _copy(value, copies, constant.axis)
    for weight, axis in {linear.weight: linear.axis for linear in pair.linears}.items():
        _copy(weight, copies, axis)
    for linear in pair.linears:
        view = linear.node.inputs[1]
        assert view is not None
        if view is not linear.weight and linear.weight.shape is not None:  # it is read through a Transpose
            view.shape = ir.Shape(linear.weight.shape[::-1])
    for source in pair.sources:
        divide(editor, source.node, source.index, copies.divisors, source.axis)
    for tensor in origin.tensors:
        if tensor.shape is not None:
            tensor.shape = ir.Shape([*tensor.shape[:-1], len(copies.channels)])


def _copy(value: ir.Value, copies: Copies, axis: int) -> None:
    tensor = value.const_value
    assert tensor is not None
    shape = [int(size) for size in tensor.shape.numpy()]
    shape[axis] = len(copies.channels)
    take = partial(np.take, indices=copies.channels, axis=axis)
    value.const_value = lazy_map(tensor, take, ir.DataType.FLOAT, str(tensor.name), shape)
    value.shape = ir.Shape(shape)


def _is_one_number(value: ir.Value) -> bool:
    return value.const_value is not None and value.const_value.size == 1
