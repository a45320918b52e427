// Element by element, tables of eq, folds and sums: what numpy would do in many passes.
#include "lanes.h"
#include "threads.h"

#define GRAIN 32768

enum { OP_ADD, OP_SUB, OP_MUL };

INLINE fe fe_apply(int op, fe a, fe b) {
  return op == OP_ADD ? fe_add(a, b) : op == OP_SUB ? fe_sub(a, b) : fe_mul(a, b);
}
INLINE fv fv_apply(int op, fv a, fv b) {
  return op == OP_ADD ? fv_add(a, b) : op == OP_SUB ? fv_sub(a, b) : fv_mul(a, b);
}

// stride: 1, or 0 for one number against all.
typedef struct { const fe *a, *b; fe *out; int64_t sa, sb; int op; } base_map;
INLINE void base_loop(const base_map *m, int op, int64_t i, int64_t end) {
  for (; i + FV_LANES <= end; i += FV_LANES) {
    fv a = m->sa ? fv_load(m->a + i) : fv_set1(*m->a), b = m->sb ? fv_load(m->b + i) : fv_set1(*m->b);
    fv_store(m->out + i, fv_apply(op, a, b));
  }
  for (; i < end; i++) m->out[i] = fe_apply(op, m->a[i * m->sa], m->b[i * m->sb]);
}
static void base_range(void *p, int64_t begin, int64_t end) {
  base_map *m = p;
  switch (m->op) {
    case OP_ADD: base_loop(m, OP_ADD, begin, end); break;
    case OP_SUB: base_loop(m, OP_SUB, begin, end); break;
    default: base_loop(m, OP_MUL, begin, end); break;
  }
}
void proof_base_map(int op, const fe *a, int64_t sa, const fe *b, int64_t sb, fe *out, int64_t n) {
  parallel_for(base_range, &(base_map){a, b, out, sa, sb, op}, n, GRAIN);
}

// out = a * b; b: extension elements, or base elements where `is_base` is set.
typedef struct { const fx *a; const void *b; fx *out; int64_t sa, sb; } ext_map;
static void ext_range(void *p, int64_t begin, int64_t end) {
  ext_map *m = p;
  const fx *b = m->b;
  int64_t i = begin;
  for (; i + FV_LANES <= end; i += FV_LANES) {
    xv u = m->sa ? xv_load(m->a + i) : xv_set1(*m->a), v = m->sb ? xv_load(b + i) : xv_set1(*b);
    xv_store(m->out + i, xv_mul(u, v));
  }
  for (; i < end; i++) m->out[i] = fx_mul(m->a[i * m->sa], b[i * m->sb]);
}
static void scale_range(void *p, int64_t begin, int64_t end) {
  ext_map *m = p;
  const fe *b = m->b;
  int64_t i = begin;
  for (; i + FV_LANES <= end; i += FV_LANES) {
    xv u = m->sa ? xv_load(m->a + i) : xv_set1(*m->a);
    xv_store(m->out + i, xv_scale(u, m->sb ? xv_load_base(b + i) : fv_set1(*b)));
  }
  for (; i < end; i++) m->out[i] = fx_scale(m->a[i * m->sa], b[i * m->sb]);
}
void proof_ext_mul(int is_base, const fx *a, int64_t sa, const void *b, int64_t sb, fx *out, int64_t n) {
  parallel_for(is_base ? scale_range : ext_range, &(ext_map){a, b, out, sa, sb}, n, GRAIN / 2);
}

// out[i, j] = a[i] * b[j]
typedef struct { const fx *a, *b; fx *out; int64_t inner; } ext_outer_map;
static void ext_outer_range(void *p, int64_t begin, int64_t end) {
  ext_outer_map *m = p;
  for (int64_t i = begin; i < end; i++) {
    ext_map row = {m->b, &m->a[i], m->out + i * m->inner, 1, 0};
    ext_range(&row, 0, m->inner);
  }
}
void proof_ext_outer(const fx *a, int64_t n, const fx *b, int64_t inner, fx *out) {
  parallel_for(ext_outer_range, &(ext_outer_map){a, b, out, inner}, n, GRAIN / 2 / (inner + 1) + 1);
}

// integers of 1, 2, 4 or 8 bytes -> canonical elements.
typedef struct { const void *in; fe *out; int size; } from_ints;
static void from_range(void *p, int64_t begin, int64_t end) {
  from_ints *m = p;
  switch (m->size) {
    case 1: for (int64_t i = begin; i < end; i++) m->out[i] = fe_from_int(((const int8_t *)m->in)[i]); break;
    case 2: for (int64_t i = begin; i < end; i++) m->out[i] = fe_from_int(((const int16_t *)m->in)[i]); break;
    case 4: for (int64_t i = begin; i < end; i++) m->out[i] = fe_from_int(((const int32_t *)m->in)[i]); break;
    default: for (int64_t i = begin; i < end; i++) m->out[i] = fe_from_int(((const int64_t *)m->in)[i]); break;
  }
}
void proof_from_ints(const void *in, int size, fe *out, int64_t n) {
  parallel_for(from_range, &(from_ints){in, out, size}, n, GRAIN);
}

