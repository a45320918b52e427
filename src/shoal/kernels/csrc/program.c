// A network as a list of operations, recorded once and run with one call per step.
//
// Operations on rows (norms, rotations, cache writes, ...) that follow one another form a run: a thread takes some rows
// through the whole run, which is one phase. Products and attention are phases of their own.
//
// Rules that stay true in this file:
// - every operation reads and writes only buffers named in it; a run's operations touch only their own row;
// - nothing is allocated while a program runs.

enum { EMBED, NORM, QUANTIZE, HEAD_NORM, ROPE, WRITE_KV, GATED, ADD, GATHER, TAP, SOFTCAP, ROW_OPS, PRODUCTS = ROW_OPS, ATTENTION, EXPERTS };

// The meaning of each field by code is in kernels/program.py, which writes these records.
typedef struct {
  int32_t code, in, in2, out, columns, heads, flags, layer, count, on_outputs;
  int32_t outs[3], adds[3], targets[3];
  float f, g;
  const void *p, *p2;
  const matrix *weights[3];
  const float *biases[3];
} op;

typedef struct { const float *a, *b; int32_t rank; float scale; } lora;  // a (rank, in), b (rank, out)

typedef struct {
  int32_t *chosen, *place, *starts;  // (rows, k) expert; (rows, k) row in the sorted copy; (experts + 1)
  float *weight;                     // (rows, k)
  block8 *a, *a2;                    // sorted copies of quantised rows
  float *x, *gate, *up, *down;
  product *jobs;
} expert_scratch;

typedef struct {
  const op *ops;
  int32_t num_ops, num_targets;
  float **buffers;         // one per value slot, max rows x its columns
  const int32_t *columns;  // of each buffer
  block8 *a, *a2;          // the quantised rows of the latest quantising operation; a2: second term, or NULL
  float *tap;
  const lora *loras;  // [slot][target]; rank 0 where there is none
  cache kv;
  const batch *b;
  attention_scratch *scratch;  // one per thread
  expert_scratch experts;
  probe probe;
  int32_t result;  // buffer of the result
  int32_t *best;   // NULL, or for each row of the result: where its largest element is, -1 if one is not finite
} program;

// A step under way: operations first .. last - 1 run now, and `stage` of their phases have begun.
typedef struct {
  const program *g;
  int threads, first, last, stage, is_ranked;
  product products[3];
  attention_args attention;
} step;

static void rms_norm(const float *x, const float *w, int n, float eps, float *y) {
  vf sum = vf_set1(0);
  float tail = 0;
  int i = 0;
  for (; i + LANES <= n; i += LANES) { vf v = vf_load(x + i); sum += v * v; }
  for (; i < n; i++) tail += x[i] * x[i];
  float inverse = 1.0f / sqrtf((vf_sum(sum) + tail) / (float)n + eps);
  for (i = 0; i + LANES <= n; i += LANES) vf_store(y + i, vf_load(x + i) * inverse * vf_load(w + i));
  for (; i < n; i++) y[i] = x[i] * inverse * w[i];
}

// table: cos (rot / 2), sin (rot / 2) of one position; dimension i turns with i + rot / 2.
static void rope_row(float *x, int heads, int dim, int rot, const float *table) {
  const float *cosine = table, *sine = table + rot / 2;
  for (int h = 0; h < heads; h++, x += dim) {
    int i = 0;
    for (; i + LANES <= rot / 2; i += LANES) {
      vf a = vf_load(x + i), b = vf_load(x + i + rot / 2), c = vf_load(cosine + i), s = vf_load(sine + i);
      vf_store(x + i, a * c - b * s);
      vf_store(x + i + rot / 2, b * c + a * s);
    }
    for (; i < rot / 2; i++) {
      float a = x[i], b = x[i + rot / 2];
      x[i] = a * cosine[i] - b * sine[i];
      x[i + rot / 2] = b * cosine[i] + a * sine[i];
    }
  }
}

static void gated_row(const float *gate, const float *up, int n, int gelu, float *y) {
  int i = 0;
  for (; i + LANES <= n; i += LANES) {
    vf v = vf_load(gate + i);
    vf_store(y + i, (gelu ? vf_gelu_tanh(v) : vf_silu(v)) * vf_load(up + i));
  }
  if (i < n) {
    float g[LANES] = {0}, u[LANES] = {0}, r[LANES];
    memcpy(g, gate + i, 4 * (size_t)(n - i));
    memcpy(u, up + i, 4 * (size_t)(n - i));
    vf v = vf_load(g);
    vf_store(r, (gelu ? vf_gelu_tanh(v) : vf_silu(v)) * vf_load(u));
    memcpy(y + i, r, 4 * (size_t)(n - i));
  }
}

