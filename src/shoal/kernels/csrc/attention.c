// Causal attention over a paged cache, for prefill chunks and decode rows alike.
//
// Rows (a query and one of its heads each) that share a KV head are taken six at a time through chunks of 64 keys with an
// online softmax; many rows share one conversion of a chunk to floats, few read the cache as it is. Every 256 keys are a
// segment with sums of its own, and a row's segments are folded in order; so segments may be computed by several threads.
//
// Rules that stay true in this file:
// - chunks and segments are counted from position 0, a row's sums run over positions in order, and a masked position adds
//   exactly zero: a row's result is the same alone, in a prefill of any chunking, and with any other rows;
// - `softmax_row` and `fold` exist once, not inlined, so that no compiler rounds them in two ways.

enum { CHUNK = 64, GROUPS = CHUNK / KEYS, SEGMENT = 256, TILE_ROWS = 6, MAX_ROWS = 192, MAX_DIM = 256, SPLIT_ROWS = 64 };

typedef struct {
  const int32_t *tokens, *positions, *slots, *query_start, *context_lens, *block_tables, *adapters, *output_rows;
  const int32_t *rope_positions;  // `positions` count cached keys; rotations may count more, where keys were dropped
  float *partials;                // [row][head][segments][head_dim + 2]: sums, maximum, total; of few rows only
  int32_t rows, seqs, max_blocks, outputs, tap_layer, has_adapters, segments;
} batch;

typedef struct {
  float q[MAX_ROWS * MAX_DIM], o[MAX_ROWS * MAX_DIM], total[MAX_ROWS * MAX_DIM];  // o: of a segment, total: of those before
  float max[MAX_ROWS], sum[MAX_ROWS * LANES], total_max[MAX_ROWS], total_sum[MAX_ROWS];
  float s[TILE_ROWS * CHUNK], k[MAX_DIM * CHUNK], v[MAX_DIM * CHUNK], k_scale[CHUNK], v_scale[CHUNK];
} attention_scratch;

typedef struct {
  const float *q;  // rows x (heads * head_dim)
  float *out;
  int heads, window, layer;
  float scale, softcap;
} attention_args;

// Sixteen keys and sixteen values per group, as they are cached or as floats in scratch memory.
// The groups after them are fetched meanwhile, since few rows wait for memory.
typedef struct { const uint8_t *k[GROUPS], *v[GROUPS], *next_k[GROUPS], *next_v[GROUPS]; int type; } chunk;

enum { WIDE = LANES == 16 ? 4 : 2 };  // vectors of accumulators per row: 6 x 4 of 32 registers, 6 x 2 of 16

