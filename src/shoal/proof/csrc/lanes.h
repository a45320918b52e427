// FV_LANES base or extension elements at a time: eight with AVX-512, elsewhere one. Canonical in and out.
//
// Rule that stays true in this file: lanes never meet except in fv_transpose, xv_zip and xv_total, so in which order
// xv_load puts elements into lanes is nobody's business as long as xv_store undoes it.
#pragma once
#include "field.h"

#if defined(__AVX512F__) && defined(__AVX512DQ__)
#include <immintrin.h>
#define FV_LANES 8
typedef __m512i fv;

INLINE fv fv_load(const fe *p) { return _mm512_loadu_si512(p); }
INLINE void fv_store(fe *p, fv v) { _mm512_storeu_si512(p, v); }
INLINE fv fv_set1(fe x) { return _mm512_set1_epi64((long long)x); }
INLINE fv fv_add(fv a, fv b) {
  fv t = _mm512_sub_epi64(fv_set1(FIELD_P), b), r = _mm512_sub_epi64(a, t);
  return _mm512_mask_add_epi64(r, _mm512_cmplt_epu64_mask(a, t), r, fv_set1(FIELD_P));
}
INLINE fv fv_sub(fv a, fv b) {
  fv r = _mm512_sub_epi64(a, b);
  return _mm512_mask_add_epi64(r, _mm512_cmplt_epu64_mask(a, b), r, fv_set1(FIELD_P));
}
INLINE fv fv_reduce(fv lo, fv hi) {  // as fe_reduce
  fv eps = fv_set1(FIELD_EPS), p = fv_set1(FIELD_P), h1 = _mm512_srli_epi64(hi, 32);
  fv t = _mm512_sub_epi64(lo, h1);
  t = _mm512_mask_sub_epi64(t, _mm512_cmplt_epu64_mask(lo, h1), t, eps);
  fv m = _mm512_mul_epu32(hi, eps), r = _mm512_add_epi64(t, m);
  r = _mm512_mask_add_epi64(r, _mm512_cmplt_epu64_mask(r, m), r, eps);
  return _mm512_min_epu64(r, _mm512_sub_epi64(r, p));  // below p the difference wraps and is the greater
}
INLINE fv fv_mul(fv a, fv b) {  // four products of 32 x 32 bits
  fv eps = fv_set1(FIELD_EPS), a1 = _mm512_srli_epi64(a, 32), b1 = _mm512_srli_epi64(b, 32);
  fv ll = _mm512_mul_epu32(a, b), lh = _mm512_mul_epu32(a, b1), hl = _mm512_mul_epu32(a1, b);
  fv mid = _mm512_add_epi64(lh, _mm512_srli_epi64(ll, 32));
  fv mid2 = _mm512_add_epi64(hl, _mm512_and_si512(mid, eps));
  fv hi = _mm512_add_epi64(_mm512_mul_epu32(a1, b1), _mm512_srli_epi64(mid, 32));
  hi = _mm512_add_epi64(hi, _mm512_srli_epi64(mid2, 32));
  fv lo = _mm512_mask_blend_epi32(0xAAAA, ll, _mm512_slli_epi64(mid2, 32));
  return fv_reduce(lo, hi);
}
INLINE fv fv_mul7(fv a) {  // 8 a - a = lo + 2^64 hi, hi below 7
  fv a8 = _mm512_slli_epi64(a, 3), hi = _mm512_srli_epi64(a, 61), lo = _mm512_sub_epi64(a8, a);
  hi = _mm512_mask_sub_epi64(hi, _mm512_cmplt_epu64_mask(a8, a), hi, fv_set1(1));
  fv m = _mm512_sub_epi64(_mm512_slli_epi64(hi, 32), hi), r = _mm512_add_epi64(lo, m);
  r = _mm512_mask_add_epi64(r, _mm512_cmplt_epu64_mask(r, m), r, fv_set1(FIELD_EPS));
  return _mm512_min_epu64(r, _mm512_sub_epi64(r, fv_set1(FIELD_P)));
}
INLINE void fv_transpose(fv v[8]) {
  fv a[8], b[8];
  for (int i = 0; i < 8; i += 2) {
    a[i] = _mm512_unpacklo_epi64(v[i], v[i + 1]);
    a[i + 1] = _mm512_unpackhi_epi64(v[i], v[i + 1]);
  }
  for (int i = 0; i < 2; i++) {
    b[i] = _mm512_shuffle_i64x2(a[i], a[i + 2], 0x88);
    b[i + 2] = _mm512_shuffle_i64x2(a[i], a[i + 2], 0xdd);
    b[i + 4] = _mm512_shuffle_i64x2(a[i + 4], a[i + 6], 0x88);
    b[i + 6] = _mm512_shuffle_i64x2(a[i + 4], a[i + 6], 0xdd);
  }
  for (int i = 0; i < 4; i++) {
    v[i] = _mm512_shuffle_i64x2(b[i], b[i + 4], 0x88);
    v[i + 4] = _mm512_shuffle_i64x2(b[i], b[i + 4], 0xdd);
  }
}
typedef struct { fv a, b; } xv;  // lane i holds element i / 2 + 4 (i % 2)
INLINE xv xv_load(const fx *p) {
  fv low = fv_load(&p[0].a), high = fv_load(&p[4].a);
  return (xv){_mm512_unpacklo_epi64(low, high), _mm512_unpackhi_epi64(low, high)};
}
INLINE void xv_store(fx *p, xv v) {
  fv_store(&p[0].a, _mm512_unpacklo_epi64(v.a, v.b));
  fv_store(&p[4].a, _mm512_unpackhi_epi64(v.a, v.b));
}
INLINE fv xv_load_base(const fe *p) {  // base elements in the lanes of an xv
  return _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7), fv_load(p));
}
INLINE void xv_zip(fx *p, xv even, xv odd) {  // p[2 i] = even i, p[2 i + 1] = odd i
  const fv first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11), second = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
  fv e = _mm512_unpacklo_epi64(even.a, even.b), o = _mm512_unpacklo_epi64(odd.a, odd.b);
  fv_store(&p[0].a, _mm512_permutex2var_epi64(e, first, o));
  fv_store(&p[4].a, _mm512_permutex2var_epi64(e, second, o));
  e = _mm512_unpackhi_epi64(even.a, even.b), o = _mm512_unpackhi_epi64(odd.a, odd.b);
  fv_store(&p[8].a, _mm512_permutex2var_epi64(e, first, o));
  fv_store(&p[12].a, _mm512_permutex2var_epi64(e, second, o));
}
#else
#define FV_LANES 1
typedef fe fv;
INLINE fv fv_load(const fe *p) { return *p; }
INLINE void fv_store(fe *p, fv v) { *p = v; }
INLINE fv fv_set1(fe x) { return x; }
INLINE fv fv_add(fv a, fv b) { return fe_add(a, b); }
INLINE fv fv_sub(fv a, fv b) { return fe_sub(a, b); }
INLINE fv fv_mul(fv a, fv b) { return fe_mul(a, b); }
INLINE fv fv_mul7(fv a) { return fe_mul(a, FIELD_W); }

