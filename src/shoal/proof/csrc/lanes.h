// Eight base elements at a time: AVX-512 where there is one, else a loop the compiler unrolls. Canonical in and out.
#pragma once
#include "field.h"

#define FV_LANES 8

#if defined(__AVX512F__) && defined(__AVX512DQ__)
#include <immintrin.h>
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
#else
typedef struct { fe lane[FV_LANES]; } fv;

#define FV_EACH(expression) fv r; for (int i = 0; i < FV_LANES; i++) r.lane[i] = (expression); return r
INLINE fv fv_load(const fe *p) { FV_EACH(p[i]); }
INLINE void fv_store(fe *p, fv v) { memcpy(p, v.lane, sizeof v.lane); }
INLINE fv fv_set1(fe x) { FV_EACH(x); }
INLINE fv fv_add(fv a, fv b) { FV_EACH(fe_add(a.lane[i], b.lane[i])); }
INLINE fv fv_sub(fv a, fv b) { FV_EACH(fe_sub(a.lane[i], b.lane[i])); }
INLINE fv fv_mul(fv a, fv b) { FV_EACH(fe_mul(a.lane[i], b.lane[i])); }
#undef FV_EACH
INLINE void fv_transpose(fv v[8]) {
  for (int i = 0; i < 8; i++)
    for (int j = 0; j < i; j++) {
      fe t = v[i].lane[j];
      v[i].lane[j] = v[j].lane[i];
      v[j].lane[i] = t;
    }
}
#endif
