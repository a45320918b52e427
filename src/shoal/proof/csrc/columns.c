// BLAKE3 (https://github.com/BLAKE3-team/BLAKE3-specs), many messages at a time: columns of a matrix of 64-bit words.
//
// A column's bytes are its words, little-endian, from the first row down. Rows lie behind one another, so the words of
// neighbouring columns are one load, and nothing is transposed. 128 rows are one chunk; the caller joins chunks as
// BLAKE3's tree says. Chaining values of all columns: (8, columns) uint32.
#include "field.h"
#include "threads.h"

#if defined(__AVX512F__)
#define HASH_LANES 16  // one register of 32-bit words
#elif defined(__AVX2__)
#define HASH_LANES 8
#else
#define HASH_LANES 4
#endif
#define CHUNK_ROWS 128
enum { CHUNK_START = 1, CHUNK_END = 2, PARENT = 4, ROOT = 8, KEYED = 16 };

typedef uint32_t hv __attribute__((vector_size(4 * HASH_LANES)));
typedef uint64_t hw __attribute__((vector_size(8 * HASH_LANES)));

static const uint32_t HASH_IV[4] = {0x6A09E667u, 0xBB67AE85u, 0x3C6EF372u, 0xA54FF53Au};
static const uint8_t HASH_ORDER[7][16] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, {2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8},
    {3, 4, 10, 12, 13, 2, 7, 14, 6, 5, 9, 0, 11, 15, 8, 1}, {10, 7, 12, 9, 14, 3, 13, 15, 4, 0, 11, 2, 5, 8, 1, 6},
    {12, 13, 9, 11, 15, 10, 14, 8, 7, 2, 5, 3, 0, 1, 6, 4}, {9, 14, 11, 5, 8, 12, 15, 1, 13, 3, 0, 10, 2, 6, 4, 7},
    {11, 15, 5, 0, 1, 9, 8, 6, 14, 10, 2, 12, 3, 4, 7, 13}};

INLINE hv hv_set1(uint32_t x) { return x - (hv){0}; }
INLINE hv hv_rotate(hv x, int n) { return (x >> n) | (x << (32 - n)); }

#define HASH_G(a, b, c, d, x, y) \
  a += b + (x); d = hv_rotate(d ^ a, 16); c += d; b = hv_rotate(b ^ c, 12); \
  a += b + (y); d = hv_rotate(d ^ a, 8); c += d; b = hv_rotate(b ^ c, 7)

static void hash_compress(hv cv[8], const hv m[16], uint64_t counter, uint32_t length, uint32_t flags) {
  hv v[16];
  for (int i = 0; i < 8; i++) v[i] = cv[i];
  for (int i = 0; i < 4; i++) v[8 + i] = hv_set1(HASH_IV[i]);
  v[12] = hv_set1((uint32_t)counter), v[13] = hv_set1((uint32_t)(counter >> 32));
  v[14] = hv_set1(length), v[15] = hv_set1(flags);
#pragma GCC unroll 7
  for (int r = 0; r < 7; r++) {
    const uint8_t *o = HASH_ORDER[r];
    HASH_G(v[0], v[4], v[8], v[12], m[o[0]], m[o[1]]);
    HASH_G(v[1], v[5], v[9], v[13], m[o[2]], m[o[3]]);
    HASH_G(v[2], v[6], v[10], v[14], m[o[4]], m[o[5]]);
    HASH_G(v[3], v[7], v[11], v[15], m[o[6]], m[o[7]]);
    HASH_G(v[0], v[5], v[10], v[15], m[o[8]], m[o[9]]);
    HASH_G(v[1], v[6], v[11], v[12], m[o[10]], m[o[11]]);
    HASH_G(v[2], v[7], v[8], v[13], m[o[12]], m[o[13]]);
    HASH_G(v[3], v[4], v[9], v[14], m[o[14]], m[o[15]]);
  }
  for (int i = 0; i < 8; i++) cv[i] = v[i] ^ v[8 + i];
}

typedef struct {
  const fe *in;
  const uint32_t *left, *right, *key;
  uint32_t *out;
  int64_t rows, columns;
  uint64_t counter;
  uint32_t flags;
} hash_job;

