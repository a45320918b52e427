// A network as a list of operations, recorded once and run with one call per step.
//
// Operations on rows (norms, rotations, cache writes, ...) that follow one another form a run: a thread takes some rows
// through the whole run, then all meet. Products and attention are phases of their own.
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
} program;

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
  for (int h = 0; h < heads; h++, x += dim)
    for (int i = 0; i < rot / 2; i++) {
      float a = x[i], b = x[i + rot / 2];
      x[i] = a * cosine[i] - b * sine[i];
      x[i + rot / 2] = b * cosine[i] + a * sine[i];
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

// Runs ops first .. last - 1 over the rows, a few rows at a time.
static void rows_phase(pool *p, const program *g, int first, int last) {
  int rows = g->ops[first].on_outputs ? g->b->outputs : g->b->rows, size = rows / (4 * p->threads);
  if (size < 1) size = 1;
  for (int piece; (piece = pool_take(p, (rows + size - 1) / size)) >= 0;) {
    int end = (piece + 1) * size < rows ? (piece + 1) * size : rows;
    for (int row = piece * size; row < end; row++)
      for (int i = first; i < last; i++) run_row(g, &g->ops[i], row);
  }
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

static void products_phase(pool *p, const program *g, const op *o) {
  const batch *b = g->b;
  int rows = o->on_outputs ? b->outputs : b->rows;
  product jobs[3];
  for (int i = 0; i < o->count; i++)
    jobs[i] = (product){{o->weights[i], o->biases[i], g->buffers[o->outs[i]], g->columns[o->outs[i]], o->adds[i]},
                        {g->buffers[o->in], g->a, g->a2}, rows};
  gemm_phase(p, jobs, o->count);
  if (!b->has_adapters || o->on_outputs) return;
  pool_barrier(p);
  for (int row; (row = pool_take(p, rows)) >= 0;) {
    int slot = b->adapters[row];
    for (int i = 0; slot >= 0 && i < o->count; i++)
      lora_row(&g->loras[(size_t)slot * g->num_targets + o->targets[i]], row_of(g, o->in, row), o->columns,
               row_of(g, o->outs[i], row), o->weights[i]->rows);
  }
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

// p: gate, p2: up, weights[0]: down matrices of each expert; heads: experts per token, count: experts.
static void experts_phase(pool *p, const program *g, const op *o, int thread) {
  const expert_scratch *s = &g->experts;
  const matrix *gate = o->p, *up = o->p2, *down = o->weights[0];
  int rows = g->b->rows, experts = o->count, k = o->heads, n = o->columns, ffn = gate->rows;
  int is_float = gate->pack >= PF32, down_float = down->pack >= PF32;
  for (int row; (row = pool_take(p, rows)) >= 0;)
    choose_experts(row_of(g, o->in2, row), experts, k, o->flags, s->chosen + row * k, s->weight + row * k);
  pool_barrier(p);
  if (thread == 0) sort_rows(s, rows, experts, k);
  pool_barrier(p);
  for (int row; (row = pool_take(p, rows)) >= 0;)
    for (int i = 0; i < k; i++) {
      size_t at = (size_t)s->place[row * k + i];
      if (is_float) memcpy(s->x + at * n, row_of(g, o->in, row), 4 * (size_t)n);
      else {
        size_t from = (size_t)row * (n / 32), to = at * (n / 32), size = (size_t)(n / 32) * sizeof(block8);
        memcpy(s->a + to, g->a + from, size);
        if (g->a2) memcpy(s->a2 + to, g->a2 + from, size);
      }
    }
  if (thread == 0)
    for (int e = 0; e < experts; e++) {
      size_t at = (size_t)s->starts[e];
      int count = s->starts[e + 1] - s->starts[e];
      rows_in in = from_row((rows_in){s->x, s->a, g->a2 ? s->a2 : NULL}, n, at);
      s->jobs[2 * e] = (product){{gate + e, NULL, s->gate + at * ffn, ffn, 0}, in, count};
      s->jobs[2 * e + 1] = (product){{up + e, NULL, s->up + at * ffn, ffn, 0}, in, count};
    }
  pool_barrier(p);
  gemm_phase(p, s->jobs, 2 * experts);
  pool_barrier(p);
  for (int i; (i = pool_take(p, rows * k)) >= 0;) {
    float *h = s->gate + (size_t)i * ffn;
    gated_row(h, s->up + (size_t)i * ffn, ffn, o->layer, h);
    if (!down_float) quantize_terms(h, ffn, s->a, g->a2 ? s->a2 : NULL, (size_t)i);
  }
  if (thread == 0)
    for (int e = 0; e < experts; e++) {
      size_t at = (size_t)s->starts[e];
      rows_in in = from_row((rows_in){s->gate, s->a, g->a2 ? s->a2 : NULL}, ffn, at);
      s->jobs[e] = (product){{down + e, NULL, s->down + at * n, n, 0}, in, s->starts[e + 1] - s->starts[e]};
    }
  pool_barrier(p);
  gemm_phase(p, s->jobs, experts);
  pool_barrier(p);
  for (int row; (row = pool_take(p, rows)) >= 0;) {
    float *y = row_of(g, o->out, row);
    memset(y, 0, 4 * (size_t)n);
    for (int i = 0; i < k; i++) {
      const float *from = s->down + (size_t)s->place[row * k + i] * n;
      for (int j = 0; j < n; j++) y[j] += s->weight[row * k + i] * from[j];
    }
  }
}

static void run_thread(pool *p, int thread, void *argument) {
  const program *g = argument;
  for (int i = 0; i < g->num_ops;) {
    if (i == g->probe.skip_from) i = g->probe.skip_to;
    const op *o = &g->ops[i];
    int last = i + 1;
    if (o->code < ROW_OPS) {
      while (last < g->num_ops && g->ops[last].code < ROW_OPS && g->ops[last].on_outputs == o->on_outputs) last++;
      rows_phase(p, g, i, last);
    } else if (o->code == PRODUCTS) {
      products_phase(p, g, o);
    } else if (o->code == ATTENTION) {
      attention_args a = {g->buffers[o->in], g->buffers[o->out], o->heads, o->count, o->layer, o->f, o->g};
      attention_phase(p, &g->kv, g->b, &a, g->scratch + thread);
      if (g->probe.importance) {
        pool_barrier(p);
        importance_phase(p, &g->kv, g->b, &a, g->scratch + thread, &g->probe, thread);
      }
    } else {
      experts_phase(p, g, o, thread);
    }
    i = last;
    if (i < g->num_ops) pool_barrier(p);
  }
}

void shoal_run(pool *p, const program *g) { pool_run(p, run_thread, (void *)g); }

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
    default: return LANES;
  }
}

// Copies whole blocks of keys and values in every layer.
void shoal_copy_blocks(const cache *c, int layers, int blocks, const int32_t *pairs, int count) {
  size_t size = (size_t)(c->layer_bytes / blocks);
  for (int l = 0; l < layers; l++)
    for (int i = 0; i < count; i++) {
      size_t base = (size_t)l * c->layer_bytes, from = base + pairs[2 * i] * size, to = base + pairs[2 * i + 1] * size;
      memcpy(c->k + to, c->k + from, size);
      memcpy(c->v + to, c->v + from, size);
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