typedef struct { fv a, b; } xv;
INLINE xv xv_load(const fx *p) { return (xv){p->a, p->b}; }
INLINE void xv_store(fx *p, xv v) { *p = (fx){v.a, v.b}; }
INLINE fv xv_load_base(const fe *p) { return *p; }
INLINE void xv_zip(fx *p, xv even, xv odd) { xv_store(p, even), xv_store(p + 1, odd); }
#endif

INLINE xv xv_set1(fx x) { return (xv){fv_set1(x.a), fv_set1(x.b)}; }
INLINE xv xv_zero(void) { return xv_set1((fx){0, 0}); }
INLINE xv xv_add(xv u, xv v) { return (xv){fv_add(u.a, v.a), fv_add(u.b, v.b)}; }
INLINE xv xv_sub(xv u, xv v) { return (xv){fv_sub(u.a, v.a), fv_sub(u.b, v.b)}; }
INLINE xv xv_scale(xv u, fv s) { return (xv){fv_mul(u.a, s), fv_mul(u.b, s)}; }
INLINE xv xv_add_base(xv u, fv s) { return (xv){fv_add(u.a, s), u.b}; }
INLINE xv xv_mul(xv u, xv v) {  // three products: (a + b)(c + d) - a c - b d = a d + b c
  fv aa = fv_mul(u.a, v.a), bb = fv_mul(u.b, v.b), all = fv_mul(fv_add(u.a, u.b), fv_add(v.a, v.b));
  return (xv){fv_add(aa, fv_mul7(bb)), fv_sub(fv_sub(all, aa), bb)};
}
INLINE fx xv_total(xv v) {  // the sum of the lanes
  fx parts[FV_LANES], sum = {0, 0};
  xv_store(parts, v);
  for (int i = 0; i < FV_LANES; i++) sum = fx_add(sum, parts[i]);
  return sum;
}
