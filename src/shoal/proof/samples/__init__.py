"""Small models made by code, the same on every machine: for tests, benchmarks and a first `shoal prove`.

Files: onnx_models (Gemm, MLP, LeNet as ONNX bytes), glyphs (pictures of digits, drawn and distorted), lenet.npz.
"""