// s[r][0 .. C * LANES) = q[r] . K, from vector `at` of the chunk on.
INLINE void score_vectors(const int R, const int C, const int type, const float *q, int dim, const chunk *c, int at, float *s) {
  vf acc[TILE_ROWS][WIDE];
  const uint8_t *k[WIDE], *next[WIDE];
#pragma GCC unroll 4
  for (int j = 0; j < C; j++) {
    size_t skip = (size_t)((at + j) % KV) * LANES * element_bytes(type);
    k[j] = c->k[(at + j) / KV] + skip;
    next[j] = c->next_k[(at + j) / KV] + skip;
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; r++)
#pragma GCC unroll 4
    for (int j = 0; j < C; j++) acc[r][j] = vf_set1(0);
  for (int d = 0; d < dim; d++) {
    vf key[WIDE];
#pragma GCC unroll 4
    for (int j = 0; j < C; j++) {
      key[j] = kv_load(k[j], (size_t)d * KEYS, type);
      if (R < TILE_ROWS) __builtin_prefetch(next[j] + (size_t)d * KEYS * element_bytes(type));
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
      vf x = vf_set1(q[r * dim + d]);
#pragma GCC unroll 4
      for (int j = 0; j < C; j++) acc[r][j] += key[j] * x;
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; r++)
#pragma GCC unroll 4
    for (int j = 0; j < C; j++) vf_store(s + r * CHUNK + (at + j) * LANES, acc[r][j]);
}

// o[r][d .. d + C * LANES) += p[r] . V over the chunk's first `count` keys.
INLINE void value_vectors(const int R, const int C, const int type, const float *p, int dim, const chunk *c, int count, int d, float *o) {
  vf acc[TILE_ROWS][WIDE];
#pragma GCC unroll 8
  for (int r = 0; r < R; r++)
#pragma GCC unroll 4
    for (int j = 0; j < C; j++) acc[r][j] = vf_load(o + r * dim + d + j * LANES);
  for (int g = 0; g * KEYS < count; g++) {
    int keys = count - g * KEYS < KEYS ? count - g * KEYS : KEYS;
    const float *weight = p + g * KEYS;
    const uint8_t *v = c->v[g], *next = c->next_v[g];
    for (int i = 0; i < keys; i++) {
      vf value[WIDE];
#pragma GCC unroll 4
      for (int j = 0; j < C; j++) {
        value[j] = kv_load(v, (size_t)i * dim + d + j * LANES, type);
        if (R < TILE_ROWS) __builtin_prefetch(next + ((size_t)i * dim + d + j * LANES) * element_bytes(type));
      }
#pragma GCC unroll 8
      for (int r = 0; r < R; r++) {
        vf x = vf_set1(weight[r * CHUNK + i]);
#pragma GCC unroll 4
        for (int j = 0; j < C; j++) acc[r][j] += value[j] * x;
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; r++)
#pragma GCC unroll 4
    for (int j = 0; j < C; j++) vf_store(o + r * dim + d + j * LANES, acc[r][j]);
}

#define DEFINE_BLOCK(R, TYPE)                                                                                     \
  static void scores_##R##_##TYPE(const float *q, int dim, const chunk *c, int groups, float *s) {               \
    int at = 0, vectors = groups * KV;                                                                            \
    for (; at + WIDE <= vectors; at += WIDE) score_vectors(R, WIDE, TYPE, q, dim, c, at, s);                      \
    if (WIDE > 2 && at + 2 <= vectors) { score_vectors(R, 2, TYPE, q, dim, c, at, s); at += 2; }                  \
    if (at < vectors) score_vectors(R, 1, TYPE, q, dim, c, at, s);                                                \
  }                                                                                                               \
  static void values_##R##_##TYPE(const float *p, int dim, const chunk *c, int count, float *o) {                \
    int d = 0;                                                                                                    \
    for (; d + WIDE * LANES <= dim; d += WIDE * LANES) value_vectors(R, WIDE, TYPE, p, dim, c, count, d, o);      \
    if (WIDE > 2 && d + 2 * LANES <= dim) { value_vectors(R, 2, TYPE, p, dim, c, count, d, o); d += 2 * LANES; }  \
    if (d < dim) value_vectors(R, 1, TYPE, p, dim, c, count, d, o);                                               \
  }
#define DEFINE_BLOCKS(TYPE) DEFINE_BLOCK(1, TYPE) DEFINE_BLOCK(2, TYPE) DEFINE_BLOCK(3, TYPE) DEFINE_BLOCK(6, TYPE)
DEFINE_BLOCKS(KV_F32)
DEFINE_BLOCKS(KV_F16)
DEFINE_BLOCKS(KV_INT8)

typedef struct {
  void (*scores)(const float *q, int dim, const chunk *c, int groups, float *s);  // [row][CHUNK] of s, in whole groups
  void (*values)(const float *p, int dim, const chunk *c, int count, float *o);
} block;
#define BLOCK(R, TYPE) {scores_##R##_##TYPE, values_##R##_##TYPE}
#define BLOCKS(TYPE) {BLOCK(1, TYPE), BLOCK(2, TYPE), BLOCK(3, TYPE), BLOCK(6, TYPE)}
static const block BLOCK_OF[3][4] = {BLOCKS(KV_F32), BLOCKS(KV_F16), BLOCKS(KV_INT8)};

// Rows of the next block when `left` are left, and its functions.
INLINE int block_rows(int left) { return left >= 6 ? 6 : left >= 3 ? 3 : left; }
INLINE const block *block_of(int type, int rows) { return &BLOCK_OF[type][rows == 6 ? 3 : rows - 1]; }

// Scores of one row and chunk, keys low .. high - 1 of them visible, become weights in units of the row's maximum; the
// row's maximum, total and sums so far are brought to the same unit. Scores are in bits: powers of two.
static __attribute__((noinline)) void softmax_row(attention_scratch *t, float *s, int r, int dim, int vectors, int low, int high,
                                                  float softcap, int is_scaled) {
  vf v[CHUNK / LANES], top = vf_set1(-INFINITY), lane = vf_from_int(vi_iota());
  int is_masked = low > 0 || high < vectors * LANES;
  for (int j = 0; j < vectors; j++) {
    v[j] = vf_load(s + j * LANES);
    if (is_scaled) v[j] *= vf_load(t->k_scale + j * LANES);
    if (softcap != 0) v[j] = vf_tanh(v[j]) * softcap;
    if (is_masked) {
      vf at = lane + (float)(j * LANES);
      v[j] = vf_select((at >= (float)low) & (at < (float)high), v[j], vf_set1(-INFINITY));
    }
    top = vf_max(top, v[j]);
  }
  float highest = vf_hmax(top), *o = t->o + r * dim;
  vf sum = vf_load(t->sum + r * LANES);
  if (highest > t->max[r]) {
    vf scale = vf_exp2(vf_set1(t->max[r] - highest));
    t->max[r] = highest;
    sum *= scale;
    for (int d = 0; d < dim; d += LANES) vf_store(o + d, vf_load(o + d) * scale);
  }
  vf shift = vf_set1(t->max[r] == -INFINITY ? 0 : t->max[r]);
  for (int j = 0; j < vectors; j++) {
    v[j] = vf_exp2(v[j] - shift);
    sum += v[j];
    if (is_scaled) {
      v[j] *= vf_load(t->v_scale + j * LANES);
      vf at = lane + (float)(j * LANES);
      if (is_masked) v[j] = vf_select((at >= (float)low) & (at < (float)high), v[j], vf_set1(0));  // there may be no scale
    }
    vf_store(s + j * LANES, v[j]);
  }
  vf_store(t->sum + r * LANES, sum);
}

// Adds a segment's sums, maximum and total to those of the segments before it.
static __attribute__((noinline)) void fold(float *total, float *total_max, float *total_sum, const float *o, float max, float sum, int dim) {
  if (max == -INFINITY) return;
  float top = max > *total_max ? max : *total_max;
  vf before = vf_exp2(vf_set1(*total_max - top)), now = vf_exp2(vf_set1(max - top));
  *total_max = top;
  *total_sum = *total_sum * before[0] + sum * now[0];
  for (int d = 0; d < dim; d += LANES) vf_store(total + d, vf_load(total + d) * before + vf_load(o + d) * now);
}

// What one thread takes at once: queries first .. first + count - 1 of a sequence, query heads from .. to - 1 of a KV head.
typedef struct { int seq, head, first, count, from, to, segment; } piece;  // segment -1: all

INLINE size_t query_offset(const cache *c, const batch *b, const attention_args *a, const piece *p, int r) {
  int heads = p->to - p->from, group = a->heads / c->kv_heads;
  size_t row = (size_t)(b->query_start[p->seq] + p->first + r / heads);
  return row * a->heads + p->head * group + p->from + r % heads;
}

static void load_queries(const cache *c, const batch *b, const attention_args *a, const piece *p, attention_scratch *t, int rows) {
  float scale = a->softcap != 0 ? a->scale / a->softcap : a->scale * 1.44269504088896341f;
  for (int r = 0; r < rows; r++) {
    const float *q = a->q + query_offset(c, b, a, p, r) * c->head_dim;
    for (int d = 0; d < c->head_dim; d += LANES) vf_store(t->q + r * c->head_dim + d, vf_load(q + d) * scale);
  }
}

// Keys key .. key + 16 * groups - 1, multiples of 16 from position 0.
static chunk load_chunk(const cache *c, int layer, const int32_t *table, int head, int key, int groups, attention_scratch *t, int as_floats) {
  chunk out = {.type = as_floats ? KV_F32 : c->type};
  int size = KEYS * c->head_dim;
  for (int g = 0; g < groups; g++) {
    int at = key + g * KEYS, block = table[at / c->block_size];
    size_t offset = kv_offset(c, layer, block, head, at % c->block_size);
    out.k[g] = c->k + offset, out.v[g] = c->v + offset;
    if (c->type == KV_INT8) {
      size_t scales = scale_offset(c, layer, block, head, at % c->block_size);
      memcpy(t->k_scale + g * KEYS, c->k + scales, 4 * KEYS);
      memcpy(t->v_scale + g * KEYS, c->v + scales, 4 * KEYS);
    }
    if (!as_floats || c->type == KV_F32) continue;
    float *k = t->k + g * size, *v = t->v + g * size;
    for (int i = 0; i < size; i += LANES) vf_store(k + i, kv_load(out.k[g], (size_t)i, c->type)), vf_store(v + i, kv_load(out.v[g], (size_t)i, c->type));
    out.k[g] = (const uint8_t *)k, out.v[g] = (const uint8_t *)v;
  }
  memcpy(out.next_k, out.k, sizeof out.k);
  memcpy(out.next_v, out.v, sizeof out.v);
  return out;
}

static void point_at_next(chunk *now, const cache *c, int layer, const int32_t *table, int head, int key, int end) {
  for (int g = 0; g < GROUPS && key < end; g++, key += KEYS) {
    size_t offset = kv_offset(c, layer, table[key / c->block_size], head, key % c->block_size);
    now->next_k[g] = c->k + offset, now->next_v[g] = c->v + offset;
  }
}

// Sums of the rows over the keys begin .. end - 1, which lie in one segment.
static void attend_segment(const cache *c, const batch *b, const attention_args *a, const piece *p, attention_scratch *t, int begin, int end) {
  int dim = c->head_dim, heads = p->to - p->from, rows = p->count * heads;
  int start = b->positions[b->query_start[p->seq] + p->first];
  const int32_t *table = b->block_tables + (size_t)p->seq * b->max_blocks;
  float cap = a->softcap * 1.44269504088896341f;
  memset(t->o, 0, 4 * (size_t)(rows * dim));
  memset(t->sum, 0, 4 * (size_t)(rows * LANES));
  for (int r = 0; r < rows; r++) t->max[r] = -INFINITY;
  for (int key = begin; key < end; key += CHUNK) {
    int keys = end - key < CHUNK ? end - key : CHUNK;
    chunk now = load_chunk(c, a->layer, table, p->head, key, (keys + KEYS - 1) / KEYS, t, rows > TILE_ROWS);
    if (rows <= TILE_ROWS && key + CHUNK < end) point_at_next(&now, c, a->layer, table, p->head, key + CHUNK, end);
    for (int r = 0, n; r < rows; r += n) {
      n = block_rows(rows - r);
      int last = start + (r + n - 1) / heads, seen = last + 1 - key < keys ? last + 1 - key : keys;
      if (seen <= 0 || (a->window && start + r / heads - a->window + 1 >= key + keys)) continue;
      int groups = (seen + KEYS - 1) / KEYS;
      const block *run = block_of(now.type, n);
      run->scores(t->q + r * dim, dim, &now, groups, t->s);
      for (int i = 0; i < n; i++) {
        int position = start + (r + i) / heads, low = a->window ? position - a->window + 1 - key : 0;
        softmax_row(t, t->s + i * CHUNK, r + i, dim, groups * KV, low, position + 1 - key, cap, c->type == KV_INT8);
      }
      run->values(t->s, dim, &now, seen, t->o + r * dim);
    }
  }
}

static void attend(const cache *c, const batch *b, const attention_args *a, const piece *p, attention_scratch *t) {
  int dim = c->head_dim, rows = p->count * (p->to - p->from);
  int start = b->positions[b->query_start[p->seq] + p->first], end = start + p->count;
  int begin = a->window && start - a->window + 1 > 0 ? (start - a->window + 1) / CHUNK * CHUNK : 0;
  load_queries(c, b, a, p, t, rows);
  memset(t->total, 0, 4 * (size_t)(rows * dim));
  for (int r = 0; r < rows; r++) t->total_max[r] = -INFINITY, t->total_sum[r] = 0;
  int first = p->segment < 0 ? begin / SEGMENT : p->segment, last = p->segment < 0 ? (end - 1) / SEGMENT : p->segment;
  for (int segment = first; segment <= last; segment++) {
    int from = segment * SEGMENT, to = from + SEGMENT < end ? from + SEGMENT : end;
    attend_segment(c, b, a, p, t, from < begin ? begin : from, to);
    for (int r = 0; r < rows; r++) {
      float sum = vf_sum(vf_load(t->sum + r * LANES)), *o = t->o + r * dim;
      if (p->segment < 0) { fold(t->total + r * dim, t->total_max + r, t->total_sum + r, o, t->max[r], sum, dim); continue; }
      float *part = b->partials + (query_offset(c, b, a, p, r) * b->segments + segment) * (dim + 2);
      memcpy(part, o, 4 * (size_t)dim);
      part[dim] = t->max[r], part[dim + 1] = sum;
    }
  }
  for (int r = 0; r < rows && p->segment < 0; r++) {
    float *out = a->out + query_offset(c, b, a, p, r) * dim;
    for (int d = 0; d < dim; d += LANES) vf_store(out + d, vf_load(t->total + r * dim + d) * (1 / t->total_sum[r]));
  }
}

// How sequence `seq` is cut: runs of `most` queries, `step` heads of a group at once, segments apart or (0) together.
typedef struct { int queries, most, step, segments, pieces; } attention_cut;

static attention_cut cut_attention(const cache *c, const batch *b, const attention_args *a, int is_split, int seq) {
  int group = a->heads / c->kv_heads, step = group > MAX_ROWS ? 1 : group, most = MAX_ROWS / step;
  int queries = b->query_start[seq + 1] - b->query_start[seq], runs = (queries + most - 1) / most;
  int segments = is_split ? (b->context_lens[seq] + SEGMENT - 1) / SEGMENT : 0;
  return (attention_cut){queries, most, step, segments, runs * c->kv_heads * (group / step) * (segments ? segments : 1)};
}

static int count_pieces(const cache *c, const batch *b, const attention_args *a, int is_split) {
  int pieces = 0;
  for (int seq = 0; seq < b->seqs; seq++) pieces += cut_attention(c, b, a, is_split, seq).pieces;
  return pieces;
}

// Whether segments go to different threads: where there is too little else to share out.
static int is_split(const cache *c, const batch *b, const attention_args *a, int threads) {
  return threads > 1 && b->rows <= SPLIT_ROWS && b->segments > 1 && count_pieces(c, b, a, 0) < 4 * threads;
}

static int attention_pieces(const cache *c, const batch *b, const attention_args *a, int threads) {
  return count_pieces(c, b, a, is_split(c, b, a, threads));
}

static void attention_piece(const cache *c, const batch *b, const attention_args *a, attention_scratch *t, int threads, int number) {
  int split = is_split(c, b, a, threads), seq = b->seqs - 1;  // last first: the scheduler puts long prefills at the end
  attention_cut cut = cut_attention(c, b, a, split, seq);
  for (; number >= cut.pieces; cut = cut_attention(c, b, a, split, --seq)) number -= cut.pieces;
  int segments = cut.segments ? cut.segments : 1, steps = a->heads / c->kv_heads / cut.step;
  int segment = number % segments, from = number / segments % steps * cut.step, head = number / segments / steps % c->kv_heads;
  int run = number / segments / steps / c->kv_heads, first = ((cut.queries - 1) / cut.most - run) * cut.most;  // the longest run first
  int count = cut.queries - first < cut.most ? cut.queries - first : cut.most;
  attend(c, b, a, &(piece){seq, head, first, count, from, from + cut.step, cut.segments ? segment : -1}, t);
}

// After all pieces, where segments went apart: a piece is a row of the batch.
static int merge_pieces(const cache *c, const batch *b, const attention_args *a, int threads) {
  return is_split(c, b, a, threads) ? b->rows : 0;
}

static void merge_piece(const cache *c, const batch *b, const attention_args *a, int row) {
  int dim = c->head_dim, segments = b->positions[row] / SEGMENT + 1;
  for (int h = 0; h < a->heads; h++) {
    size_t at = (size_t)row * a->heads + h;
    const float *part = b->partials + at * b->segments * (dim + 2);
    float total[MAX_DIM] = {0}, max = -INFINITY, sum = 0;
    for (int s = 0; s < segments; s++, part += dim + 2) fold(total, &max, &sum, part, part[dim], part[dim + 1], dim);
    for (int d = 0; d < dim; d += LANES) vf_store(a->out + at * dim + d, vf_load(total + d) * (1 / sum));
  }
}
