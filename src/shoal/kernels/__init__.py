"""Fast arithmetic with a slow twin: block-quantised weights, matrix products, paged attention.

What it does: turns the bytes of quantised weights into numbers and multiplies with them, in C where a compiler was
found and in numpy or torch where it was not; both agree. What it does not: know what a network, a file or a request is.

Files: quant (storage types, dequantise and quantise in numpy: the slow twin of the C kernels).
"""
