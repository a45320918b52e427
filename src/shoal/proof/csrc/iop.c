// The prover's sumchecks: sums of a round, folds, layers of fractions. Plain twins: products.py, fractions.py, opening.py.
#include "threads.h"

#define PARTS MOST_THREADS
#define IOP_GRAIN 4096  // elements a thread should have at least

typedef struct { fx low, top; } round_sum;  // h(0) and the coefficient of X^2
typedef struct { xv low, top; } lane_sum;
static round_sum sum_zero(void) { return (round_sum){{0, 0}, {0, 0}}; }
INLINE round_sum sum_add(round_sum s, round_sum t) { return (round_sum){fx_add(s.low, t.low), fx_add(s.top, t.top)}; }
INLINE round_sum sum_scale(round_sum s, fx w) { return (round_sum){fx_mul(s.low, w), fx_mul(s.top, w)}; }
static int parts_grain(int64_t work) { return work < 2 * IOP_GRAIN ? PARTS : 1; }

// sum over j < n of w[j] a(X, j) b(X, j); a: base or extension elements; hi NULL: zeros; w NULL: ones.
static round_sum products(int is_base, const void *a, const void *a_hi, const fx *b, const fx *b_hi, const fx *w, int64_t n) {
  lane_sum s = {xv_zero(), xv_zero()};
  round_sum total = sum_zero();
  const fe *base = a, *base_hi = a_hi;
  const fx *wide = a, *wide_hi = a_hi;
  int64_t j = 0;
  for (; j + FV_LANES <= n; j += FV_LANES) {
    xv y = xv_load(b + j), dy = b_hi ? xv_sub(xv_load(b_hi + j), y) : y, low, top;
    if (is_base) {
      fv x = xv_load_base(base + j), dx = base_hi ? fv_sub(xv_load_base(base_hi + j), x) : x;
      low = xv_scale(y, x), top = xv_scale(dy, dx);
    } else {
      xv x = xv_load(wide + j), dx = wide_hi ? xv_sub(xv_load(wide_hi + j), x) : x;
      low = xv_mul(x, y), top = xv_mul(dx, dy);
    }
    if (w) {
      xv e = xv_load(w + j);
      low = xv_mul(low, e), top = xv_mul(top, e);
    }
    s.low = xv_add(s.low, low), s.top = xv_add(s.top, top);
  }
  for (; j < n; j++) {
    fx x = is_base ? (fx){base[j], 0} : wide[j], y = b[j], dx = x, dy = y;
    if (b_hi) dx = fx_sub(is_base ? (fx){base_hi[j], 0} : wide_hi[j], x), dy = fx_sub(b_hi[j], y);
    round_sum one = {fx_mul(x, y), fx_mul(dx, dy)};
    total = sum_add(total, w ? sum_scale(one, w[j]) : one);
  }
  return sum_add(total, (round_sum){xv_total(s.low), xv_total(s.top)});
}

// a, b: rows x rest; row i + half is the other half of row i. outer: a weight for each row, or one (step 0); inner: for each j mod period.
typedef struct {
  const char *a;
  const fx *b, *outer, *inner;
  int64_t rows, half, rest, period;
  int is_base, size, step;
  round_sum parts[PARTS];
} products_job;

