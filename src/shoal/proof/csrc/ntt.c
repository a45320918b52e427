// Reed-Solomon codewords: values of a polynomial at all powers of a root of unity, in bit-reversed order.
//
// A row of C coefficients becomes 2^k C values: coset m holds the values at w^(brv(m) + 2^k i), i in bit-reversed
// order, which is a transform of size C of the coefficients times w^(brv(m) j). Nothing is computed on padding.
#include "lanes.h"
#include "threads.h"

// One layer, decimation in frequency: (x, y) -> (x + y, (x - y) w^(j 2^s)); half is a multiple of 8.
INLINE void ntt_layer(fe *x, int64_t half, const fe *w) {
  for (int64_t j = 0; j < half; j += FV_LANES) {
    fv a = fv_load(x + j), b = fv_load(x + half + j);
    fv_store(x + j, fv_add(a, b));
    fv_store(x + half + j, fv_mul(fv_sub(a, b), fv_load(w + j)));
  }
}

// Two layers in one pass over memory: quarter is a multiple of 8. w: the layer's powers; w2: the next one's.
INLINE void ntt_two_layers(fe *x, int64_t quarter, const fe *w, const fe *w2) {
  for (int64_t j = 0; j < quarter; j += FV_LANES) {
    fe *p = x + j;
    fv a = fv_load(p), b = fv_load(p + quarter), c = fv_load(p + 2 * quarter), d = fv_load(p + 3 * quarter);
    fv s = fv_load(w2 + j), ac = fv_add(a, c), bd = fv_add(b, d);
    fv ac_ = fv_mul(fv_sub(a, c), fv_load(w + j)), bd_ = fv_mul(fv_sub(b, d), fv_load(w + quarter + j));
    fv_store(p, fv_add(ac, bd));
    fv_store(p + quarter, fv_mul(fv_sub(ac, bd), s));
    fv_store(p + 2 * quarter, fv_add(ac_, bd_));
    fv_store(p + 3 * quarter, fv_mul(fv_sub(ac_, bd_), s));
  }
}

#if FV_LANES == 8
// The last three layers of eight transforms of size 8, which lie one behind the other.
INLINE void ntt_last(fe *x, const fe *w8) {
  fv v[8], w1 = fv_set1(w8[1]), w2 = fv_set1(w8[2]), w3 = fv_set1(w8[3]);
  for (int i = 0; i < 8; i++) v[i] = fv_load(x + 8 * i);
  fv_transpose(v);  // v[i]: number i of each
  for (int i = 0; i < 4; i++) {
    fv t = fv_sub(v[i], v[i + 4]);
    v[i] = fv_add(v[i], v[i + 4]);
    v[i + 4] = i == 0 ? t : fv_mul(t, i == 1 ? w1 : i == 2 ? w2 : w3);
  }
  for (int h = 0; h < 8; h += 4) {
    fv s = fv_sub(v[h], v[h + 2]), t = fv_mul(fv_sub(v[h + 1], v[h + 3]), w2);
    fv a = fv_add(v[h], v[h + 2]), b = fv_add(v[h + 1], v[h + 3]);
    v[h] = fv_add(a, b), v[h + 1] = fv_sub(a, b), v[h + 2] = fv_add(s, t), v[h + 3] = fv_sub(s, t);
  }
  fv_transpose(v);
  for (int i = 0; i < 8; i++) fv_store(x + 8 * i, v[i]);
}

// Layers of 32 and 16, of 8, and the rest.
static void ntt_64(fe *x, const fe *roots) {
  ntt_two_layers(x, 16, roots + 32, roots + 16);
  for (int q = 0; q < 64; q += 16) ntt_layer(x + q, 8, roots + 8);
  ntt_last(x, roots + 4);
}
#else
static void ntt_small(fe *x, int64_t n, const fe *roots);
static void ntt_64(fe *x, const fe *roots) { ntt_small(x, 64, roots); }
#endif

static void ntt_small(fe *x, int64_t n, const fe *roots) {
  for (int64_t half = n / 2; half; half /= 2)
    for (int64_t start = 0; start < n; start += 2 * half)
      for (int64_t j = 0; j < half; j++) {
        fe a = x[start + j], b = x[start + half + j];
        x[start + j] = fe_add(a, b);
        x[start + half + j] = fe_mul(fe_sub(a, b), roots[half + j]);
      }
}

// roots[h + j] = (root of unity of order 2 h)^j for every h = 1, 2, 4 .. n / 2 and j < h: each layer's powers in a row.
static void ntt_in_place(fe *x, int64_t n, const fe *roots) {
  if (n < 64) { ntt_small(x, n, roots); return; }
  if (n == 64) { ntt_64(x, roots); return; }
  if (n == 128) {
    ntt_layer(x, 64, roots + 64);
    ntt_in_place(x, 64, roots);
    ntt_in_place(x + 64, 64, roots);
    return;
  }
  int64_t quarter = n / 4;  // depth first: parts that fit a cache are finished there
  ntt_two_layers(x, quarter, roots + n / 2, roots + quarter);
  for (int q = 0; q < 4; q++) ntt_in_place(x + q * quarter, quarter, roots);
}

// shifts: (blowup, columns), coset m's powers.
typedef struct {
  const fe *in, *shifts, *roots;
  fe *out;
  int64_t columns, blowup;
} encoding;
static void encode_rows(void *p, int64_t begin, int64_t end) {
  encoding *e = p;
  int64_t n = e->columns;
  for (int64_t row = begin; row < end; row++)
    for (int64_t m = 0; m < e->blowup; m++) {
      const fe *in = e->in + row * n, *shift = e->shifts + m * n;
      fe *out = e->out + (row * e->blowup + m) * n;
      int64_t j = 0;
      if (m == 0) memcpy(out, in, (size_t)n * sizeof *out), j = n;
      for (; j + FV_LANES <= n; j += FV_LANES) fv_store(out + j, fv_mul(fv_load(in + j), fv_load(shift + j)));
      for (; j < n; j++) out[j] = fe_mul(in[j], shift[j]);
      ntt_in_place(out, n, e->roots);
    }
}
// in: (rows, columns) -> out: (rows, blowup * columns)
void proof_encode(const fe *in, int64_t rows, int64_t columns, int64_t blowup, const fe *shifts, const fe *roots,
                  fe *out) {
  int64_t grain = 32768 / (columns * blowup) + 1;
  parallel_for(encode_rows, &(encoding){in, shifts, roots, out, columns, blowup}, rows, grain);
}
