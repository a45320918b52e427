// Vectors of LANES floats and the few operations GCC's vector extensions lack. Everything above is written once.
//
// Rules that stay true in this file:
// - every function gives the same bits for a lane whatever the other lanes hold;
// - each target differs only in LANES and in how an int8 dot product and a half-precision load are spelled.
#pragma once
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX2__) || defined(__AVX512F__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VNNI__)
#define ISA_AVX512 1
#define LANES 16
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define ISA_AVX2 1
#define LANES 8
#elif defined(__aarch64__) && defined(__ARM_FEATURE_DOTPROD)
#define ISA_NEON 1
#define LANES 8  // two registers
#else
#define LANES 8
#endif

#define INLINE static inline __attribute__((always_inline))

typedef float vf __attribute__((vector_size(4 * LANES)));
typedef int32_t vi __attribute__((vector_size(4 * LANES)));

typedef int8_t vb __attribute__((vector_size(LANES)));
typedef int32_t word __attribute__((may_alias));  // four int8, read where they lie: GCC then broadcasts from memory

INLINE vf vf_load(const float *p) { vf v; memcpy(&v, p, sizeof v); return v; }
INLINE void vf_store(float *p, vf v) { memcpy(p, &v, sizeof v); }
INLINE vi vi_load(const void *p) { vi v; memcpy(&v, p, sizeof v); return v; }

INLINE vf vf_set1(float x) {
#if LANES == 16
  return (vf){x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x};
#else
  return (vf){x, x, x, x, x, x, x, x};
#endif
}
INLINE vi vi_set1(int32_t x) {
#if LANES == 16
  return (vi){x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x};
#else
  return (vi){x, x, x, x, x, x, x, x};
#endif
}
// mask lanes are -1 or 0, as comparisons give them.
INLINE vf vf_select(vi mask, vf a, vf b) { return (vf)(((vi)a & mask) | ((vi)b & ~mask)); }
#if ISA_AVX512
INLINE vf vf_max(vf a, vf b) { return (vf)_mm512_max_ps((__m512)a, (__m512)b); }
INLINE vf vf_min(vf a, vf b) { return (vf)_mm512_min_ps((__m512)a, (__m512)b); }
#elif ISA_AVX2
INLINE vf vf_max(vf a, vf b) { return (vf)_mm256_max_ps((__m256)a, (__m256)b); }
INLINE vf vf_min(vf a, vf b) { return (vf)_mm256_min_ps((__m256)a, (__m256)b); }
#else
INLINE vf vf_max(vf a, vf b) { return vf_select(a > b, a, b); }
INLINE vf vf_min(vf a, vf b) { return vf_select(a < b, a, b); }
#endif
INLINE vf vf_from_int(vi a) { return __builtin_convertvector(a, vf); }
INLINE vi vi_iota(void) {
#if LANES == 16
  return (vi){0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
#else
  return (vi){0, 1, 2, 3, 4, 5, 6, 7};
#endif
}

// Sum and maximum over lanes in one fixed order: halves are folded onto one another.
INLINE float vf_sum(vf v) {
#if ISA_AVX512
  return _mm512_reduce_add_ps((__m512)v);
#endif
  float a[LANES];
  vf_store(a, v);
  for (int w = LANES / 2; w > 0; w /= 2)
    for (int i = 0; i < w; i++) a[i] += a[i + w];
  return a[0];
}
INLINE float vf_hmax(vf v) {
#if ISA_AVX512
  return _mm512_reduce_max_ps((__m512)v);
#endif
  float a[LANES];
  vf_store(a, v);
  for (int w = LANES / 2; w > 0; w /= 2)
    for (int i = 0; i < w; i++) a[i] = a[i] > a[i + w] ? a[i] : a[i + w];
  return a[0];
}

INLINE int32_t vi_sum(vi v) {
#if ISA_AVX512
  return _mm512_reduce_add_epi32((__m512i)v);
#endif
  int32_t sum = 0;
  for (int i = 0; i < LANES; i++) sum += v[i];
  return sum;
}

// ---- half precision and bfloat16 ----

INLINE float half_to_float(uint16_t h) {
#if defined(__F16C__)
  return _cvtsh_ss(h);
#elif defined(__aarch64__)
  __fp16 x;
  memcpy(&x, &h, 2);
  return (float)x;
#else
  uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = (h >> 10) & 31, mantissa = h & 1023, bits;
  if (exponent == 0) {
    float f = (float)mantissa * 0x1p-24f;
    return sign ? -f : f;
  }
  bits = sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | mantissa << 13;
  float f;
  memcpy(&f, &bits, 4);
  return f;
#endif
}

INLINE uint16_t float_to_half(float f) {
#if defined(__F16C__)
  return _cvtss_sh(f, _MM_FROUND_TO_NEAREST_INT);
#elif defined(__aarch64__)
  __fp16 x = (__fp16)f;
  uint16_t h;
  memcpy(&h, &x, 2);
  return h;
#else
  uint32_t x;
  memcpy(&x, &f, 4);
  uint32_t sign = (x >> 16) & 0x8000, magnitude = x & 0x7fffffff;
  if (magnitude > 0x7f800000) return (uint16_t)(sign | 0x7e00);
  if (magnitude >= 0x477ff000) return (uint16_t)(sign | 0x7c00);
  if (magnitude < 0x38800000) {  // subnormal: let the FPU round
    float a;
    memcpy(&a, &magnitude, 4);
    a += 0.5f;
    uint32_t y;
    memcpy(&y, &a, 4);
    return (uint16_t)(sign | (y - 0x3f000000));
  }
  uint32_t odd = (magnitude >> 13) & 1;
  return (uint16_t)(sign | ((magnitude - 0x38000000 + 0xfff + odd) >> 13));
#endif
}

INLINE vf vf_from_half(const uint16_t *p) {
#if ISA_AVX512
  return (vf)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
#elif ISA_AVX2
  return (vf)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
#elif defined(__aarch64__)
  float32x4_t low = vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
  float32x4_t high = vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p + 4)));
  vf v;
  memcpy(&v, &low, 16);
  memcpy((char *)&v + 16, &high, 16);
  return v;
