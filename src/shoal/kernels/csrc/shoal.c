// Shoal's kernels: one translation unit with a plain C ABI, built by kernels/build.py in a few seconds.
#define _GNU_SOURCE
#include "simd.h"
#include "pool.c"
#include "weights.c"
#include "gemm.c"
#include "kv_cache.c"
#include "attention.c"
#include "approx.c"
#include "program.c"
#include "suffix_tree.c"