INLINE float *row_of(const program *g, int buffer, int row) { return g->buffers[buffer] + (size_t)row * g->columns[buffer]; }

// One or two terms of row `at`. The second is made on the stack, in pieces.
static void quantize_terms(const float *x, int columns, block8 *a, block8 *a2, size_t at) {
  a += at * (columns / 32);
  if (!a2) { quantize_row(x, columns, a, NULL); return; }
  float rest[256];
  a2 += at * (columns / 32);
  for (int i = 0; i < columns; i += 256, x += 256, a += 8, a2 += 8) {
    int count = columns - i < 256 ? columns - i : 256;
    quantize_row(x, count, a, rest);
    quantize_row(rest, count, a2, NULL);
  }
}

static void run_row(const program *g, const op *o, int row) {
  const batch *b = g->b;
  float *y = o->code == TAP || o->out < 0 ? NULL : row_of(g, o->out, row);
  int n = o->columns;
  switch (o->code) {
    case EMBED:
      unpack_row(o->weights[0], b->tokens[row], y);
      if (o->f != 1) for (int i = 0; i < n; i++) y[i] *= o->f;
      break;
    case NORM: rms_norm(row_of(g, o->in, row), o->p, n, o->f, y); break;
    case HEAD_NORM:
      for (int h = 0; h < o->heads; h++) rms_norm(row_of(g, o->in, row) + h * n, o->p, n, o->f, y + h * n);
      break;
    case ROPE: rope_row(y, o->heads, n, o->count, (const float *)o->p + (size_t)b->rope_positions[row] * o->count); break;
    case WRITE_KV: write_kv_row(&g->kv, o->layer, b->slots[row], row_of(g, o->in, row), row_of(g, o->in2, row)); break;
    case GATED:
      gated_row(row_of(g, o->in, row), row_of(g, o->in2, row), n, o->layer, y);
      if (g->probe.activations) memcpy(g->probe.activations + ((size_t)o->count * b->rows + row) * n, y, 4 * (size_t)n);
      break;
    case ADD:
      for (int i = 0; i < n; i++) y[i] = row_of(g, o->in, row)[i] + row_of(g, o->in2, row)[i];
      break;
    case GATHER: memcpy(y, row_of(g, o->in, b->output_rows[row]), 4 * (size_t)n); break;
    case TAP:
      if (b->tap_layer == o->layer) memcpy(g->tap + (size_t)row * n, row_of(g, o->in, b->output_rows[row]), 4 * (size_t)n);
      break;
    case SOFTCAP:
      for (int i = 0; i < n; i++) y[i] = o->f * tanhf(y[i] / o->f);
      break;
  }
  if (o->flags) quantize_terms(o->code == QUANTIZE ? row_of(g, o->in, row) : y, n, g->a, g->a2, (size_t)row);
}

// Rows of the batch, a few rows to a piece.
INLINE int step_rows(const step *s) { return s->g->ops[s->first].on_outputs ? s->g->b->outputs : s->g->b->rows; }
INLINE int rows_per_piece(const step *s) { return step_rows(s) / (4 * s->threads) > 1 ? step_rows(s) / (4 * s->threads) : 1; }

static void rows_piece(void *job, int piece, int thread) {
  const step *s = job;
  (void)thread;
  int rows = step_rows(s), size = rows_per_piece(s), end = (piece + 1) * size < rows ? (piece + 1) * size : rows;
  for (int row = piece * size; row < end; row++)
    for (int i = s->first; i < s->last; i++) run_row(s->g, &s->g->ops[i], row);
}

static int rows_phase(step *s, phase *out) {
  if (s->stage) return 0;
  int rows = step_rows(s), size = rows_per_piece(s);
  *out = (phase){rows_piece, (rows + size - 1) / size};
  return 1;
}

