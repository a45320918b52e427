"""ONNX models as integer graphs: read, calibrated on inputs, rounded to powers of two, compared with the float model.

What it does: parses with the package `onnx` (extra "prove", needed here only, never to verify), refuses by name and
place what it cannot say exactly, chooses a power of two for every tensor from what the float model computes on given or
random inputs, and reports error and accuracy. What it does not: training, other formats, varying shapes (a batch is 1).

Files in reading order: model (the ONNX graph as data), precision (int8, wide), calibrate (ranges on samples), values
(tensors on their way: wide sums, curves), quantiser (the state of an import), linear, shapes, pooling, curves, norms
(the operators), patterns (several nodes that are one), importer (`import_model`), report.

What this does not protect against: inputs unlike the samples. A value beyond its calibrated range (with headroom) is
refused when the graph runs, never clipped in silence.
"""