// One long row: `outer` are its weights.
static round_sum flat_range(const products_job *m, int64_t begin, int64_t end) {
  int64_t pairs = m->rows > m->half ? m->rows - m->half : 0, middle = end < pairs ? end : begin > pairs ? begin : pairs;
  const fx *w = m->step ? m->outer : NULL;
  round_sum sum = sum_zero();
  if (begin < middle)
    sum = products(m->is_base, m->a + begin * m->size, m->a + (begin + m->half) * m->size, m->b + begin,
                   m->b + begin + m->half, w ? w + begin : NULL, middle - begin);
  if (middle < end)
    sum = sum_add(sum, products(m->is_base, m->a + middle * m->size, NULL, m->b + middle, NULL, w ? w + middle : NULL, end - middle));
  return sum;
}
static round_sum row_sum(const products_job *m, int64_t i) {
  int64_t low = i * m->rest, high = (i + m->half) * m->rest, period = m->period > 1 ? m->period : m->rest;
  int has_high = i + m->half < m->rows;
  round_sum sum = sum_zero();
  for (int64_t j = 0; j < m->rest; j += period)
    sum = sum_add(sum, products(m->is_base, m->a + (low + j) * m->size, has_high ? m->a + (high + j) * m->size : NULL,
                                m->b + low + j, has_high ? m->b + high + j : NULL, m->period > 1 ? m->inner : NULL, period));
  return m->step ? sum_scale(sum, m->outer[i]) : sum;
}
static void products_range(void *p, int64_t begin, int64_t end) {
  products_job *m = p;
  int64_t count = m->rows < m->half ? m->rows : m->half;
  for (int64_t t = begin; t < end; t++) {
    int64_t first = count * t / PARTS, last = count * (t + 1) / PARTS;
    m->parts[t] = m->rest == 1 ? flat_range(m, first, last) : sum_zero();
    for (int64_t i = first; i < last && m->rest > 1; i++) m->parts[t] = sum_add(m->parts[t], row_sum(m, i));
  }
}
static round_sum join(const round_sum *parts) {
  round_sum sum = sum_zero();
  for (int t = 0; t < PARTS; t++) sum = sum_add(sum, parts[t]);
  return sum;
}
void proof_round_sums(int is_base, const void *a, const fx *b, int64_t rows, int64_t half, int64_t rest, const fx *outer,
                      int64_t step, const fx *inner, int64_t period, fx *out) {
  products_job job = {a, b, outer, inner, rows, half, rest, period, is_base, is_base ? sizeof(fe) : sizeof(fx), (int)step, {{{0, 0}, {0, 0}}}};
  parallel_for(products_range, &job, PARTS, parts_grain(rows * rest));
  round_sum sum = join(job.parts);
  if (period == 1 && rest > 1) sum = sum_scale(sum, inner[0]);
  out[0] = sum.low, out[1] = sum.top;
}

// out[i] = f[i] + r (f[i + half] - f[i]) for i < min(n, half); entries from n on are `missing`. out may be f.
typedef struct { const void *f; fx *out; int64_t n, half; fx r, missing; int is_base; } short_fold;
static void short_fold_range(void *p, int64_t begin, int64_t end) {
  short_fold *m = p;
  const fe *base = m->f;
  const fx *wide = m->f;
  xv r = xv_set1(m->r);
  int64_t i = begin, pairs = m->n - m->half < end ? m->n - m->half : end;
  for (; i + FV_LANES <= pairs; i += FV_LANES) {
    if (m->is_base) {
      fv low = xv_load_base(base + i);
      xv_store(m->out + i, xv_add_base(xv_scale(r, fv_sub(xv_load_base(base + i + m->half), low)), low));
    } else {
      xv low = xv_load(wide + i);
      xv_store(m->out + i, xv_add(low, xv_mul(r, xv_sub(xv_load(wide + i + m->half), low))));
    }
  }
  for (; i < end; i++) {
    fx low = m->is_base ? (fx){base[i], 0} : wide[i], high = m->missing;
    if (i + m->half < m->n) high = m->is_base ? (fx){base[i + m->half], 0} : wide[i + m->half];
    m->out[i] = fx_add(low, fx_mul(m->r, fx_sub(high, low)));
  }
}
void proof_short_fold(int is_base, const void *f, int64_t n, int64_t half, const fx *r, const fx *missing, fx *out) {
  short_fold job = {f, out, n, half, *r, *missing, is_base};
  parallel_for(short_fold_range, &job, n < half ? n : half, IOP_GRAIN);
}

