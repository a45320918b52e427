// Causal attention over a paged cache, for prefill chunks and decode rows alike.
//
// Cache of one layer, element type float or half:
//   K  [block][kv head][block_size / 16][head_dim][16]   sixteen keys side by side
//   V  [block][kv head][block_size][head_dim]
// Keys are visited in chunks of 64 positions counted from position 0 with an online softmax. A row's sums run over
// positions in order, and a masked position adds exactly zero; so its result is the same whether it is computed alone,
// in a prefill of any chunking, or with any other rows.

enum { KEYS = 16, CHUNK = 64, GROUPS = CHUNK / KEYS, MAX_ROWS = 64 };

typedef struct {
  uint8_t *k, *v;  // all layers
  int32_t block_size, kv_heads, head_dim, is_half;
  int64_t layer_bytes;  // of k, and of v
} cache;

typedef struct {
  const int32_t *tokens, *positions, *slots, *query_start, *context_lens, *block_tables, *adapters, *output_rows;
  const int32_t *rope_positions;  // `positions` count cached keys; rotations may count more, where keys were dropped
  int32_t rows, seqs, max_blocks, outputs, tap_layer, has_adapters;
} batch;

typedef struct { float q[MAX_ROWS * 256], s[MAX_ROWS * CHUNK], o[MAX_ROWS * 256], k[256 * CHUNK], v[256 * CHUNK], max[MAX_ROWS], sum[MAX_ROWS]; } attention_scratch;

typedef struct {
  const float *q;  // rows x (heads * head_dim)
  float *out;
  int heads, window, layer;
  float scale, softcap;
} attention_args;

INLINE size_t element_bytes(const cache *c) { return c->is_half ? 2 : 4; }

// Offset, in elements, of key group `position / 16` (K) or of the position itself (V).
INLINE size_t k_offset(const cache *c, int block, int head, int in_block) {
  return (((size_t)block * c->kv_heads + head) * (c->block_size / KEYS) + in_block / KEYS) * c->head_dim * KEYS;
}
INLINE size_t v_offset(const cache *c, int block, int head, int in_block) {
  return (((size_t)block * c->kv_heads + head) * c->block_size + in_block) * c->head_dim;
}

static void write_kv_row(const cache *c, int layer, int slot, const float *k, const float *v) {
  int block = slot / c->block_size, at = slot % c->block_size;
  size_t width = element_bytes(c);
  for (int h = 0; h < c->kv_heads; h++, k += c->head_dim, v += c->head_dim) {
    uint8_t *kp = c->k + layer * c->layer_bytes + (k_offset(c, block, h, at) + at % KEYS) * width;
    uint8_t *vp = c->v + layer * c->layer_bytes + v_offset(c, block, h, at) * width;
    if (c->is_half) {
      for (int d = 0; d < c->head_dim; d++) {
        ((uint16_t *)kp)[d * KEYS] = float_to_half(k[d]);
        ((uint16_t *)vp)[d] = float_to_half(v[d]);
      }
    } else {
      for (int d = 0; d < c->head_dim; d++) ((float *)kp)[d * KEYS] = k[d];
      memcpy(vp, v, 4 * (size_t)c->head_dim);
    }
  }
}

INLINE const float *as_floats(const uint8_t *p, int is_half, float *scratch, int count) {
  if (!is_half) return (const float *)p;
  for (int i = 0; i < count; i += LANES) vf_store(scratch + i, vf_from_half((const uint16_t *)p + i));
  return scratch;
}

enum { KV = KEYS / LANES };  // vectors per key group

// scores[r][0..15] = q[r] . K for R rows and one group of sixteen keys.
#define DEFINE_SCORES(R)                                                                     \
  static void scores##R(const float *q, int dim, const float *k, float *s) {                 \
    vf acc[R][KV];                                                                           \
    for (int r = 0; r < R; r++)                                                              \
      for (int j = 0; j < KV; j++) acc[r][j] = vf_set1(0);                                   \
    for (int d = 0; d < dim; d++)                                                            \
      _Pragma("GCC unroll 2") for (int j = 0; j < KV; j++) {                                 \
        vf key = vf_load(k + d * KEYS + j * LANES);                                          \
        _Pragma("GCC unroll 8") for (int r = 0; r < R; r++) acc[r][j] += key * q[r * dim + d]; \
      }                                                                                      \
    for (int r = 0; r < R; r++)                                                              \
      for (int j = 0; j < KV; j++) vf_store(s + r * CHUNK + j * LANES, acc[r][j]);           \
  }
