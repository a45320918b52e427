// Sums over a matrix's rows.
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
      for (int k = 0; k < COMBINE_LANES; k++)
        sums[k] = xv_add(sums[k], xv_scale(w, xv_load_base(in + k * FV_LANES)));
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