// One step of a table of eq: out[2 i + b] = table[i] * (b ? r : 1 - r), for all i < n.
typedef struct { const fx *table; fx *out; fx r; } eq_step;
static void eq_range(void *p, int64_t begin, int64_t end) {
  eq_step *m = p;
  xv r = xv_set1(m->r);
  int64_t i = begin;
  for (; i + FV_LANES <= end; i += FV_LANES) {
    xv t = xv_load(m->table + i), high = xv_mul(t, r);
    xv_zip(m->out + 2 * i, xv_sub(t, high), high);
  }
  for (; i < end; i++) {
    fx high = fx_mul(m->table[i], m->r);
    m->out[2 * i] = fx_sub(m->table[i], high);
    m->out[2 * i + 1] = high;
  }
}
void proof_eq_step(const fx *table, int64_t n, const fx *r, fx *out) {
  parallel_for(eq_range, &(eq_step){table, out, *r}, n, GRAIN / 2);
}

// out[i] = f[i] + r (f[i + half] - f[i])
typedef struct { const void *f; fx *out; int64_t half; fx r; } fold_step;
static void fold_ext_range(void *p, int64_t begin, int64_t end) {
  fold_step *m = p;
  const fx *f = m->f, *g = f + m->half;
  xv r = xv_set1(m->r);
  int64_t i = begin;
  for (; i + FV_LANES <= end; i += FV_LANES) {
    xv low = xv_load(f + i);
    xv_store(m->out + i, xv_add(low, xv_mul(r, xv_sub(xv_load(g + i), low))));
  }
  for (; i < end; i++) m->out[i] = fx_add(f[i], fx_mul(m->r, fx_sub(g[i], f[i])));
}
static void fold_base_range(void *p, int64_t begin, int64_t end) {
  fold_step *m = p;
  const fe *f = m->f, *g = f + m->half;
  xv r = xv_set1(m->r);
  int64_t i = begin;
  for (; i + FV_LANES <= end; i += FV_LANES) {
    fv low = xv_load_base(f + i);
    xv_store(m->out + i, xv_add_base(xv_scale(r, fv_sub(xv_load_base(g + i), low)), low));
  }
  for (; i < end; i++) m->out[i] = fx_add_base(fx_scale(m->r, fe_sub(g[i], f[i])), f[i]);
}
void proof_fold(int is_base, const void *f, int64_t half, const fx *r, fx *out) {
  parallel_for(is_base ? fold_base_range : fold_ext_range, &(fold_step){f, out, half, *r}, half, GRAIN / 2);
}

// Sums of products, in MOST_THREADS parts whatever the threads: a is base elements or extension elements.
typedef struct { const void *a; const fx *b; fx parts[MOST_THREADS]; int64_t count; } dot_job;
static fx dot_base_part(const fe *a, const fx *b, int64_t i, int64_t end) {
  xv sum = xv_zero();
  for (; i + FV_LANES <= end; i += FV_LANES) sum = xv_add(sum, xv_scale(xv_load(b + i), xv_load_base(a + i)));
  fx rest = {0, 0};
  for (; i < end; i++) rest = fx_add(rest, fx_scale(b[i], a[i]));
  return fx_add(rest, xv_total(sum));
}
static fx dot_ext_part(const fx *a, const fx *b, int64_t i, int64_t end) {
  xv sum = xv_zero();
  for (; i + FV_LANES <= end; i += FV_LANES) sum = xv_add(sum, xv_mul(xv_load(a + i), xv_load(b + i)));
  fx rest = {0, 0};
  for (; i < end; i++) rest = fx_add(rest, fx_mul(a[i], b[i]));
  return fx_add(rest, xv_total(sum));
}
static void dot_base_range(void *p, int64_t begin, int64_t end) {
  dot_job *m = p;
  for (int64_t t = begin; t < end; t++)
    m->parts[t] = dot_base_part(m->a, m->b, m->count * t / MOST_THREADS, m->count * (t + 1) / MOST_THREADS);
}
static void dot_ext_range(void *p, int64_t begin, int64_t end) {
  dot_job *m = p;
  for (int64_t t = begin; t < end; t++)
    m->parts[t] = dot_ext_part(m->a, m->b, m->count * t / MOST_THREADS, m->count * (t + 1) / MOST_THREADS);
}
static fx dot_all(range_function run, const void *a, const fx *b, int64_t n) {
  dot_job job = {.a = a, .b = b, .count = n};
  parallel_for(run, &job, MOST_THREADS, n < 2 * GRAIN ? MOST_THREADS : 1);
  fx sum = {0, 0};
  for (int t = 0; t < MOST_THREADS; t++) sum = fx_add(sum, job.parts[t]);
  return sum;
}
void proof_dot_base_ext(const fe *a, const fx *b, int64_t n, fx *out) { *out = dot_all(dot_base_range, a, b, n); }
void proof_dot_ext(const fx *a, const fx *b, int64_t n, fx *out) { *out = dot_all(dot_ext_range, a, b, n); }