DEFINE_SCORES(1)
#if LANES == 16
DEFINE_SCORES(8)
enum { SCORE_ROWS = 8 };
#define SCORES_BIG scores8
#else
DEFINE_SCORES(4)
enum { SCORE_ROWS = 4 };
#define SCORES_BIG scores4
#endif

// o[r][d .. d + 2 LANES) += p[r] . V over `count` keys for R rows.
#define DEFINE_VALUES(R, C)                                                                             \
  static void values##R##_##C(const float *p, const float *v, int dim, int count, float *o) {            \
    vf acc[R][C];                                                                                        \
    for (int r = 0; r < R; r++)                                                                          \
      for (int j = 0; j < C; j++) acc[r][j] = vf_load(o + r * dim + j * LANES);                          \
    for (int i = 0; i < count; i++)                                                                      \
      _Pragma("GCC unroll 4") for (int j = 0; j < C; j++) {                                              \
        vf value = vf_load(v + i * dim + j * LANES);                                                     \
        _Pragma("GCC unroll 8") for (int r = 0; r < R; r++) acc[r][j] += value * p[r * CHUNK + i];       \
      }                                                                                                  \
    for (int r = 0; r < R; r++)                                                                          \
      for (int j = 0; j < C; j++) vf_store(o + r * dim + j * LANES, acc[r][j]);                          \
  }
DEFINE_VALUES(1, 1)
DEFINE_VALUES(1, 4)
DEFINE_VALUES(4, 1)
DEFINE_VALUES(4, 2)

static void add_values(const float *p, const float *v, int rows, int dim, int count, float *o) {
  int r = 0;
  for (; r + 4 <= rows; r += 4) {
    int d = 0;
    for (; d + 2 * LANES <= dim; d += 2 * LANES) values4_2(p + r * CHUNK, v + d, dim, count, o + r * dim + d);
    for (; d < dim; d += LANES) values4_1(p + r * CHUNK, v + d, dim, count, o + r * dim + d);
  }
  for (; r < rows; r++) {
    int d = 0;
    for (; d + 4 * LANES <= dim; d += 4 * LANES) values1_4(p + r * CHUNK, v + d, dim, count, o + r * dim + d);
    for (; d < dim; d += LANES) values1_1(p + r * CHUNK, v + d, dim, count, o + r * dim + d);
  }
}

// Scores of one row and chunk become weights; the row's running maximum, sum and output are rescaled.
static void softmax_row(float *s, int visible_from, int visible_to, float softcap, float *max, float *sum, float *o, int dim) {
  vf v[CHUNK / LANES], top = vf_set1(-INFINITY);
  vi lane;
  for (int i = 0; i < LANES; i++) lane[i] = i;
  for (int j = 0; j < CHUNK / LANES; j++) {
    v[j] = vf_load(s + j * LANES);
    if (softcap != 0) v[j] = vf_tanh(v[j] * (1 / softcap)) * softcap;
    vi at = lane + j * LANES;
    v[j] = vf_select((at >= visible_from) & (at < visible_to), v[j], vf_set1(-INFINITY));
    top = vf_max(top, v[j]);
  }
  float highest = vf_hmax(top);
  if (highest > *max) {
    vf scale = vf_exp(vf_set1(*max - highest));
    *max = highest;
    *sum *= scale[0];
    for (int d = 0; d < dim; d += LANES) vf_store(o + d, vf_load(o + d) * scale);
  }
  vf total = vf_set1(0), shift = vf_set1(*max);
  for (int j = 0; j < CHUNK / LANES; j++) {
    v[j] = *max == -INFINITY ? vf_set1(0) : vf_exp(v[j] - shift);
    vf_store(s + j * LANES, v[j]);
    total += v[j];
  }
  *sum += vf_sum(total);
}