INLINE void load_key(hv cv[8], const uint32_t *key) {
  for (int i = 0; i < 8; i++) cv[i] = hv_set1(key[i]);
}
INLINE void store_values(uint32_t *out, int64_t columns, const hv cv[8]) {
  for (int i = 0; i < 8; i++) memcpy(out + i * columns, &cv[i], sizeof(hv));
}

static void chunk_range(void *p, int64_t begin, int64_t end) {
  hash_job *job = p;
  for (int64_t at = begin * HASH_LANES; at < end * HASH_LANES; at += HASH_LANES) {
    hv cv[8], m[16];
    load_key(cv, job->key);
    for (int64_t row = 0; row < job->rows; row += 8) {
      int count = job->rows - row < 8 ? (int)(job->rows - row) : 8;
      for (int i = 0; i < 8; i++) {
        hw words = {0};
        if (i < count) memcpy(&words, job->in + (row + i) * job->columns + at, sizeof words);
        m[2 * i] = __builtin_convertvector(words, hv);
        m[2 * i + 1] = __builtin_convertvector(words >> 32, hv);
      }
      uint32_t first = row == 0 ? CHUNK_START : 0, last = row + 8 >= job->rows ? CHUNK_END | job->flags : 0;
      hash_compress(cv, m, job->counter, 8 * (uint32_t)count, KEYED | first | last);
    }
    store_values(job->out + at, job->columns, cv);
  }
}
// One chunk (1 to 128 rows) of each column. columns: a multiple of 16. is_root: the chunk is the whole message.
void proof_column_chunk(const fe *in, int64_t rows, int64_t columns, int64_t counter, const uint32_t *key, int is_root,
                        uint32_t *out) {
  hash_job job = {.in = in, .key = key, .out = out, .rows = rows, .columns = columns, .counter = (uint64_t)counter,
                  .flags = is_root ? ROOT : 0};
  parallel_for(chunk_range, &job, columns / HASH_LANES, 32768 / (HASH_LANES * rows) + 1);
}

static void parent_range(void *p, int64_t begin, int64_t end) {
  hash_job *job = p;
  for (int64_t at = begin * HASH_LANES; at < end * HASH_LANES; at += HASH_LANES) {
    hv cv[8], m[16];
    load_key(cv, job->key);
    for (int i = 0; i < 8; i++) {
      memcpy(&m[i], job->left + i * job->columns + at, sizeof(hv));
      memcpy(&m[8 + i], job->right + i * job->columns + at, sizeof(hv));
    }
    hash_compress(cv, m, 0, 64, KEYED | PARENT | job->flags);
    store_values(job->out + at, job->columns, cv);
  }
}
// Joins two subtrees of each column's chunks.
void proof_column_parent(const uint32_t *left, const uint32_t *right, int64_t columns, const uint32_t *key, int is_root,
                         uint32_t *out) {
  hash_job job = {.left = left, .right = right, .key = key, .out = out, .columns = columns,
                  .flags = is_root ? ROOT : 0};
  parallel_for(parent_range, &job, columns / HASH_LANES, 4096);
}

static void pair_range(void *p, int64_t begin, int64_t end) {
  hash_job *job = p;
  for (int64_t at = begin; at < end; at += HASH_LANES) {
    uint32_t words[16][HASH_LANES] = {{0}};
    int count = end - at < HASH_LANES ? (int)(end - at) : HASH_LANES;
    for (int k = 0; k < count; k++)
      for (int i = 0; i < 16; i++) words[i][k] = job->left[(at + k) * 16 + i];
    hv cv[8], m[16];
    memcpy(m, words, sizeof m);
    load_key(cv, job->key);
    hash_compress(cv, m, 0, 64, KEYED | CHUNK_START | CHUNK_END | ROOT);
    memcpy(words, cv, sizeof cv);
    for (int k = 0; k < count; k++)
      for (int i = 0; i < 8; i++) job->out[(at + k) * 8 + i] = words[i][k];
  }
}
// One level of a Merkle tree: digests (2 n, 32 bytes) -> (n, 32 bytes), each the hash of two.
void proof_hash_pairs(const uint32_t *in, int64_t n, const uint32_t *key, uint32_t *out) {
  hash_job job = {.left = in, .key = key, .out = out};
  parallel_for(pair_range, &job, n, 4096);
}
