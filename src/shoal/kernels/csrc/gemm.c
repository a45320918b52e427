// y = x W^T. Activations are quantised to int8 per 32 columns (float kinds use them as they are); sums of products are
// exact integers per block, blocks are added in order in float. So a row's result never depends on the other rows.
// With a second term, what the first int8 leaves over is quantised again: about 16 bits of precision, twice the products,
// the same memory traffic.

typedef struct {
  float d, s;   // scale; scale times sum of q
  int32_t sum;  // sum of q
  int8_t q[32];
} block8;

// Largest magnitude maps to 127, rounding to nearest even. A block too small for its scale to be a normal float is zero.
// `rest`, if not NULL, receives x less what `out` says (columns floats, may be x itself).
static void quantize_row(const float *x, int columns, block8 *out, float *rest) {
  for (int b = 0; b < columns / 32; b++, x += 32, out++) {
    vf top = vf_set1(0);
    for (int i = 0; i < 32; i += LANES) {
      vf v = vf_load(x + i);
      top = vf_max(top, vf_max(v, -v));
    }
    float d = vf_hmax(top) / 127.0f, inverse = 0;
    if (d >= 0x1p-126f) inverse = 1.0f / d;
    else d = 0;
    vi sum = vi_set1(0);
    vf magic = vf_set1(12582912.0f);
    for (int i = 0; i < 32; i += LANES) {
      vi q = (vi)(vf_load(x + i) * inverse + magic) - (vi)magic;
      vb bytes = __builtin_convertvector(q, vb);
      memcpy(out->q + i, &bytes, LANES);
      sum += q;
    }
    out->d = d;
    out->sum = vi_sum(sum);
    out->s = d * (float)out->sum;
    if (rest) {
      for (int i = 0; i < 32; i++) rest[i] = x[i] - d * (float)out->q[i];
      rest += 32;
    }
  }
}

// Asks for `size` bytes and returns what follows them.
INLINE const uint8_t *prefetch(const uint8_t *p, const int size) {
#pragma GCC unroll 10
  for (int i = 0; i < size; i += 64) __builtin_prefetch(p + i);
  return p + size;
}

// acc[m] over M rows of activations for one group of LANES weight rows.
INLINE void tile_p4(const uint8_t *w, int blocks, const block8 *a, int stride, vf *acc, const int M, const uint8_t *next) {
  for (int b = 0; b < blocks; b++, w += 20 * LANES, a++) {
    if (next) next = prefetch(next, 20 * LANES);
    vf d = vf_from_half((const uint16_t *)w), min = vf_from_half((const uint16_t *)w + LANES);
    vi W[8];
#pragma GCC unroll 4
    for (int t = 0; t < 4; t++) {
      vi x = vi_load(w + 4 * LANES + 4 * LANES * t);
      W[t] = x & 0x0f0f0f0f;
      W[t + 4] = (x >> 4) & 0x0f0f0f0f;
    }
#pragma GCC unroll 8
    for (int m = 0; m < M; m++) {
      const block8 *r = a + (size_t)m * stride;
      acc[m] += vf_from_int(dot_u4(W, r->q)) * (d * r->d);
      acc[m] += min * r->s;
    }
  }
}

INLINE void tile_p8(const uint8_t *w, int blocks, const block8 *a, int stride, vf *acc, const int M, const int pack, const uint8_t *next) {
  for (int b = 0; b < blocks; b++, w += PACK_BYTES[pack], a++) {
    if (next) next = prefetch(next, PACK_BYTES[pack]);
    vf d = vf_from_half((const uint16_t *)w), second = d;
    if (pack != P8) second = vf_from_half((const uint16_t *)w + LANES);
    vi W[8];
#pragma GCC unroll 8
    for (int t = 0; t < 8; t++) W[t] = vi_load(w + PACK_BYTES[pack] - 32 * LANES + 4 * LANES * t);
#pragma GCC unroll 8
    for (int m = 0; m < M; m++) {
      const block8 *r = a + (size_t)m * stride;
      if (pack == P6) {
        int32_t low = 0;
        if (BIAS8)
          for (int i = 0; i < 16; i++) low += r->q[i];
        acc[m] += vf_from_int(dot_s8(W, r->q, 4, low)) * (d * r->d);
        acc[m] += vf_from_int(dot_s8(W + 4, r->q + 16, 4, r->sum - low)) * (second * r->d);
      } else {
        acc[m] += vf_from_int(dot_s8(W, r->q, 8, r->sum)) * (d * r->d);
        if (pack == P8M) acc[m] += second * r->s;
      }
    }
  }
}