#else
  vf v;
  for (int i = 0; i < LANES; i++) v[i] = half_to_float(p[i]);
  return v;
#endif
}

INLINE vf vf_from_bf16(const uint16_t *p) {
#if ISA_AVX512
  return (vf)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16);
#elif ISA_AVX2
  return (vf)_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)), 16);
#else
  vi v;
  for (int i = 0; i < LANES; i++) v[i] = (int32_t)((uint32_t)p[i] << 16);
  return (vf)v;
#endif
}

INLINE vf vf_from_int8(const int8_t *p) {
#if ISA_AVX512
  return (vf)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
#elif ISA_AVX2
  return (vf)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)));
#else
  vi v;
  for (int i = 0; i < LANES; i++) v[i] = p[i];
  return vf_from_int(v);
#endif
}

// ---- integer dot products: W[8] holds 32 columns of LANES rows, four columns in each 32-bit lane ----

#if ISA_NEON
// s += W . (four int8 of p, the same in every lane), for eight lanes.
INLINE vi neon_dot(vi s, const vi *W, int32_t p) {
  int8x16_t a = vreinterpretq_s8_s32(vdupq_n_s32(p)), w[2];
  int32x4_t t[2];
  memcpy(w, W, 32);
  memcpy(t, &s, 32);
  t[0] = vdotq_s32(t[0], w[0], a);
  t[1] = vdotq_s32(t[1], w[1], a);
  memcpy(&s, t, 32);
  return s;
}
#endif

// Unsigned 4-bit weights (0..15) times int8 activations.
INLINE vi dot_u4(const vi W[8], const int8_t *a) {
  const word *p = (const word *)a;
#if ISA_AVX512
  __m512i s = _mm512_setzero_si512(), t = s;
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    s = _mm512_dpbusd_epi32(s, (__m512i)W[i], _mm512_set1_epi32(p[i]));
    t = _mm512_dpbusd_epi32(t, (__m512i)W[i + 4], _mm512_set1_epi32(p[i + 4]));
  }
  return (vi)_mm512_add_epi32(s, t);
#elif ISA_AVX2 && defined(__AVXVNNI__)
  __m256i s = _mm256_setzero_si256(), t = s;
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    s = _mm256_dpbusd_avx_epi32(s, (__m256i)W[i], _mm256_set1_epi32(p[i]));
    t = _mm256_dpbusd_avx_epi32(t, (__m256i)W[i + 4], _mm256_set1_epi32(p[i + 4]));
  }
  return (vi)_mm256_add_epi32(s, t);
#elif ISA_AVX2
  // Eight sums of two products fit int16: 8 * 2 * 15 * 127 = 30480.
  __m256i s = _mm256_maddubs_epi16((__m256i)W[0], _mm256_set1_epi32(p[0]));
#pragma GCC unroll 7
  for (int i = 1; i < 8; i++)
    s = _mm256_add_epi16(s, _mm256_maddubs_epi16((__m256i)W[i], _mm256_set1_epi32(p[i])));
  return (vi)_mm256_madd_epi16(s, _mm256_set1_epi16(1));
#elif ISA_NEON
  vi s = vi_set1(0);
#pragma GCC unroll 8
  for (int i = 0; i < 8; i++) s = neon_dot(s, W + i, p[i]);
  return s;
#else
  vi s = vi_set1(0);
  for (int i = 0; i < 8; i++) {
    const uint8_t *w = (const uint8_t *)&W[i];
    for (int r = 0; r < LANES; r++)
      for (int j = 0; j < 4; j++) s[r] += (int32_t)w[4 * r + j] * a[4 * i + j];
  }
  return s;
#endif
}

// Signed 8-bit weights. Where the CPU multiplies unsigned by signed, weights are stored plus 128 (BIAS8) and
// 128 * sum(a) is taken off again, in integers, hence exactly.
#if ISA_AVX512 || (ISA_AVX2 && defined(__AVXVNNI__))
#define BIAS8 128
#else
#define BIAS8 0
#endif