static void lora_row(const lora *l, const float *x, int columns, float *y, int outputs) {
  for (int r = 0; r < l->rank; r++) {
    const float *a = l->a + (size_t)r * columns, *b = l->b + (size_t)r * outputs;
    vf sum = vf_set1(0);
    float t = 0;
    int i = 0;
    for (; i + LANES <= columns; i += LANES) sum += vf_load(a + i) * vf_load(x + i);
    for (; i < columns; i++) t += a[i] * x[i];
    t = (t + vf_sum(sum)) * l->scale;
    for (i = 0; i + LANES <= outputs; i += LANES) vf_store(y + i, vf_load(y + i) + vf_load(b + i) * t);
    for (; i < outputs; i++) y[i] += b[i] * t;
  }
}

// Where a thread will probably begin to read in the next phase of products; NULL: there is none.
static const uint8_t *weights_ahead(const step *s, int thread) {
  const program *g = s->g;
  int i = s->last;
  while (i < g->num_ops && g->ops[i].code != PRODUCTS) i++;
  if (i >= g->num_ops) return NULL;
  const matrix *w = g->ops[i].weights[0];
  return group_data(w, thread * groups_per_piece(matrix_groups(w), s->threads));
}

static void product_piece(void *job, int piece, int thread) {
  const step *s = job;
  gemm_piece(s->products, s->g->ops[s->first].count, s->threads, piece, weights_ahead(s, thread));
}

static void adapter_piece(void *job, int row, int thread) {
  const step *s = job;
  (void)thread;
  const program *g = s->g;
  const op *o = &g->ops[s->first];
  int slot = g->b->adapters[row];
  for (int i = 0; slot >= 0 && i < o->count; i++)
    lora_row(&g->loras[(size_t)slot * g->num_targets + o->targets[i]], row_of(g, o->in, row), o->columns,
             row_of(g, o->outs[i], row), o->weights[i]->rows);
}

static int products_phase(step *s, const op *o, phase *out) {
  const program *g = s->g;
  int rows = step_rows(s);
  if (s->stage == 0) {
    for (int i = 0; i < o->count; i++)
      s->products[i] = (product){{o->weights[i], o->biases[i], g->buffers[o->outs[i]], g->columns[o->outs[i]], o->adds[i]},
                                 {g->buffers[o->in], g->a, g->a2}, rows};
    *out = (phase){product_piece, gemm_pieces(s->products, o->count, s->threads)};
    return 1;
  }
  *out = (phase){adapter_piece, rows};
  return s->stage == 1 && g->b->has_adapters && !o->on_outputs;
}

static void attention_phase_piece(void *job, int piece, int thread) {
  const step *s = job;
  attention_piece(&s->g->kv, s->g->b, &s->attention, s->g->scratch + thread, s->threads, piece);
}

static void merge_phase_piece(void *job, int piece, int thread) {
  (void)thread;
  const step *s = job;
  merge_piece(&s->g->kv, s->g->b, &s->attention, piece);
}

static void importance_phase_piece(void *job, int piece, int thread) {
  const step *s = job;
  importance_piece(&s->g->kv, s->g->b, &s->attention, s->g->scratch + thread, &s->g->probe, thread, piece);
}

static int attention_phase(step *s, const op *o, phase *out) {
  const program *g = s->g;
  s->attention = (attention_args){g->buffers[o->in], g->buffers[o->out], o->heads, o->count, o->layer, o->f, o->g};
  if (s->stage == 0) *out = (phase){attention_phase_piece, attention_pieces(&g->kv, g->b, &s->attention, s->threads)};
  else if (s->stage == 1) *out = (phase){merge_phase_piece, merge_pieces(&g->kv, g->b, &s->attention, s->threads)};
  else *out = (phase){importance_phase_piece, g->kv.kv_heads};
  return s->stage < 2 || (s->stage == 2 && g->probe.importance);
}

// The k largest of softmax(router), ties to the lower index, ascending by expert.
static void choose_experts(const float *router, int experts, int k, int renormalize, int32_t *chosen, float *weight) {
  float top = router[0], total = 0, kept = 0;
  for (int e = 1; e < experts; e++) top = router[e] > top ? router[e] : top;
  for (int e = 0; e < experts; e++) total += expf(router[e] - top);
  int n = 0;
  for (int e = 0; e < experts; e++) {
    int better = 0;
    for (int f = 0; f < experts; f++) better += router[f] > router[e] || (router[f] == router[e] && f < e);
    if (better >= k) continue;
    chosen[n] = e;
    weight[n] = expf(router[e] - top) / total;
    kept += weight[n++];
  }
  if (renormalize) for (int i = 0; i < n; i++) weight[i] /= kept;
}

