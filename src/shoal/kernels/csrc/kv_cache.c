// The paged cache of keys and values: how it lies in memory, how a row enters it, how sixteen positions are read.
//
// One block of one layer holds keys and values alike, elements of float, half or int8:
//   K  [kv head][block_size / 16][head_dim][16]   sixteen keys side by side
//   V  [kv head][block_size][head_dim]
// and behind them, for int8 only, what each position's elements are multiplied by: float [kv head][block_size].

enum { KEYS = 16, KV = KEYS / LANES };  // keys in a group, and vectors
enum { KV_F32, KV_F16, KV_INT8 };

typedef struct {
  uint8_t *k, *v;  // all layers
  int32_t block_size, kv_heads, head_dim, type;
  int64_t layer_bytes, block_bytes;  // of k, and of v
} cache;

INLINE size_t element_bytes(int type) { return type == KV_F32 ? 4 : type == KV_F16 ? 2 : 1; }

// Byte offset, in k and in v, of position `at` of a block; for keys, of the group that holds it.
INLINE size_t kv_offset(const cache *c, int layer, int block, int head, int at) {
  return (size_t)(layer * c->layer_bytes + block * c->block_bytes) +
         ((size_t)head * c->block_size + at) * c->head_dim * element_bytes(c->type);
}
INLINE size_t key_offset(const cache *c, int layer, int block, int head, int at) {
  return kv_offset(c, layer, block, head, at / KEYS * KEYS) + at % KEYS * element_bytes(c->type);
}
INLINE size_t scale_offset(const cache *c, int layer, int block, int head, int at) {
  return (size_t)(layer * c->layer_bytes + block * c->block_bytes) + (size_t)c->kv_heads * c->block_size * c->head_dim +
         4 * ((size_t)head * c->block_size + at);
}

// LANES elements from element `i` on.
INLINE vf kv_load(const uint8_t *p, size_t i, int type) {
  if (type == KV_F16) return vf_from_half((const uint16_t *)p + i);
  if (type == KV_INT8) return vf_from_int8((const int8_t *)p + i);
  return vf_load((const float *)p + i);
}

// x / scale to the nearest of -127..127, elements `stride` apart; the largest magnitude gets 127. A row that holds an
// infinity or NaN has no scale: whatever looks at it is NaN.
static float quantize_kv(const float *x, int dim, int8_t *q, int stride) {
  float top = 0, poison = 0;
  for (int d = 0; d < dim; d++) {
    float size = fabsf(x[d]);
    top = size > top ? size : top;
    poison += x[d] * 0.0f;
  }
  float scale = top / 127 < 0x1p-126f ? 0 : top / 127, inverse = scale == 0 ? 0 : 1 / scale;
  for (int d = 0; d < dim; d++) {
    double shifted = (double)x[d] * inverse + 0x1.8p52;  // the product is exact, so every CPU rounds alike
    int64_t bits;
    memcpy(&bits, &shifted, 8);
    q[d * stride] = (int8_t)bits;
  }
  return scale + poison;
}

static void write_kv_row(const cache *c, int layer, int slot, const float *k, const float *v) {
  int block = slot / c->block_size, at = slot % c->block_size, dim = c->head_dim;
  for (int h = 0; h < c->kv_heads; h++, k += dim, v += dim) {
    uint8_t *kp = c->k + key_offset(c, layer, block, h, at), *vp = c->v + kv_offset(c, layer, block, h, at);
    if (c->type == KV_F16) {
      for (int d = 0; d < dim; d++) ((uint16_t *)kp)[d * KEYS] = float_to_half(k[d]);
      for (int d = 0; d < dim; d++) ((uint16_t *)vp)[d] = float_to_half(v[d]);
    } else if (c->type == KV_INT8) {
      size_t scale = scale_offset(c, layer, block, h, at);
      *(float *)(c->k + scale) = quantize_kv(k, dim, (int8_t *)kp, KEYS);
      *(float *)(c->v + scale) = quantize_kv(v, dim, (int8_t *)vp, 1);
    } else {
      for (int d = 0; d < dim; d++) ((float *)kp)[d * KEYS] = k[d];
      memcpy(vp, v, 4 * (size_t)dim);
    }
  }
}

// Copies whole blocks of keys and values in every layer.
void shoal_copy_blocks(const cache *c, int layers, const int32_t *pairs, int count) {
  for (int l = 0; l < layers; l++)
    for (int i = 0; i < count; i++) {
      int64_t from = l * c->layer_bytes + pairs[2 * i] * c->block_bytes, to = l * c->layer_bytes + pairs[2 * i + 1] * c->block_bytes;
      memcpy(c->k + to, c->k + from, (size_t)c->block_bytes);
      memcpy(c->v + to, c->v + from, (size_t)c->block_bytes);
    }
}

// One key and value of a layer and head from one place to another.
static void move_position(const cache *c, int layer, int head, int from_block, int from, int to_block, int to) {
  size_t width = element_bytes(c->type);
  const uint8_t *ks = c->k + key_offset(c, layer, from_block, head, from);
  uint8_t *kt = c->k + key_offset(c, layer, to_block, head, to);
  for (int d = 0; d < c->head_dim; d++) memcpy(kt + d * KEYS * width, ks + d * KEYS * width, width);
  memcpy(c->v + kv_offset(c, layer, to_block, head, to), c->v + kv_offset(c, layer, from_block, head, from), width * (size_t)c->head_dim);
  if (c->type != KV_INT8) return;
  size_t source = scale_offset(c, layer, from_block, head, from), target = scale_offset(c, layer, to_block, head, to);
  memcpy(c->k + target, c->k + source, 4);
  memcpy(c->v + target, c->v + source, 4);
}

// Copies position kept[layer][head][i] of the blocks of `from` to position i of the blocks of `to`. No block is in both.
void shoal_keep_positions(const cache *c, int layers, const int32_t *from, const int32_t *to, const int32_t *kept, int count) {
  for (int l = 0; l < layers; l++)
    for (int h = 0; h < c->kv_heads; h++, kept += count)
      for (int i = 0; i < count; i++)
        move_position(c, l, h, from[kept[i] / c->block_size], kept[i] % c->block_size, to[i / c->block_size], i % c->block_size);
}