// Sums of pairs of fractions: `half` of them, the last half - count of which have no partner.
typedef struct { const void *p; const fx *q; fx *up, *uq; int64_t half, count; int is_base; } fraction_layer;
static void fraction_range(void *context, int64_t begin, int64_t end) {
  fraction_layer *m = context;
  const fe *base = m->p;
  const fx *wide = m->p;
  int64_t i = begin, pairs = m->count < end ? m->count : end;
  for (; i + FV_LANES <= pairs; i += FV_LANES) {
    xv q0 = xv_load(m->q + i), q1 = xv_load(m->q + i + m->half), x, y;
    if (m->is_base) x = xv_scale(q1, xv_load_base(base + i)), y = xv_scale(q0, xv_load_base(base + i + m->half));
    else x = xv_mul(q1, xv_load(wide + i)), y = xv_mul(q0, xv_load(wide + i + m->half));
    xv_store(m->up + i, xv_add(x, y));
    xv_store(m->uq + i, xv_mul(q0, q1));
  }
  for (; i < end; i++) {
    fx p0 = m->is_base ? (fx){base[i], 0} : wide[i], p1 = {0, 0}, q1 = {1, 0};
    if (i < m->count) p1 = m->is_base ? (fx){base[i + m->half], 0} : wide[i + m->half], q1 = m->q[i + m->half];
    m->up[i] = fx_add(fx_mul(p0, q1), fx_mul(p1, m->q[i]));
    m->uq[i] = fx_mul(m->q[i], q1);
  }
}
void proof_fraction_layer(int is_base, const void *p, const fx *q, int64_t half, int64_t count, fx *up, fx *uq) {
  parallel_for(fraction_range, &(fraction_layer){p, q, up, uq, half, count, is_base}, half, IOP_GRAIN);
}

// sum over i of high[i / n] low[i mod n] (a b + c d)(X, i), n = len(low); b and c have `given` entries, then 1 and `weight`.
typedef struct {
  const void *a;
  const fx *b, *c, *d, *high, *low;
  int64_t half, given, num_high, num_low;
  fx weight;
  int is_base;
  round_sum parts[PARTS];
} fraction_sums;
INLINE xv short_load(const fx *p, int64_t at, int64_t given, fx missing) {  // eight entries, `missing` from `given` on
  if (at + FV_LANES <= given) return xv_load(p + at);
  if (at >= given) return xv_set1(missing);
  fx part[FV_LANES];
  for (int i = 0; i < FV_LANES; i++) part[i] = at + i < given ? p[at + i] : missing;
  return xv_load(part);
}
INLINE fx short_at(const fx *p, int64_t at, int64_t given, fx missing) { return at < given ? p[at] : missing; }