INLINE void tile_float(const uint8_t *w, int columns, const float *x, int stride, vf *acc, const int M, const int pack) {
  for (int k = 0; k < columns; k++) {
    vf v;
    if (pack == PF32) v = vf_load((const float *)w + (size_t)k * LANES);
    else if (pack == PF16) v = vf_from_half((const uint16_t *)w + (size_t)k * LANES);
    else v = vf_from_bf16((const uint16_t *)w + (size_t)k * LANES);
#pragma GCC unroll 8
    for (int m = 0; m < M; m++) acc[m] += v * x[(size_t)m * stride + k];
  }
}

typedef struct {
  const matrix *w;
  const float *bias;  // or NULL
  float *y;           // rows x ldy
  int ldy;
  int add;            // y += instead of y =
} output;

INLINE void store_tile(const output *o, int row, int group, vf *acc, const int M) {
  int n = group * LANES, valid = o->w->rows - n < LANES ? o->w->rows - n : LANES;
  for (int m = 0; m < M; m++) {
    float *y = o->y + (size_t)(row + m) * o->ldy + n;
    vf v = acc[m] * o->w->scale;
    if (valid == LANES) {
      if (o->bias) v += vf_load(o->bias + n);
      if (o->add) v += vf_load(y);
      vf_store(y, v);
    } else {
      for (int i = 0; i < valid; i++) y[i] = v[i] + (o->bias ? o->bias[n + i] : 0) + (o->add ? y[i] : 0);
    }
  }
}

// Rows of activations: floats (stride columns), or one or two terms of int8 (stride columns / 32).
typedef struct {
  const float *x;
  const block8 *a, *a2;  // a2: NULL for one term
} rows_in;

INLINE rows_in from_row(rows_in in, int columns, size_t row) {
  in.x += row * columns;
  in.a += row * (columns / 32);
  if (in.a2) in.a2 += row * (columns / 32);
  return in;
}

INLINE const uint8_t *group_data(const matrix *w, int group) { return w->data + (size_t)group * group_bytes(w->pack, w->columns); }

// Rows row .. row + M - 1 of one group.
#define DEFINE_TILE(M)                                                                              \
  static void tile##M(const output *o, rows_in in, int row, int group, const uint8_t *next) {       \
    const matrix *w = o->w;                                                                         \
    const uint8_t *data = group_data(w, group);                                                     \
    int blocks = w->columns / 32;                                                                   \
    vf acc[M];                                                                                      \
    for (int m = 0; m < M; m++) {                                                                   \
      acc[m] = vf_set1(0);                                                                          \
      __builtin_prefetch(o->y + (size_t)(row + m) * o->ldy + group * LANES, 1);                     \
    }                                                                                               \
    in = from_row(in, w->columns, (size_t)row);                                                     \
    const block8 *terms[2] = {in.a, in.a2};                                                         \
    for (int t = 0; t < (in.a2 && w->pack < PF32 ? 2 : 1); t++) switch (w->pack) {                  \
        case P4: tile_p4(data, blocks, terms[t], blocks, acc, M, next); break;                            \
        case P8: tile_p8(data, blocks, terms[t], blocks, acc, M, P8, next); break;                        \
        case P8M: tile_p8(data, blocks, terms[t], blocks, acc, M, P8M, next); break;                      \
        case P6: tile_p8(data, blocks, terms[t], blocks, acc, M, P6, next); break;                        \
        case PF32: tile_float(data, w->columns, in.x, w->columns, acc, M, PF32); break;             \
        case PF16: tile_float(data, w->columns, in.x, w->columns, acc, M, PF16); break;             \
        default: tile_float(data, w->columns, in.x, w->columns, acc, M, PBF16);                     \
      }                                                                                             \
    store_tile(o, row, group, acc, M);                                                              \
  }