// Queries first .. first + count - 1 of sequence `seq`, query heads from .. to - 1 of kv head `h`.
static void attend(const cache *c, const batch *b, const attention_args *a, attention_scratch *t, int seq, int h, int first,
                   int count, int from, int to) {
  int dim = c->head_dim, group = a->heads / c->kv_heads, heads = to - from, rows = count * heads;
  int row0 = b->query_start[seq] + first, start = b->positions[row0], end = start + count;
  const int32_t *table = b->block_tables + (size_t)seq * b->max_blocks;
  size_t width = element_bytes(c);
  for (int r = 0; r < rows; r++) {
    const float *q = a->q + ((size_t)(row0 + r / heads) * a->heads + h * group + from + r % heads) * dim;
    for (int d = 0; d < dim; d += LANES) {
      vf_store(t->q + r * dim + d, vf_load(q + d) * a->scale);
      vf_store(t->o + r * dim + d, vf_set1(0));
    }
    t->max[r] = -INFINITY;
    t->sum[r] = 0;
  }
  int begin = a->window && start - a->window + 1 > 0 ? (start - a->window + 1) / CHUNK * CHUNK : 0;
  for (int key = begin; key < end; key += CHUNK) {
    int keys = end - key < CHUNK ? end - key : CHUNK, groups = (keys + KEYS - 1) / KEYS;
    const float *v[GROUPS];
    for (int g = 0; g < groups; g++) {
      int at = key + g * KEYS, block = table[at / c->block_size], in_block = at % c->block_size;
      const uint8_t *kp = c->k + a->layer * c->layer_bytes + k_offset(c, block, h, in_block) * width;
      const uint8_t *vp = c->v + a->layer * c->layer_bytes + v_offset(c, block, h, in_block) * width;
      const float *k = as_floats(kp, c->is_half, t->k, dim * KEYS);
      v[g] = as_floats(vp, c->is_half, t->v + g * dim * KEYS, dim * KEYS);
      int r = 0;
      for (; r + SCORE_ROWS <= rows; r += SCORE_ROWS) SCORES_BIG(t->q + r * dim, dim, k, t->s + r * CHUNK + g * KEYS);
      for (; r < rows; r++) scores1(t->q + r * dim, dim, k, t->s + r * CHUNK + g * KEYS);
    }
    for (int r = 0; r < rows; r++) {
      int position = start + r / heads, low = a->window ? position - a->window + 1 - key : 0;
      softmax_row(t->s + r * CHUNK, low, position + 1 - key, a->softcap, t->max + r, t->sum + r, t->o + r * dim, dim);
    }
    for (int g = 0; g < groups; g++) {
      int left = keys - g * KEYS;
      add_values(t->s + g * KEYS, v[g], rows, dim, left < KEYS ? left : KEYS, t->o);
    }
  }
  for (int r = 0; r < rows; r++) {
    float *out = a->out + ((size_t)(row0 + r / heads) * a->heads + h * group + from + r % heads) * dim;
    vf inverse = vf_set1(1.0f / t->sum[r]);
    for (int d = 0; d < dim; d += LANES) vf_store(out + d, vf_load(t->o + r * dim + d) * inverse);
  }
}

// Pieces: (sequence, kv head, run of queries); single queries are split by query head where that feeds more threads.
// Of sequence `seq`: runs of `most` queries, `step` heads of a group at once.
typedef struct { int queries, most, step, pieces; } attention_cut;

static attention_cut cut_attention(const cache *c, const batch *b, const attention_args *a, int threads, int seq) {
  int group = a->heads / c->kv_heads, most = MAX_ROWS / group < 1 ? 1 : MAX_ROWS / group;
  int split = b->seqs * c->kv_heads < 4 * threads || group > MAX_ROWS;
  int queries = b->query_start[seq + 1] - b->query_start[seq], runs = (queries + most - 1) / most;
  int step = split && (queries == 1 || group > MAX_ROWS) ? 1 : group;
  return (attention_cut){queries, most, step, runs * c->kv_heads * (group / step)};
}

static int attention_pieces(const cache *c, const batch *b, const attention_args *a, int threads) {
  int pieces = 0;
  for (int seq = 0; seq < b->seqs; seq++) pieces += cut_attention(c, b, a, threads, seq).pieces;
  return pieces;
}

static void attention_piece(const cache *c, const batch *b, const attention_args *a, attention_scratch *t, int threads, int piece) {
  int seq = b->seqs - 1;  // last first: the scheduler puts long prefills at the end
  attention_cut cut = cut_attention(c, b, a, threads, seq);
  for (; piece >= cut.pieces; cut = cut_attention(c, b, a, threads, --seq)) piece -= cut.pieces;
  int group = a->heads / c->kv_heads, steps = group / cut.step;
  int from = piece % steps * cut.step, head = piece / steps % c->kv_heads, run = piece / steps / c->kv_heads;
  int first = ((cut.queries - 1) / cut.most - run) * cut.most;  // the longest run first
  attend(c, b, a, t, seq, head, first, cut.queries - first < cut.most ? cut.queries - first : cut.most, from, from + cut.step);
}