static round_sum fraction_block(const fraction_sums *m, int64_t at) {  // num_low entries from `at`, weighed by low
  const fe *base = m->a;
  const fx *wide = m->a, one = {1, 0};
  int64_t h = m->half, j = 0;
  lane_sum s = {xv_zero(), xv_zero()};
  for (; j + FV_LANES <= m->num_low; j += FV_LANES) {
    int64_t i = at + j;
    xv b = short_load(m->b, i, m->given, one), db = xv_sub(short_load(m->b, i + h, m->given, one), b);
    xv c = short_load(m->c, i, m->given, m->weight), dc = xv_sub(short_load(m->c, i + h, m->given, m->weight), c);
    xv d = xv_load(m->d + i), dd = xv_sub(xv_load(m->d + i + h), d), low, top, e = xv_load(m->low + j);
    if (m->is_base) {
      fv a = xv_load_base(base + i);
      low = xv_scale(b, a), top = xv_scale(db, fv_sub(xv_load_base(base + i + h), a));
    } else {
      xv a = xv_load(wide + i);
      low = xv_mul(b, a), top = xv_mul(db, xv_sub(xv_load(wide + i + h), a));
    }
    s.low = xv_add(s.low, xv_mul(e, xv_add(low, xv_mul(c, d))));
    s.top = xv_add(s.top, xv_mul(e, xv_add(top, xv_mul(dc, dd))));
  }
  round_sum total = {xv_total(s.low), xv_total(s.top)};
  for (; j < m->num_low; j++) {
    int64_t i = at + j;
    fx b = short_at(m->b, i, m->given, one), db = fx_sub(short_at(m->b, i + h, m->given, one), b);
    fx c = short_at(m->c, i, m->given, m->weight), dc = fx_sub(short_at(m->c, i + h, m->given, m->weight), c);
    fx d = m->d[i], dd = fx_sub(m->d[i + h], d), a = m->is_base ? (fx){base[i], 0} : wide[i];
    fx da = fx_sub(m->is_base ? (fx){base[i + h], 0} : wide[i + h], a);
    round_sum pair = {fx_add(fx_mul(a, b), fx_mul(c, d)), fx_add(fx_mul(da, db), fx_mul(dc, dd))};
    total = sum_add(total, sum_scale(pair, m->low[j]));
  }
  return total;
}
static void fraction_sums_range(void *p, int64_t begin, int64_t end) {
  fraction_sums *m = p;
  for (int64_t t = begin; t < end; t++) {
    m->parts[t] = sum_zero();
    for (int64_t k = m->num_high * t / PARTS; k < m->num_high * (t + 1) / PARTS; k++)
      m->parts[t] = sum_add(m->parts[t], sum_scale(fraction_block(m, k * m->num_low), m->high[k]));
  }
}
void proof_fraction_sums(int is_base, const void *a, const fx *b, const fx *c, const fx *d, int64_t half, int64_t given,
                         const fx *weight, const fx *high, int64_t num_high, const fx *low, int64_t num_low, fx *out) {
  fraction_sums job = {a, b, c, d, high, low, half, given, num_high, num_low, *weight, is_base, {{{0, 0}, {0, 0}}}};
  parallel_for(fraction_sums_range, &job, PARTS, parts_grain(half));
  round_sum sum = join(job.parts);
  out[0] = sum.low, out[1] = sum.top;
}

// out[i, j] += rows[i] * last[j]
typedef struct { fx *out; const fx *rows, *last; int64_t m; } outer_job;
static void outer_range(void *p, int64_t begin, int64_t end) {
  outer_job *job = p;
  for (int64_t i = begin; i < end; i++) {
    fx *out = job->out + i * job->m, row = job->rows[i];
    xv wide = xv_set1(row);
    int64_t j = 0;
    for (; j + FV_LANES <= job->m; j += FV_LANES)
      xv_store(out + j, xv_add(xv_load(out + j), xv_mul(wide, xv_load(job->last + j))));
    for (; j < job->m; j++) out[j] = fx_add(out[j], fx_mul(row, job->last[j]));
  }
}
void proof_add_outer(fx *out, const fx *rows, int64_t n, const fx *last, int64_t m) {
  parallel_for(outer_range, &(outer_job){out, rows, last, m}, n, 1 + IOP_GRAIN / (m ? m : 1));
}

// The first `length` entries of the table of eq(point, .), doubled in place from the back: a chunk is read before it is
// written over, and what is written lies behind everything still to be read.
void proof_eq_prefix(const fx *point, int64_t bits, int64_t length, fx *out) {
  int64_t count = 1;
  out[0] = (fx){1, 0};
  for (int64_t k = 0; k < bits; k++) {
    int64_t next = ((length - 1) >> (bits - 1 - k)) + 1, i = count - 1;
    xv r = xv_set1(point[k]);
    for (; i >= 0 && ((i + 1) % FV_LANES || 2 * i + 1 >= next); i--) {
      fx high = fx_mul(out[i], point[k]), low = fx_sub(out[i], high);
      if (2 * i + 1 < next) out[2 * i + 1] = high;
      out[2 * i] = low;
    }
    for (i -= FV_LANES - 1; i >= 0; i -= FV_LANES) {
      xv t = xv_load(out + i), high = xv_mul(t, r);
      xv_zip(out + 2 * i, xv_sub(t, high), high);
    }
    count = next;
  }
}