INLINE vi dot_s8(const vi *W, const int8_t *a, int count, int32_t sum) {  // count: 8 (32 columns) or 4 (16)
  const word *p = (const word *)a;
#if ISA_AVX512
  __m512i s = _mm512_set1_epi32(-BIAS8 * sum), t = _mm512_setzero_si512();
#pragma GCC unroll 4
  for (int i = 0; i < count / 2; i++) {
    s = _mm512_dpbusd_epi32(s, (__m512i)W[i], _mm512_set1_epi32(p[i]));
    t = _mm512_dpbusd_epi32(t, (__m512i)W[i + count / 2], _mm512_set1_epi32(p[i + count / 2]));
  }
  return (vi)_mm512_add_epi32(s, t);
#elif ISA_AVX2 && defined(__AVXVNNI__)
  __m256i s = _mm256_set1_epi32(-BIAS8 * sum), t = _mm256_setzero_si256();
#pragma GCC unroll 4
  for (int i = 0; i < count / 2; i++) {
    s = _mm256_dpbusd_avx_epi32(s, (__m256i)W[i], _mm256_set1_epi32(p[i]));
    t = _mm256_dpbusd_avx_epi32(t, (__m256i)W[i + count / 2], _mm256_set1_epi32(p[i + count / 2]));
  }
  return (vi)_mm256_add_epi32(s, t);
#elif ISA_AVX2
  (void)sum;
  __m256i s = _mm256_setzero_si256();
  const __m256i one = _mm256_set1_epi16(1);
#pragma GCC unroll 8
  for (int i = 0; i < count; i++) {  // |w| * (a * sign w): two products of 128 * 127 fit int16
    __m256i w = (__m256i)W[i];
    __m256i x = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(_mm256_set1_epi32(p[i]), w));
    s = _mm256_add_epi32(s, _mm256_madd_epi16(x, one));
  }
  return (vi)s;
#elif ISA_NEON
  (void)sum;
  vi s = vi_set1(0);
#pragma GCC unroll 8
  for (int i = 0; i < count; i++) s = neon_dot(s, W + i, p[i]);
  return s;
#else
  (void)sum;
  vi s = vi_set1(0);
  for (int i = 0; i < count; i++) {
    const int8_t *w = (const int8_t *)&W[i];
    for (int r = 0; r < LANES; r++)
      for (int j = 0; j < 4; j++) s[r] += (int32_t)w[4 * r + j] * a[4 * i + j];
  }
  return s;
#endif
}

// ---- transcendental ----

// exp, relative error below 2e-7 on [-87, 88]; 0 below (so exp(-inf) = 0), exp(88) above; exp(0) is exactly 1.
INLINE vf vf_exp(vf x) {
  vf clamped = vf_min(vf_max(x, vf_set1(-87.0f)), vf_set1(88.0f));
  vf magic = vf_set1(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  vf shifted = clamped * vf_set1(1.44269504088896341f) + magic;
  vf n = shifted - magic;
  vf r = clamped - n * vf_set1(0.693359375f);
  r = r + n * vf_set1(2.12194440e-4f);
  vf p = vf_set1(1.9875691500e-4f);
  p = p * r + vf_set1(1.3981999507e-3f);
  p = p * r + vf_set1(8.3334519073e-3f);
  p = p * r + vf_set1(4.1665795894e-2f);
  p = p * r + vf_set1(1.6666665459e-1f);
  p = p * r + vf_set1(5.0000001201e-1f);
  p = p * (r * r) + r + vf_set1(1.0f);
  vi scale = ((vi)shifted - (vi)magic + 127) << 23;
  return vf_select(x < vf_set1(-87.0f), vf_set1(0.0f), p * (vf)scale);
}
// 2^x for x <= 0, relative error below 2e-7; 0 below -125 (so 2^-inf = 0), 2^0 is exactly 1, NaN stays NaN.
INLINE vf vf_exp2(vf x) {
  vf clamped = vf_max(vf_set1(-125.0f), x), magic = vf_set1(12582912.0f);
  vf shifted = clamped + magic, r = clamped - (shifted - magic);
  vf p = vf_set1(0x1.5bba14p-10f);
  p = p * r + vf_set1(0x1.3cea88p-7f);
  p = p * r + vf_set1(0x1.c6b752p-5f);
  p = p * r + vf_set1(0x1.ebf9bcp-3f);
  p = p * r + vf_set1(0x1.62e42ap-1f);
  p = p * r + vf_set1(1.0f);
  return vf_select(x < vf_set1(-125.0f), vf_set1(0.0f), (vf)((vi)p + ((vi)shifted << 23)));
}
INLINE vf vf_sigmoid(vf x) { return vf_set1(1.0f) / (vf_set1(1.0f) + vf_exp(-x)); }
INLINE vf vf_silu(vf x) { return x * vf_sigmoid(x); }
INLINE vf vf_gelu_tanh(vf x) {  // 0.5 x (1 + tanh(u)) = x sigmoid(2u)
  vf u = x * (vf_set1(0.7978845608028654f) + vf_set1(0.044715f * 0.7978845608028654f) * x * x);
  return x * vf_sigmoid(u + u);
}
INLINE vf vf_tanh(vf x) { return vf_sigmoid(x + x) * 2.0f - 1.0f; }
