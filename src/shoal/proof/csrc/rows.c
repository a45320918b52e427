// Sums over a matrix's rows, and a matrix of small integers between two vectors.
#include "lanes.h"
#include "threads.h"

#define COMBINE_LANES 8

typedef struct { const fe *in; const fx *weights; fx *out; int64_t rows, columns; } combination;
static fx combine_one(const combination *c, int64_t column) {
  fe_sum x = {0}, y = {0};
  for (int64_t row = 0; row < c->rows; row++) {
    sum_product(&x, c->in[row * c->columns + column], c->weights[row].a);
    sum_product(&y, c->in[row * c->columns + column], c->weights[row].b);
  }
  return (fx){sum_value(&x), sum_value(&y)};
}
// A cache line of columns at a time, and a few lines together: each row's part is then read in one go.
static void combine_range(void *p, int64_t begin, int64_t end) {
  combination *c = p;
  int64_t at = begin;
  for (; at + COMBINE_LANES * FV_LANES <= end; at += COMBINE_LANES * FV_LANES) {
    xv sums[COMBINE_LANES];
    for (int k = 0; k < COMBINE_LANES; k++) sums[k] = xv_zero();
    for (int64_t row = 0; row < c->rows; row++) {
      xv w = xv_set1(c->weights[row]);
      const fe *in = c->in + row * c->columns + at;
      for (int k = 0; k < COMBINE_LANES; k++) sums[k] = xv_add(sums[k], xv_scale(w, xv_load_base(in + k * FV_LANES)));
    }
    for (int k = 0; k < COMBINE_LANES; k++) xv_store(c->out + at + k * FV_LANES, sums[k]);
  }
  for (; at < end; at++) c->out[at] = combine_one(c, at);
}
// out[j] = sum over rows of weights[i] in[i][j]
void proof_combine_rows(const fe *in, int64_t rows, int64_t columns, const fx *weights, fx *out) {
  int64_t grain = 32768 / rows + 1;
  parallel_for(combine_range, &(combination){in, weights, out, rows, columns}, columns, grain);
}

// ---- <W, u x v> -----------------------------------------------------------------------------------------------
//
// v's coordinates as signed halves of 32 bits, (4, columns): a half times an int16 keeps below 2^46, so 2^16 of them
// are summed in 64 bits before anything is reduced.

#define EXACT_COLUMNS 65536

typedef struct { const void *w; const int32_t *halves; const fx *u; fx *parts; int64_t rows, columns; int size; } product;

#define DEFINE_HALVES(NAME, TYPE)                                                                               \
  static void NAME(const TYPE *w, const int32_t *v, int64_t stride, int64_t count, int64_t sums[4]) {            \
    int64_t a = 0, b = 0, c = 0, d = 0;                                                                          \
    for (int64_t j = 0; j < count; j++) {                                                                        \
      int64_t x = w[j];                                                                                          \
      a += x * v[j], b += x * v[stride + j], c += x * v[2 * stride + j], d += x * v[3 * stride + j];             \
    }                                                                                                            \
    sums[0] = a, sums[1] = b, sums[2] = c, sums[3] = d;                                                          \
  }
DEFINE_HALVES(halves8, int8_t)
DEFINE_HALVES(halves16, int16_t)

INLINE fe from_halves(int64_t low, int64_t high) {
  return fe_add(fe_from_int(low), fe_mul(fe_from_int(high), 1ull << 32));
}
static fx row_product(const product *m, int64_t row) {
  fx total = {0, 0};
  for (int64_t j = 0; j < m->columns; j += EXACT_COLUMNS) {
    int64_t count = m->columns - j < EXACT_COLUMNS ? m->columns - j : EXACT_COLUMNS, sums[4], at = row * m->columns + j;
    if (m->size == 1) halves8((const int8_t *)m->w + at, m->halves + j, m->columns, count, sums);
    else halves16((const int16_t *)m->w + at, m->halves + j, m->columns, count, sums);
    total = fx_add(total, (fx){from_halves(sums[0], sums[1]), from_halves(sums[2], sums[3])});
  }
  return total;
}
static void product_range(void *p, int64_t begin, int64_t end) {
  product *m = p;
  for (int64_t t = begin; t < end; t++) {
    fx total = {0, 0};
    for (int64_t row = m->rows * t / MOST_THREADS; row < m->rows * (t + 1) / MOST_THREADS; row++)
      total = fx_add(total, fx_mul(m->u[row], row_product(m, row)));
    m->parts[t] = total;
  }
}
// sum of w[i][j] u[i] v[j]; size: bytes of an integer, 1 or 2.
void proof_product(const void *w, int size, int64_t rows, int64_t columns, const fx *u, const int32_t *halves, fx *out) {
  fx parts[MOST_THREADS];
  product m = {w, halves, u, parts, rows, columns, size};
  parallel_for(product_range, &m, MOST_THREADS, rows * columns < 65536 ? MOST_THREADS : 1);
  *out = (fx){0, 0};
  for (int t = 0; t < MOST_THREADS; t++) *out = fx_add(*out, parts[t]);
}
