// Weights repacked for the kernels: LANES rows side by side, so that a vector lane is a row and nothing is summed
// across lanes. A packed matrix is [rows / LANES][columns / 32] blocks (float kinds: [rows / LANES][columns] vectors).
//
//   P4   half d[L], half m[L], u8 q[16 L]      w = d q + m,  q in 0..15      Q4_0 Q4_1 Q4_K
//   P8   half d[L], u8 q[32 L]                 w = d q,      q in -128..127  Q8_0 Q5_0
//   P8M  half d[L], half m[L], u8 q[32 L]      w = d q + m                   Q5_1 Q5_K
//   P6   half d[2][L], u8 q[32 L]              w = d q, one d per 16 columns Q6_K
//   PF   float, half or bfloat16 [columns][L]                                F32 F16 BF16
//
// 32-bit word t of a row holds columns 4t..4t+3 of the block; P4 keeps words 0..3 in low and 4..7 in high nibbles.
// K-quants multiply two small scales; their product is kept in half precision after division by a power of two per
// matrix (`shift`), which keeps it out of the subnormals: relative error at most 2^-11, an eighth of that of 8-bit activations.

enum { S_F32, S_F16, S_BF16, S_Q8_0, S_Q4_0, S_Q4_1, S_Q5_0, S_Q5_1, S_Q4_K, S_Q5_K, S_Q6_K, S_COUNT };
enum { P4, P8, P8M, P6, PF32, PF16, PBF16 };

static const struct { int pack, block, bytes; } STORAGE[S_COUNT] = {
    [S_F32] = {PF32, 1, 4},   [S_F16] = {PF16, 1, 2},   [S_BF16] = {PBF16, 1, 2}, [S_Q8_0] = {P8, 32, 34},
    [S_Q4_0] = {P4, 32, 18},  [S_Q4_1] = {P4, 32, 20},  [S_Q5_0] = {P8, 32, 22},  [S_Q5_1] = {P8M, 32, 24},
    [S_Q4_K] = {P4, 256, 144}, [S_Q5_K] = {P8M, 256, 176}, [S_Q6_K] = {P6, 256, 210}};

static const int PACK_BYTES[] = {[P4] = 20 * LANES, [P8] = 34 * LANES, [P8M] = 36 * LANES, [P6] = 36 * LANES};

typedef struct {
  const uint8_t *data;
  int32_t rows, columns, pack;
  float scale;  // 2^shift, 1 for all but K-quants
} matrix;

INLINE int round_up(int n, int to) { return (n + to - 1) / to * to; }
INLINE float read_half(const uint8_t *p) { uint16_t h; memcpy(&h, p, 2); return half_to_float(h); }

INLINE size_t group_bytes(int pack, int columns) {
  if (pack == PF32) return (size_t)columns * LANES * 4;
  if (pack == PF16 || pack == PBF16) return (size_t)columns * LANES * 2;
  return (size_t)(columns / 32) * PACK_BYTES[pack];
}

// One row's 32 columns: integer codes, scale(s) and minimum.
typedef struct { int8_t q[32]; float d[2], m; } codes;

static void k_scale_min(int j, const uint8_t *s, int *scale, int *min) {
  if (j < 4) { *scale = s[j] & 63; *min = s[j + 4] & 63; return; }
  *scale = (s[j + 4] & 15) | (s[j - 4] >> 6) << 4;
  *min = (s[j + 4] >> 4) | (s[j] >> 6) << 4;
}

