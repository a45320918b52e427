"""Fast arithmetic with a slow twin: quantised weights, matrix products, paged attention, whole networks in one call.

What it does: turns the bytes of quantised weights into numbers and multiplies with them, in C where a compiler was
found and in numpy or torch where it was not; both agree. What it does not: know what a network, a file or a request is.

Files: csrc (the C library: simd, pool, weights, gemm, attention, approx, program), build (compiles it for this CPU into
a cache), native (ctypes: structures, packing, threads), program (a network recorded as operations, lowered to records),
executor (runs records over buffers, a paged cache and adapters), approximation (steps that compute less than the whole
network, or report what it looked at), suffix_tree (for drafts), quant (storage types, dequantise and quantise in numpy:
the slow twin of the packed weights), reference (attention in plain numpy: the slow twin of the paged one).

What this does not protect against: weights or batches made by an adversary. Shapes and block numbers are checked where
files and requests are read (models, engine); the C code trusts them.
"""
