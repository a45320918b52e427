// Element by element, tables of eq, folds and sums: what numpy would do in many passes.
#include "threads.h"

#define GRAIN 32768

enum { OP_ADD, OP_SUB, OP_MUL };

// stride: 1, or 0 for one number against all.
typedef struct { const fe *a, *b; fe *out; int64_t sa, sb; int op; } base_map;
static void base_range(void *p, int64_t begin, int64_t end) {
  base_map *m = p;
  const fe *a = m->a, *b = m->b;
  switch (m->op) {
    case OP_ADD: for (int64_t i = begin; i < end; i++) m->out[i] = fe_add(a[i * m->sa], b[i * m->sb]); break;
    case OP_SUB: for (int64_t i = begin; i < end; i++) m->out[i] = fe_sub(a[i * m->sa], b[i * m->sb]); break;
    default: for (int64_t i = begin; i < end; i++) m->out[i] = fe_mul(a[i * m->sa], b[i * m->sb]); break;
  }
}
void proof_base_map(int op, const fe *a, int64_t sa, const fe *b, int64_t sb, fe *out, int64_t n) {
  parallel_for(base_range, &(base_map){a, b, out, sa, sb, op}, n, GRAIN);
}

// b: extension elements, or base elements where `scalar` is set.
typedef struct { const fx *a; const void *b; fx *out; int64_t sa, sb; int op, scalar; } ext_map;
static void ext_range(void *p, int64_t begin, int64_t end) {
  ext_map *m = p;
  const fx *a = m->a, *b = m->b;
  const fe *s = m->b;
  if (m->scalar) {
    for (int64_t i = begin; i < end; i++) m->out[i] = fx_scale(a[i * m->sa], s[i * m->sb]);
    return;
  }
  switch (m->op) {
    case OP_ADD: for (int64_t i = begin; i < end; i++) m->out[i] = fx_add(a[i * m->sa], b[i * m->sb]); break;
    case OP_SUB: for (int64_t i = begin; i < end; i++) m->out[i] = fx_sub(a[i * m->sa], b[i * m->sb]); break;
    default: for (int64_t i = begin; i < end; i++) m->out[i] = fx_mul(a[i * m->sa], b[i * m->sb]); break;
  }
}
void proof_ext_map(int op, int scalar, const fx *a, int64_t sa, const void *b, int64_t sb, fx *out, int64_t n) {
  parallel_for(ext_range, &(ext_map){a, b, out, sa, sb, op, scalar}, n, GRAIN / 2);
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
  for (int64_t i = begin; i < end; i++) {
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
  const fx *f = m->f;
  for (int64_t i = begin; i < end; i++) m->out[i] = fx_add(f[i], fx_mul(m->r, fx_sub(f[i + m->half], f[i])));
}
static void fold_base_range(void *p, int64_t begin, int64_t end) {
  fold_step *m = p;
  const fe *f = m->f;
  for (int64_t i = begin; i < end; i++) m->out[i] = fx_add_base(fx_scale(m->r, fe_sub(f[i + m->half], f[i])), f[i]);
}
void proof_fold(int is_base, const void *f, int64_t half, const fx *r, fx *out) {
  parallel_for(is_base ? fold_base_range : fold_ext_range, &(fold_step){f, out, half, *r}, half, GRAIN / 2);
}

typedef struct { const void *a; const fx *b; fe_sum *parts; int64_t count; } dot_job;  // one range for each thread
static void dot_range(void *p, int64_t begin, int64_t end) {
  dot_job *m = p;
  for (int64_t t = begin; t < end; t++) {
    fe_sum x = {0}, y = {0};
    const fe *a = m->a;
    for (int64_t i = m->count * t / MOST_THREADS; i < m->count * (t + 1) / MOST_THREADS; i++) {
      sum_product(&x, a[i], m->b[i].a);
      sum_product(&y, a[i], m->b[i].b);
    }
    m->parts[2 * t] = x, m->parts[2 * t + 1] = y;
  }
}
void proof_dot_base_ext(const fe *a, const fx *b, int64_t n, fx *out) {
  fe_sum parts[2 * MOST_THREADS];
  parallel_for(dot_range, &(dot_job){a, b, parts, n}, MOST_THREADS, n < GRAIN ? MOST_THREADS : 1);
  *out = (fx){0, 0};
  for (int t = 0; t < MOST_THREADS; t++)
    *out = fx_add(*out, (fx){sum_value(&parts[2 * t]), sum_value(&parts[2 * t + 1])});
}

// Sum of products of extension elements: four sums of base products.
static void dot_ext_range(void *p, int64_t begin, int64_t end) {
  dot_job *m = p;
  const fx *a = m->a, *b = m->b;
  for (int64_t t = begin; t < end; t++) {
    fe_sum aa = {0}, bb = {0}, ab = {0};
    for (int64_t i = m->count * t / MOST_THREADS; i < m->count * (t + 1) / MOST_THREADS; i++) {
      sum_product(&aa, a[i].a, b[i].a);
      sum_product(&bb, a[i].b, b[i].b);
      sum_product(&ab, a[i].a, b[i].b);
      sum_product(&ab, a[i].b, b[i].a);
    }
    m->parts[3 * t] = aa, m->parts[3 * t + 1] = bb, m->parts[3 * t + 2] = ab;
  }
}
void proof_dot_ext(const fx *a, const fx *b, int64_t n, fx *out) {
  fe_sum parts[3 * MOST_THREADS];
  parallel_for(dot_ext_range, &(dot_job){a, b, parts, n}, MOST_THREADS, n < GRAIN ? MOST_THREADS : 1);
  *out = (fx){0, 0};
  for (int t = 0; t < MOST_THREADS; t++) {
    fe square = sum_value(&parts[3 * t + 1]);
    *out = fx_add(*out, (fx){fe_add(sum_value(&parts[3 * t]), fe_mul(square, FIELD_W)), sum_value(&parts[3 * t + 2])});
  }
}
