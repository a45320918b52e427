// Runs the kernels on made-up data and prints what comes out, one number per line: the same program built for two CPUs
// must print the same numbers (integers exactly, floats nearly). Built and run by tests/kernels/test_cross.py.
#define _GNU_SOURCE
#include "shoal.c"
#include <stdio.h>

static uint32_t state = 1;
static uint32_t next_random(void) { return state = state * 1664525u + 1013904223u; }
static float uniform(void) { return (float)(next_random() >> 8) * 0x1p-23f - 1.0f; }

static void set_scales(int storage, uint8_t *row, int columns) {
  static const int at[S_COUNT][2] = {[S_Q4_1] = {0, 2}, [S_Q5_1] = {0, 2}, [S_Q4_K] = {0, 2}, [S_Q5_K] = {0, 2}, [S_Q6_K] = {208, 208}};
  for (int b = 0; b < columns / STORAGE[storage].block; b++)
    for (int i = 0; i < 2; i++) {
      uint16_t h = float_to_half(0.01f * uniform());
      memcpy(row + b * STORAGE[storage].bytes + at[storage][i], &h, 2);
    }
}

static void products(int storage) {
  enum { ROWS = 37, COLUMNS = 512, M = 11 };
  int width = STORAGE[storage].bytes * COLUMNS / STORAGE[storage].block;
  uint8_t *raw = malloc((size_t)ROWS * width), *packed = calloc(1, (size_t)shoal_packed_bytes(storage, ROWS, COLUMNS));
  float *x = malloc(4 * M * COLUMNS), *y = malloc(4 * M * ROWS);
  block8 *a = malloc(sizeof(block8) * M * COLUMNS / 32);
  for (int i = 0; i < ROWS * width; i++) raw[i] = (uint8_t)(next_random() >> 24);
  if (storage == S_F32)
    for (int i = 0; i < ROWS * COLUMNS; i++) ((float *)raw)[i] = uniform();
  else if (storage < S_Q8_0)
    for (int i = 0; i < ROWS * COLUMNS; i++) {
      float f = uniform();
      uint32_t bits;
      memcpy(&bits, &f, 4);
      ((uint16_t *)raw)[i] = storage == S_BF16 ? (uint16_t)(bits >> 16) : float_to_half(f);
    }
  else
    for (int r = 0; r < ROWS; r++) set_scales(storage, raw + r * width, COLUMNS);
  for (int i = 0; i < M * COLUMNS; i++) x[i] = 3 * uniform();
  matrix w;
  if (shoal_pack(storage, raw, ROWS, COLUMNS, packed, &w)) abort();
  for (int m = 0; m < M; m++) quantize_row(x + m * COLUMNS, COLUMNS, a + m * COLUMNS / 32, NULL);
  output o = {&w, NULL, y, ROWS, 0};
  gemm_groups(&o, (rows_in){x, a, NULL}, M, 0, matrix_groups(&w), NULL);
  for (int i = 0; i < M * ROWS; i++) printf("%.9g\n", y[i]);
  unpack_row(&w, 19, x);
  for (int i = 0; i < COLUMNS; i += 7) printf("%.9g\n", x[i]);
  free(raw), free(packed), free(x), free(y), free(a);
}

// Ten queries at once, then one whose segments of keys are apart, over 300 cached positions.
static void attention(int type, int dim) {
  enum { KEYS_USED = 300, HEADS = 6, KV_HEADS = 2, BLOCK_SIZE = 32, NUM_BLOCKS = 10, ROWS = 10 };
  int64_t size = (int64_t)BLOCK_SIZE * KV_HEADS * (type == KV_INT8 ? dim + 4 : dim * (int)element_bytes(type));
  cache c = {calloc(NUM_BLOCKS, (size_t)size), calloc(NUM_BLOCKS, (size_t)size), BLOCK_SIZE, KV_HEADS, dim, type, NUM_BLOCKS * size, size};
  float row[2][KV_HEADS * 256], *q = malloc(4 * ROWS * HEADS * (size_t)dim), *out = malloc(4 * ROWS * HEADS * (size_t)dim);
  int32_t table[NUM_BLOCKS], positions[ROWS], start[2] = {0, ROWS}, length = KEYS_USED;
  for (int i = 0; i < NUM_BLOCKS; i++) table[i] = (3 * i + 1) % NUM_BLOCKS;
  for (int p = 0; p < KEYS_USED; p++) {
    for (int i = 0; i < KV_HEADS * dim; i++) row[0][i] = 2 * uniform(), row[1][i] = uniform();
    write_kv_row(&c, 0, table[p / BLOCK_SIZE] * BLOCK_SIZE + p % BLOCK_SIZE, row[0], row[1]);
  }
  for (int i = 0; i < ROWS * HEADS * dim; i++) q[i] = 2 * uniform();
  for (int i = 0; i < ROWS; i++) positions[i] = KEYS_USED - ROWS + i;
  attention_scratch *t = malloc(sizeof *t);
  attention_args a = {q, out, HEADS, 0, 0, 1 / sqrtf((float)dim), 0};
  for (int rows = ROWS; rows > 0; rows -= ROWS - 1) {
    batch b = {.positions = positions + ROWS - rows, .query_start = start, .context_lens = &length, .block_tables = table,
               .partials = malloc(4 * (size_t)(rows * HEADS * 2 * (dim + 2))), .rows = rows, .seqs = 1, .max_blocks = NUM_BLOCKS, .segments = 2};
    int threads = rows == 1 ? 8 : 1;
    start[1] = rows;
    for (int i = 0, n = attention_pieces(&c, &b, &a, threads); i < n; i++) attention_piece(&c, &b, &a, t, threads, i);
    for (int i = 0, n = merge_pieces(&c, &b, &a, threads); i < n; i++) merge_piece(&c, &b, &a, i);
    for (int i = 0; i < rows * HEADS * dim; i++) printf("%.9g\n", out[i]);
    free(b.partials);
  }
  free(c.k), free(c.v), free(q), free(out), free(t);
}

static void functions(void) {
  for (float f = -100; f < 100; f += 0.37f) {
    vf v = vf_set1(f), e = vf_exp(v), s = vf_silu(v), g = vf_gelu_tanh(v), t = vf_tanh(v);
    printf("%.9g\n%.9g\n%.9g\n%.9g\n", e[0] / (1 + e[0]), s[LANES - 1], g[1], t[2]);
  }
  for (uint32_t h = 0; h < 0x7c00; h += 97) printf("%.9g\n%d\n", half_to_float((uint16_t)h), float_to_half(half_to_float((uint16_t)h) * 1.0001f));
}

int main(void) {
  for (int storage = 0; storage < S_COUNT; storage++) products(storage);
  for (int type = KV_F32; type <= KV_INT8; type++) attention(type, 16 * (3 + type));
  functions();
  return 0;
}