static void read_codes(int storage, const uint8_t *row, int block, codes *c) {
  const uint8_t *p;
  uint32_t high;
  int scale, min, j = block % 8;
  c->d[1] = c->m = 0;
  switch (storage) {
    case S_Q8_0:
      p = row + 34 * (size_t)block;
      c->d[0] = read_half(p);
      memcpy(c->q, p + 2, 32);
      break;
    case S_Q4_0:
      p = row + 18 * (size_t)block;
      c->d[0] = read_half(p);
      c->m = -8 * c->d[0];
      for (int i = 0; i < 16; i++) { c->q[i] = p[2 + i] & 15; c->q[i + 16] = p[2 + i] >> 4; }
      break;
    case S_Q4_1:
      p = row + 20 * (size_t)block;
      c->d[0] = read_half(p);
      c->m = read_half(p + 2);
      for (int i = 0; i < 16; i++) { c->q[i] = p[4 + i] & 15; c->q[i + 16] = p[4 + i] >> 4; }
      break;
    case S_Q5_0:
    case S_Q5_1: {
      int with_min = storage == S_Q5_1, zero = with_min ? 0 : 16;
      p = row + (with_min ? 24 : 22) * (size_t)block;
      c->d[0] = read_half(p);
      if (with_min) c->m = read_half(p + 2);
      p += with_min ? 4 : 2;
      memcpy(&high, p, 4);
      for (int i = 0; i < 16; i++) {
        c->q[i] = (int8_t)(((p[4 + i] & 15) | ((high >> i) & 1) << 4) - zero);
        c->q[i + 16] = (int8_t)(((p[4 + i] >> 4) | ((high >> (i + 16)) & 1) << 4) - zero);
      }
      break;
    }
    case S_Q4_K:
    case S_Q5_K: {
      int five = storage == S_Q5_K;
      p = row + (five ? 176 : 144) * (size_t)(block / 8);
      k_scale_min(j, p + 4, &scale, &min);
      c->d[0] = read_half(p) * (float)scale;
      c->m = -read_half(p + 2) * (float)min;
      const uint8_t *low = p + (five ? 48 : 16) + 32 * (j / 2), *bits = p + 16;
      for (int i = 0; i < 32; i++) {
        int q = j % 2 ? low[i] >> 4 : low[i] & 15;
        c->q[i] = (int8_t)(five ? q | ((bits[i] >> j) & 1) << 4 : q);
      }
      break;
    }
    case S_Q6_K: {
      p = row + 210 * (size_t)(block / 8);
      float d = read_half(p + 208);
      const uint8_t *low = p + 64 * (j / 4) + 32 * (j % 2), *bits = p + 128 + 32 * (j / 4);
      const int8_t *scales = (const int8_t *)p + 192 + 2 * j;
      c->d[0] = d * scales[0];
      c->d[1] = d * scales[1];
      for (int i = 0; i < 32; i++) {
        int q = j % 4 < 2 ? low[i] & 15 : low[i] >> 4;
        c->q[i] = (int8_t)((q | ((bits[i] >> (2 * (j % 4))) & 3) << 4) - 32);
      }
      break;
    }
  }
}

// The power of two that brings a K-quant's largest scale to about 2^8; 1 for formats whose scales are halves already.
static float pack_scale(int storage, const uint8_t *src, int rows, int columns) {
  if (storage < S_Q4_K) return 1.0f;
  float largest = 0;
  size_t stride = (size_t)columns / 256 * STORAGE[storage].bytes;
  codes c;
  for (int r = 0; r < rows; r++)
    for (int b = 0; b < columns / 32; b++) {
      read_codes(storage, src + (size_t)r * stride, b, &c);
      largest = fmaxf(largest, fmaxf(fmaxf(fabsf(c.d[0]), fabsf(c.d[1])), fabsf(c.m)));
    }
  if (largest == 0 || !isfinite(largest)) return 1.0f;
  return exp2f(floorf(log2f(largest)) - 8);
}

// The files' own bytes in another order, where they are what `pack_block` would make of them: the common formats.
static int pack_block_quickly(int storage, const uint8_t *src, size_t stride, int valid, int block, uint8_t *out) {
  if (valid < LANES || (storage != S_Q4_1 && storage != S_Q4_0 && storage != S_Q8_0)) return 0;
  int width = STORAGE[storage].bytes, head = storage == S_Q4_1 ? 4 : 2, words = storage == S_Q8_0 ? 8 : 4;
  uint16_t *d = (uint16_t *)out, *m = d + LANES;
  uint8_t *q = out + PACK_BYTES[STORAGE[storage].pack] - 4 * words * LANES;
  for (int r = 0; r < LANES; r++) {
    const uint8_t *p = src + (size_t)r * stride + (size_t)block * width;
    memcpy(d + r, p, 2);
    if (storage == S_Q4_1) memcpy(m + r, p + 2, 2);
    if (storage == S_Q4_0) m[r] = float_to_half(-8 * half_to_float(d[r]));
    for (int t = 0; t < words; t++) {
      uint32_t word;
      memcpy(&word, p + head + 4 * t, 4);
      if (storage == S_Q8_0 && BIAS8) word ^= 0x80808080u;  // adds 128 to each byte
      memcpy(q + 4 * LANES * t + 4 * r, &word, 4);
    }
  }
  return 1;
}

