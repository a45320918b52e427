// What approximate inference needs besides the network: how much each cached key is attended to, and a copy of chosen
// keys and values to the front of other blocks.
//
// Rules that stay true in this file:
// - nothing runs unless a step asks for it (`probe`), and a step that asks computes what it would without;
// - a probability is normalised over every key its row sees, so that dropping rows or keys later changes no other.

enum { SCORED_ROWS = 64 };  // at once

typedef struct {
  float *importance;         // [layer][kv head][keys], zeroed by the caller; NULL: not wanted
  float *scores;             // [thread][SCORED_ROWS][keys rounded up to CHUNK]
  const float *row_weights;  // what each row's probabilities are multiplied by
  float *activations;        // [feed-forward][row][gated columns]; NULL: not wanted
  int32_t keys, is_mean;     // keys: of the batch's one sequence
  int32_t skip_from, skip_to;  // operations first .. last - 1 are left out
} probe;

// Scaled scores of rows first .. first + count - 1 (row = query, head of the group) against keys 0 .. end - 1.
static void score_rows(const cache *c, const batch *b, const attention_args *a, attention_scratch *t, float *scores,
                       size_t stride, int h, int first, int count, int end) {
  int dim = c->head_dim, group = a->heads / c->kv_heads;
  for (int r = 0; r < count; r++) {
    int query = (first + r) / group, head = h * group + (first + r) % group;
    const float *q = a->q + ((size_t)query * a->heads + head) * dim;
    for (int d = 0; d < dim; d += LANES) vf_store(t->q + r * dim + d, vf_load(q + d) * a->scale);
  }
  for (int key = 0; key < end; key += CHUNK) {
    int groups = end - key < CHUNK ? (end - key + KEYS - 1) / KEYS : GROUPS;
    chunk now = load_chunk(c, a->layer, b->block_tables, h, key, groups, t, count > TILE_ROWS);
    for (int r = 0, n; r < count; r += n) {
      n = block_rows(count - r);
      block_of(now.type, n)->scores(t->q + r * dim, dim, &now, groups, t->s);
      for (int i = 0; i < n * groups * KEYS; i += LANES) {
        int row = i / (groups * KEYS), at = i % (groups * KEYS);
        vf s = vf_load(t->s + row * CHUNK + at);
        vf_store(scores + (size_t)(r + row) * stride + key + at, c->type == KV_INT8 ? s * vf_load(t->k_scale + at) : s);
      }
    }
  }
}

// One row's scores of keys from .. to - 1 become probabilities times `weight`, and enter `out`.
static void add_row(float *s, int from, int to, float softcap, float weight, int is_mean, float *out) {
  float top = -INFINITY, total = 0;
  for (int i = from; i < to; i++) {
    if (softcap != 0) s[i] = softcap * tanhf(s[i] / softcap);
    top = s[i] > top ? s[i] : top;
  }
  for (int i = 0; i < from; i++) s[i] = -INFINITY;
  int end = round_up(to, LANES);
  for (int i = to; i < end; i++) s[i] = -INFINITY;
  vf shift = vf_set1(top);
  for (int i = 0; i < end; i += LANES) vf_store(s + i, vf_exp(vf_load(s + i) - shift));
  for (int i = from; i < to; i++) total += s[i];
  float scale = weight / total;
  for (int i = from; i < to; i++) {
    float p = s[i] * scale;
    out[i] = is_mean ? out[i] + p : (p > out[i] ? p : out[i]);
  }
}

// A piece is a kv head. Every row of the batch's one sequence, every head of the group: the largest probability or the mean.
static void importance_piece(const cache *c, const batch *b, const attention_args *a, attention_scratch *t, const probe *w,
                             int thread, int h) {
  int group = a->heads / c->kv_heads, rows = b->rows * group, end = b->positions[b->rows - 1] + 1;
  size_t stride = (size_t)round_up(w->keys, CHUNK);
  float *scores = w->scores + (size_t)thread * SCORED_ROWS * stride;
  float *out = w->importance + ((size_t)a->layer * c->kv_heads + h) * (size_t)w->keys;
  for (int first = 0; first < rows; first += SCORED_ROWS) {
    int count = rows - first < SCORED_ROWS ? rows - first : SCORED_ROWS;
    score_rows(c, b, a, t, scores, stride, h, first, count, end);
    for (int r = 0; r < count; r++) {
      int query = (first + r) / group, to = b->positions[query] + 1, from = a->window && to > a->window ? to - a->window : 0;
      add_row(scores + (size_t)r * stride, from, to, a->softcap, w->row_weights[query], w->is_mean, out);
    }
  }
  if (w->is_mean) for (int i = 0; i < end; i++) out[i] /= (float)rows;
}
