// Goldilocks, p = 2^64 - 2^32 + 1, and its quadratic extension F = GF(p)[x] / (x^2 - 7).
//
// Rules that stay true in this file:
// - every value that goes in or comes out is canonical: below p;
// - no operation can wrap unseen: each line says why.
//
// Loops over arrays are written with lanes.h, which is three times as fast where there is AVX-512.
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define FIELD_P 0xFFFFFFFF00000001ull
#define FIELD_EPS 0xFFFFFFFFull  // 2^64 mod p
#define FIELD_W 7                // not a square modulo p

typedef uint64_t fe;
typedef struct { fe a, b; } fx;  // a + b x; in memory as numpy's (..., 2) uint64
typedef unsigned __int128 u128;

INLINE fe fe_add(fe a, fe b) {  // a + b - p, and p again if that is negative: nothing reaches 2^64
  fe t = FIELD_P - b;
  return a - t + (a < t ? FIELD_P : 0);
}
INLINE fe fe_sub(fe a, fe b) { return a - b + (a < b ? FIELD_P : 0); }
INLINE fe fe_neg(fe a) { return a ? FIELD_P - a : 0; }

// 2^64 = 2^32 - 1 and 2^96 = -1 modulo p: lo + 2^64 h0 + 2^96 h1 = lo - h1 + h0 (2^32 - 1).
INLINE fe fe_reduce(u128 x) {
  uint64_t lo = (uint64_t)x, hi = (uint64_t)(x >> 64), h1 = hi >> 32, h0 = hi & FIELD_EPS;
  uint64_t t = lo - h1;
  t -= lo < h1 ? FIELD_EPS : 0;  // then t >= 2^64 - 2^32 before: no second borrow
  uint64_t m = (h0 << 32) - h0, r = t + m, less;
  r += r < m ? FIELD_EPS : 0;  // m <= 2^64 - 2^33 + 1, so r < 2^64 - 2^33 + 1 before: no second carry
  return __builtin_add_overflow(r, FIELD_EPS, &less) ? less : r;  // it overflows from p on, and is r - p then
}
INLINE fe fe_mul(fe a, fe b) { return fe_reduce((u128)a * b); }
INLINE fe fe_from_int(int64_t v) {  // p > 2^63, so one addition is enough
  return v < 0 ? (fe)v + FIELD_P : (fe)v;
}

INLINE fx fx_add(fx u, fx v) { return (fx){fe_add(u.a, v.a), fe_add(u.b, v.b)}; }
INLINE fx fx_sub(fx u, fx v) { return (fx){fe_sub(u.a, v.a), fe_sub(u.b, v.b)}; }
INLINE fx fx_neg(fx u) { return (fx){fe_neg(u.a), fe_neg(u.b)}; }
INLINE fx fx_scale(fx u, fe s) { return (fx){fe_mul(u.a, s), fe_mul(u.b, s)}; }
INLINE fx fx_add_base(fx u, fe s) { return (fx){fe_add(u.a, s), u.b}; }
INLINE fx fx_mul(fx u, fx v) {
  fe bb = fe_mul(u.b, v.b);
  fe a = fe_reduce((u128)u.a * v.a + (u128)bb * FIELD_W);  // < (p - 1)^2 + 7 p < 2^128
  u128 ba = (u128)u.b * v.a, b = (u128)u.a * v.b + ba;
  return (fx){a, fe_sub(fe_reduce(b), b < ba ? 1ull << 32 : 0)};  // a carry is 2^128 = -2^32 modulo p
}

// A sum of up to 2^32 products of canonical values, reduced once: lo + 2^128 carries.
typedef struct { u128 lo; uint64_t carries; } fe_sum;
INLINE void sum_product(fe_sum *s, fe a, fe b) {
  u128 t = (u128)a * b;
  s->lo += t;
  s->carries += s->lo < t;
}
INLINE fe sum_value(const fe_sum *s) {  // 2^128 = -2^32 modulo p
  return fe_sub(fe_reduce(s->lo), fe_reduce((u128)s->carries << 32));
}