static void sort_rows(const expert_scratch *s, int rows, int experts, int k) {
  memset(s->starts, 0, 4 * (size_t)(experts + 1));
  for (int i = 0; i < rows * k; i++) s->starts[s->chosen[i] + 1]++;
  for (int e = 0; e < experts; e++) s->starts[e + 1] += s->starts[e];
  int32_t *next = s->starts + experts + 1;
  memcpy(next, s->starts, 4 * (size_t)experts);
  for (int i = 0; i < rows * k; i++) s->place[i] = next[s->chosen[i]]++;
}

// Products of every expert's rows of the sorted copy with `count` of its matrices.
static void expert_products(const step *s, const matrix *const *w, float *const *y, int count, rows_in in) {
  const program *g = s->g;
  const expert_scratch *e = &g->experts;
  for (int i = 0; i < g->ops[s->first].count; i++) {
    size_t at = (size_t)e->starts[i];
    rows_in from = from_row(in, w[0]->columns, at);
    for (int j = 0; j < count; j++)
      e->jobs[count * i + j] = (product){{w[j] + i, NULL, y[j] + at * w[j]->rows, w[j]->rows, 0}, from, e->starts[i + 1] - e->starts[i]};
  }
}

static void choose_piece(void *job, int row, int thread) {
  const step *s = job;
  (void)thread;
  const expert_scratch *e = &s->g->experts;
  const op *o = &s->g->ops[s->first];
  choose_experts(row_of(s->g, o->in2, row), o->count, o->heads, o->flags, e->chosen + row * o->heads, e->weight + row * o->heads);
}

static void copy_piece(void *job, int row, int thread) {
  const step *s = job;
  (void)thread;
  const program *g = s->g;
  const expert_scratch *e = &g->experts;
  const op *o = &g->ops[s->first];
  int k = o->heads, n = o->columns;
  for (int i = 0; i < k; i++) {
    size_t at = (size_t)e->place[row * k + i];
    if (((const matrix *)o->p)->pack >= PF32) memcpy(e->x + at * n, row_of(g, o->in, row), 4 * (size_t)n);
    else {
      size_t from = (size_t)row * (n / 32), to = at * (n / 32), size = (size_t)(n / 32) * sizeof(block8);
      memcpy(e->a + to, g->a + from, size);
      if (g->a2) memcpy(e->a2 + to, g->a2 + from, size);
    }
  }
}

static void expert_piece(void *job, int piece, int thread) {
  const step *s = job;
  (void)thread;
  int count = s->g->ops[s->first].count * (s->stage == 3 ? 2 : 1);  // the gate and up of each, or its down
  gemm_piece(s->g->experts.jobs, count, s->threads, piece, NULL);
}

static void expert_gated_piece(void *job, int i, int thread) {
  const step *s = job;
  (void)thread;
  const program *g = s->g;
  const op *o = &g->ops[s->first];
  int ffn = ((const matrix *)o->p)->rows;
  float *h = g->experts.gate + (size_t)i * ffn;
  gated_row(h, g->experts.up + (size_t)i * ffn, ffn, o->layer, h);
  if (o->weights[0]->pack < PF32) quantize_terms(h, ffn, g->experts.a, g->a2 ? g->experts.a2 : NULL, (size_t)i);
}

static void mix_piece(void *job, int row, int thread) {
  const step *s = job;
  (void)thread;
  const expert_scratch *e = &s->g->experts;
  const op *o = &s->g->ops[s->first];
  int k = o->heads, n = o->columns;
  float *y = row_of(s->g, o->out, row);
  memset(y, 0, 4 * (size_t)n);
  for (int i = 0; i < k; i++) {
    const float *from = e->down + (size_t)e->place[row * k + i] * n;
    for (int j = 0; j < n; j++) y[j] += e->weight[row * k + i] * from[j];
  }
}