static void pack_block(int pack, int storage, const uint8_t *src, size_t stride, int valid, int block, float inverse, uint8_t *out) {
  uint16_t *d = (uint16_t *)out, *m = d + LANES;
  uint8_t *q = out + PACK_BYTES[pack] - (pack == P4 ? 16 : 32) * LANES;
  codes c;
  for (int r = 0; r < LANES; r++) {
    memset(&c, 0, sizeof c);
    if (r < valid) read_codes(storage, src + (size_t)r * stride, block, &c);
    d[r] = float_to_half(c.d[0] * inverse);
    if (pack == P6) m[r] = float_to_half(c.d[1] * inverse);
    if (pack == P4 || pack == P8M) m[r] = float_to_half(c.m * inverse);
    for (int k = 0; k < 32; k++) {
      if (pack == P4) {
        uint8_t *byte = q + 4 * LANES * ((k / 4) % 4) + 4 * r + k % 4;
        *byte = (uint8_t)(k < 16 ? (*byte & 0xf0) | c.q[k] : (*byte & 0x0f) | c.q[k] << 4);
      } else {
        q[4 * LANES * (k / 4) + 4 * r + k % 4] = (uint8_t)(c.q[k] + BIAS8);
      }
    }
  }
}

int64_t shoal_packed_bytes(int storage, int rows, int columns) {
  return (int64_t)(round_up(rows, LANES) / LANES) * (int64_t)group_bytes(STORAGE[storage].pack, columns);
}

// Packs rows x columns from `src` into `dst` and describes it in `out`. 0, or -1 for a shape the storage cannot have.
int shoal_pack(int storage, const uint8_t *src, int rows, int columns, uint8_t *dst, matrix *out) {
  if (storage < 0 || storage >= S_COUNT || columns % STORAGE[storage].block) return -1;
  int pack = STORAGE[storage].pack, width = STORAGE[storage].bytes;
  size_t stride = (size_t)columns / STORAGE[storage].block * width, step = group_bytes(pack, columns);
  float scale = pack_scale(storage, src, rows, columns);
  *out = (matrix){dst, rows, columns, pack, scale};
  for (int group = 0; group * LANES < rows; group++, dst += step) {
    int valid = rows - group * LANES < LANES ? rows - group * LANES : LANES;
    const uint8_t *from = src + (size_t)group * LANES * stride;
    if (pack < PF32) {
      for (int b = 0; b < columns / 32; b++)
        if (!pack_block_quickly(storage, from, stride, valid, b, dst + (size_t)b * PACK_BYTES[pack]))
          pack_block(pack, storage, from, stride, valid, b, 1 / scale, dst + (size_t)b * PACK_BYTES[pack]);
      continue;
    }
    memset(dst, 0, step);
    for (int r = 0; r < valid; r++)
      for (int k = 0; k < columns; k++)
        memcpy(dst + ((size_t)k * LANES + r) * width, from + (size_t)r * stride + (size_t)k * width, (size_t)width);
  }
  return 0;
}

// Row `row` of a packed matrix as floats (embedding lookup).
static void unpack_row(const matrix *w, int row, float *y) {
  const uint8_t *group = w->data + (size_t)(row / LANES) * group_bytes(w->pack, w->columns);
  int r = row % LANES;
  for (int k = 0; k < w->columns; k++) {
    if (w->pack >= PF32) {
      const uint8_t *p = group + ((size_t)k * LANES + r) * (w->pack == PF32 ? 4 : 2);
      uint32_t bits = 0;
      memcpy(&bits, p, w->pack == PF32 ? 4 : 2);
      if (w->pack == PF16) { y[k] = half_to_float((uint16_t)bits); continue; }
      if (w->pack == PBF16) bits <<= 16;
      memcpy(y + k, &bits, 4);
      continue;
    }
    const uint8_t *block = group + (size_t)(k / 32) * PACK_BYTES[w->pack];
    const uint16_t *d = (const uint16_t *)block, *m = d + LANES;
    int i = k % 32;
    if (w->pack == P4) {
      uint8_t byte = block[4 * LANES + 4 * LANES * ((i / 4) % 4) + 4 * r + i % 4];
      y[k] = half_to_float(d[r]) * (float)(i < 16 ? byte & 15 : byte >> 4) + half_to_float(m[r]);
    } else {
      uint8_t byte = block[PACK_BYTES[w->pack] - 32 * LANES + 4 * LANES * (i / 4) + 4 * r + i % 4];
      float q = BIAS8 ? (float)(byte - BIAS8) : (float)(int8_t)byte;
      y[k] = half_to_float(w->pack == P6 && i >= 16 ? m[r] : d[r]) * q;
      if (w->pack == P8M) y[k] += half_to_float(m[r]);
    }
    y[k] *= w->scale;
  }
}