DEFINE_TILE(1)
DEFINE_TILE(2)
DEFINE_TILE(4)
#if LANES == 16
DEFINE_TILE(8)
#define BIG_TILE 8
#define TILE_BIG tile8
#else
DEFINE_TILE(6)  // 16 registers: six sums, eight weights
#define BIG_TILE 6
#define TILE_BIG tile6
#endif

enum { PANEL = 96 };  // activation rows kept in the second-level cache while a run of groups passes

// `after`: what this thread will probably read next, or NULL.
static void gemm_groups(const output *o, rows_in in, int rows, int first, int last, const uint8_t *after) {
  for (int panel = 0; panel < rows; panel += PANEL) {
    int end = panel + PANEL < rows ? panel + PANEL : rows;
    for (int group = first; group < last; group++) {
      int row = panel;
      const uint8_t *next = group + 1 < last ? group_data(o->w, group + 1) : end < rows ? group_data(o->w, first) : after;
      for (; row + BIG_TILE <= end; row += BIG_TILE, next = NULL) TILE_BIG(o, in, row, group, next);
      for (; row + 4 <= end; row += 4, next = NULL) tile4(o, in, row, group, next);
      for (; row + 2 <= end; row += 2, next = NULL) tile2(o, in, row, group, next);
      for (; row < end; row++, next = NULL) tile1(o, in, row, group, next);
    }
  }
}

INLINE int matrix_groups(const matrix *w) { return round_up(w->rows, LANES) / LANES; }

// Pieces are runs of about 8 groups (fewer for small matrices, so that every thread gets several).
INLINE int groups_per_piece(int groups, int threads) {
  int size = groups / (threads * 6);
  return size < 1 ? 1 : size > 16 ? 16 : size;
}

typedef struct {
  output out;
  rows_in in;
  int rows;
} product;

INLINE int product_pieces(const product *job, int threads) {
  int groups = matrix_groups(job->out.w), size = groups_per_piece(groups, threads);
  return job->rows ? (groups + size - 1) / size : 0;
}

// The products of one phase, in as many pieces.
static int gemm_pieces(const product *jobs, int count, int threads) {
  int pieces = 0;
  for (int j = 0; j < count; j++) pieces += product_pieces(jobs + j, threads);
  return pieces;
}

typedef struct {
  const product *job;  // NULL: there is no such piece
  int first, last;
} piece_groups;

static piece_groups find_piece(const product *jobs, int count, int threads, int piece) {
  for (int j = 0; j < count; j++) {
    int pieces = product_pieces(jobs + j, threads), groups = matrix_groups(jobs[j].out.w);
    if (piece < pieces) {
      int size = groups_per_piece(groups, threads), first = piece * size;
      return (piece_groups){jobs + j, first, first + size < groups ? first + size : groups};
    }
    piece -= pieces;
  }
  return (piece_groups){0};
}

// Threads that take turns come back for the piece `threads` further on; after the phase they read `after`.
static void gemm_piece(const product *jobs, int count, int threads, int piece, const uint8_t *after) {
  piece_groups mine = find_piece(jobs, count, threads, piece), next = find_piece(jobs, count, threads, piece + threads);
  if (next.job) after = group_data(next.job->out.w, next.first);
  gemm_groups(&mine.job->out, mine.job->in, mine.job->rows, mine.first, mine.last, after);
}
