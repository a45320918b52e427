// Sums of a tensor along one axis with weights from the extension field; plain twin: contract.py.
#include "threads.h"

#define CONTRACT_TILE 256
#define LIMB_ROWS 16384  // int16 times a 32-bit limb is below 2^46: 2^14 of them stay below 2^60

enum { KIND_BASE = 9, KIND_EXT = 16 };
typedef struct {
  const char *values;
  const fx *weights;
  fx *out;
  int64_t n, inner, columns, tiles;
  int kind, size;
} contract_job;

// u = low + 2^32 high modulo p, both signed 32-bit numbers.
INLINE void limbs(fe u, int32_t *low, int32_t *high) {
  int64_t v = u >= FIELD_P / 2 ? (int64_t)(u - FIELD_P) : (int64_t)u;
  *low = (int32_t)v;
  *high = (int32_t)((v - *low) >> 32);
}
INLINE fe limb_value(int64_t low, int64_t high) {
  return fe_add(fe_from_int(low), fe_mul(fe_from_int(high), 1ull << 32));
}
typedef struct { int64_t part[4][CONTRACT_TILE]; } limb_sums;

#define SMALL_TILE(name, type)                                                                                        \
  static void name(const type *v, int64_t stride, const fx *w, int64_t step, int64_t n, int64_t width, limb_sums *s) { \
    for (int64_t i = 0; i < n; i++, v += stride, w += step) {                                                         \
      int32_t l[4];                                                                                                   \
      limbs(w->a, &l[0], &l[1]), limbs(w->b, &l[2], &l[3]);                                                           \
      for (int k = 0; k < 4; k++)                                                                                     \
        for (int64_t c = 0; c < width; c++) s->part[k][c] += (int64_t)l[k] * (int32_t)v[c];                           \
    }                                                                                                                 \
  }
SMALL_TILE(small_tile8, int8_t)
SMALL_TILE(small_tile16, int16_t)

static void small_contract(const contract_job *m, const char *v, const fx *w, fx *out, int64_t width) {
  for (int64_t c = 0; c < width; c++) out[c] = (fx){0, 0};
  for (int64_t first = 0; first < m->n; first += LIMB_ROWS) {
    int64_t n = m->n - first < LIMB_ROWS ? m->n - first : LIMB_ROWS;
    limb_sums s;
    memset(&s, 0, sizeof s);
    const char *at = v + first * m->inner * m->size;
    if (m->kind == 1) small_tile8((const int8_t *)at, m->inner, w + first * m->columns, m->columns, n, width, &s);
    else small_tile16((const int16_t *)at, m->inner, w + first * m->columns, m->columns, n, width, &s);
    for (int64_t c = 0; c < width; c++)
      out[c] = fx_add(out[c], (fx){limb_value(s.part[0][c], s.part[1][c]), limb_value(s.part[2][c], s.part[3][c])});
  }
}

// One row of small integers against weights along it: `inner` is 1.
#define SMALL_DOT(name, type)                                                             \
  static fx name(const type *v, const fx *w, int64_t step, int64_t n) {                   \
    int64_t s[4] = {0};                                                                   \
    for (int64_t i = 0; i < n; i++) {                                                     \
      int32_t l[4];                                                                       \
      limbs(w[i * step].a, &l[0], &l[1]), limbs(w[i * step].b, &l[2], &l[3]);             \
      for (int k = 0; k < 4; k++) s[k] += (int64_t)l[k] * (int32_t)v[i];                  \
    }                                                                                     \
    return (fx){limb_value(s[0], s[1]), limb_value(s[2], s[3])};                          \
  }
SMALL_DOT(small_dot8, int8_t)
SMALL_DOT(small_dot16, int16_t)

INLINE fe element_at(const contract_job *m, const char *v, int64_t i) {
  switch (m->kind) {
    case 1: return fe_from_int(((const int8_t *)v)[i]);
    case 2: return fe_from_int(((const int16_t *)v)[i]);
    case 4: return fe_from_int(((const int32_t *)v)[i]);
    case 8: return fe_from_int(((const int64_t *)v)[i]);
    default: return ((const fe *)v)[i];
  }
}
static void wide_contract(const contract_job *m, const char *v, const fx *w, fx *out, int64_t width) {
  for (int64_t c = 0; c < width; c++) {
    fe_sum s[4] = {{0, 0}};
    for (int64_t i = 0; i < m->n; i++) {
      fx u = w[i * m->columns];
      if (m->kind == KIND_EXT) {
        fx x = ((const fx *)v)[i * m->inner + c];
        sum_product(&s[0], u.a, x.a), sum_product(&s[1], u.b, x.b);
        sum_product(&s[2], u.a, x.b), sum_product(&s[3], u.b, x.a);
      } else {
        fe x = element_at(m, v, i * m->inner + c);
        sum_product(&s[0], u.a, x), sum_product(&s[2], u.b, x);
      }
    }
    fe a = fe_add(sum_value(&s[0]), fe_mul(sum_value(&s[1]), FIELD_W));
    out[c] = (fx){a, fe_add(sum_value(&s[2]), sum_value(&s[3]))};
  }
}
static void contract_range(void *p, int64_t begin, int64_t end) {
  contract_job *m = p;
  for (int64_t job = begin; job < end; job++) {
    int64_t outer = job / m->tiles, first = job % m->tiles * CONTRACT_TILE;
    int64_t width = m->inner - first < CONTRACT_TILE ? m->inner - first : CONTRACT_TILE;
    const char *v = m->values + (outer * m->n * m->inner + first) * m->size;
    for (int64_t k = 0; k < m->columns; k++) {
      fx *out = m->out + (outer * m->columns + k) * m->inner + first;
      const fx *w = m->weights + k;
      int is_small = m->kind <= 2;
      if (is_small && m->inner == 1 && m->n <= LIMB_ROWS)
        *out = m->kind == 1 ? small_dot8((const int8_t *)v, w, m->columns, m->n) : small_dot16((const int16_t *)v, w, m->columns, m->n);
      else if (is_small && m->inner > 4) small_contract(m, v, w, out, width);
      else wide_contract(m, v, w, out, width);
    }
  }
}
// out[i, k, j] = sum over x of values[i, x, j] weights[x, k]; kind: bytes of a signed integer, or KIND_...
void proof_contract(int kind, const void *values, int64_t outer, int64_t n, int64_t inner, const fx *weights,
                    int64_t columns, fx *out) {
  int size = kind == KIND_BASE ? 8 : kind;
  int64_t tiles = (inner + CONTRACT_TILE - 1) / CONTRACT_TILE;
  contract_job job = {values, weights, out, n, inner, columns, tiles, kind, size};
  int64_t work = n * (inner < CONTRACT_TILE ? inner : CONTRACT_TILE) * columns;
  parallel_for(contract_range, &job, outer * tiles, 1 + 16384 / (work ? work : 1));
}