// p: gate, p2: up, weights[0]: down matrices of each expert; heads: experts per token, count: experts.
static int experts_phase(step *s, const op *o, phase *out) {
  const program *g = s->g;
  const expert_scratch *e = &g->experts;
  const matrix *in[2] = {o->p, o->p2}, *down[1] = {o->weights[0]};
  float *gate_up[2] = {e->gate, e->up}, *result[1] = {e->down};
  const block8 *a2 = g->a2 ? e->a2 : NULL;
  int rows = g->b->rows;
  switch (s->stage) {
    case 0: *out = (phase){choose_piece, rows}; return 1;
    case 1:
      sort_rows(e, rows, o->count, o->heads);
      *out = (phase){copy_piece, rows};
      return 1;
    case 2:
      expert_products(s, in, gate_up, 2, (rows_in){e->x, e->a, a2});
      *out = (phase){expert_piece, gemm_pieces(e->jobs, 2 * o->count, s->threads)};
      return 1;
    case 3: *out = (phase){expert_gated_piece, rows * o->heads}; return 1;
    case 4:
      expert_products(s, down, result, 1, (rows_in){e->gate, e->a, a2});
      *out = (phase){expert_piece, gemm_pieces(e->jobs, o->count, s->threads)};
      return 1;
    case 5: *out = (phase){mix_piece, rows}; return 1;
    default: return 0;
  }
}

// The first of the largest elements; -1 where one is NaN or the largest is infinite.
static int best_of(const float *x, int n) {
  vf top = vf_set1(-INFINITY), sum = vf_set1(0);
  int i = 0;
  for (; i + LANES <= n; i += LANES) {
    vf v = vf_load(x + i);
    top = vf_max(top, v);
    sum += v * 0.0f;  // NaN once anything is NaN or infinite
  }
  float largest = vf_hmax(top), odd = vf_sum(sum);
  for (; i < n; i++) {
    largest = x[i] > largest ? x[i] : largest;
    odd += x[i] * 0.0f;
  }
  if (odd != 0) return -1;
  for (i = 0; i + 8 * LANES <= n; i += 8 * LANES) {
    vf most = vf_load(x + i);
    for (int j = 1; j < 8; j++) most = vf_max(most, vf_load(x + i + j * LANES));
    if (vf_hmax(most) == largest) break;
  }
  while (x[i] != largest) i++;
  return i;
}

static void best_piece(void *job, int row, int thread) {
  const program *g = ((const step *)job)->g;
  (void)thread;
  g->best[row] = best_of(row_of(g, g->result, row), g->columns[g->result]);
}

static int step_next(void *job, phase *out) {
  step *s = job;
  const program *g = s->g;
  for (; s->first < g->num_ops; s->first = s->last, s->stage = 0) {
    if (s->stage == 0 && s->first == g->probe.skip_from) s->first = g->probe.skip_to;
    const op *o = &g->ops[s->first];
    s->last = s->first + 1;
    while (o->code < ROW_OPS && s->last < g->num_ops && g->ops[s->last].code < ROW_OPS && g->ops[s->last].on_outputs == o->on_outputs)
      s->last++;
    int found = o->code < ROW_OPS      ? rows_phase(s, out)
                : o->code == PRODUCTS  ? products_phase(s, o, out)
                : o->code == ATTENTION ? attention_phase(s, o, out)
                                       : experts_phase(s, o, out);
    if (found) { s->stage++; return 1; }
  }
  if (!g->best || s->is_ranked) return 0;
  s->is_ranked = 1;
  *out = (phase){best_piece, g->b->outputs};
  return 1;
}

void shoal_run(pool *p, const program *g) {
  step s = {.g = g, .threads = p->threads};
  pool_run(p, step_next, &s);
}

int64_t shoal_sizeof(int what) {
  switch (what) {
    case 0: return sizeof(op);
    case 1: return sizeof(program);
    case 2: return sizeof(batch);
    case 3: return sizeof(matrix);
    case 4: return sizeof(attention_scratch);
    case 5: return sizeof(block8);
    case 6: return sizeof(product);
    case 7: return sizeof(cache);
    case 8: return sizeof(lora);
    case 9: return SEGMENT;
    case 10: return SPLIT_ROWS;
    default: return LANES;
  }
}

// For tests: quantised rows as the kernels see them; a row of a packed matrix.
void shoal_quantize_rows(const float *x, int rows, int columns, int8_t *q, float *d) {
  block8 block;
  for (int i = 0; i < rows * (columns / 32); i++) {
    quantize_row(x + 32 * (size_t)i, 32, &block, NULL);
    memcpy(q + 32 * (size_t)i, block.q, 32);
    d[i] = block.d;
  }
}
void shoal_unpack_row(const matrix *w, int row, float *y) { unpack_row(w, row, y); }
