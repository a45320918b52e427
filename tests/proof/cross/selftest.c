// Runs the proof system's loops on made-up data, edges included, and prints a checksum of each result: the same program
// built for two CPUs must print the same lines. Built and run by tests/proof/test_proof_cross.py.
#include "proof.c"
#include <stdio.h>
#include <stdlib.h>

enum { N = 1037, ROWS = 131, COLUMNS = 64, BLOWUP = 4 };
static uint64_t state = 88172645463325252ull;
static uint64_t next_random(void) { return state ^= state << 13, state ^= state >> 7, state ^= state << 17; }

static const fe EDGES[] = {0, 1, 7, 0xFFFFFFFFull, 0x100000000ull, 0x8000000000000000ull, FIELD_P / 2, FIELD_P - 1};
static void fill(fe *out, int64_t n) {
  for (int64_t i = 0; i < n; i++) out[i] = i % 5 == 0 ? EDGES[next_random() % 8] : next_random() % FIELD_P;
}
static void print(const char *name, const void *data, size_t size) {
  uint64_t hash = 14695981039346656037ull;
  for (size_t i = 0; i < size; i++) hash = (hash ^ ((const uint8_t *)data)[i]) * 1099511628211ull;
  printf("%s %016llx\n", name, (unsigned long long)hash);
}

static fe a[2 * N], b[2 * N], out[4 * N], matrix[ROWS * COLUMNS], code[ROWS * COLUMNS * BLOWUP], roots[COLUMNS];
static uint32_t chunks[2][8 * COLUMNS * BLOWUP], digests[8 * COLUMNS * BLOWUP];

static void vectors(void) {
  static const char *names[] = {"add", "sub", "mul"};
  for (int op = 0; op < 3; op++) {
    proof_base_map(op, a, 1, b, 1, out, 2 * N);
    print(names[op], out, sizeof(fe) * 2 * N);
  }
  proof_ext_mul(0, (fx *)a, 1, b, 1, (fx *)out, N);
  print("ext mul", out, sizeof(fx) * N);
  proof_ext_mul(1, (fx *)a, 1, b, 0, (fx *)out, N);
  print("ext scale", out, sizeof(fx) * N);
  proof_eq_step((fx *)a, N, (fx *)b, (fx *)out);
  print("eq", out, sizeof(fx) * 2 * N);
  for (int is_base = 0; is_base < 2; is_base++) {
    proof_fold(is_base, a, N / 2, (fx *)b, (fx *)out);
    print("fold", out, sizeof(fx) * (N / 2));
  }
  proof_dot_ext((fx *)a, (fx *)b, N, (fx *)out);
  proof_dot_base_ext(a, (fx *)b, N, (fx *)out + 1);
  for (int size = 1; size <= 2; size++) proof_contract(size, a, 1, 301, 1, (fx *)b, 1, (fx *)out + 1 + size);
  print("dot", out, sizeof(fx) * 4);
  for (int size = 1; size <= 8; size *= 2) {
    proof_from_ints(a, size, out, N);
    print("from ints", out, sizeof(fe) * N);
  }
}

static fe power(fe base, uint64_t exponent) {
  fe result = 1;
  for (; exponent; exponent >>= 1, base = fe_mul(base, base))
    if (exponent & 1) result = fe_mul(result, base);
  return result;
}

static void commitment(void) {
  fill(a, COLUMNS * BLOWUP);  // any shifts will do: it is arithmetic that is compared
  for (uint64_t half = 1; half < COLUMNS; half *= 2)
    for (uint64_t j = 0; j < half; j++) roots[half + j] = power(power(7, (FIELD_P - 1) / (2 * half)), j);
  proof_encode(matrix, ROWS, COLUMNS, BLOWUP, a, roots, code);
  print("encode", code, sizeof code);
  proof_column_chunk(code, 128, COLUMNS * BLOWUP, 0, (uint32_t *)b, 0, chunks[0]);
  proof_column_chunk(code + 128 * COLUMNS * BLOWUP, ROWS - 128, COLUMNS * BLOWUP, 1, (uint32_t *)b, 0, chunks[1]);
  proof_column_parent(chunks[0], chunks[1], COLUMNS * BLOWUP, (uint32_t *)b, 1, digests);
  print("columns", digests, sizeof digests);
  proof_hash_pairs(digests, COLUMNS * BLOWUP / 2, (uint32_t *)b, chunks[0]);
  print("pairs", chunks[0], sizeof chunks[0] / 2);
  proof_combine_rows(matrix, ROWS, COLUMNS - 3, (fx *)b, (fx *)out);
  print("combine", out, sizeof(fx) * (COLUMNS - 3));
}

// a and b as tables of extension elements, the second half of which may be short.
static void sumchecks(void) {
  const fx *p = (fx *)a, *q = (fx *)b, *weights = (fx *)matrix;
  fx *r = (fx *)out, one = {1, 0};
  for (int is_base = 0; is_base < 2; is_base++) {
    proof_round_sums(is_base, a, q, 1000, 512, 1, &one, 0, &one, 1, r);
    proof_round_sums(is_base, a, q, 1000, 512, 1, weights, 1, &one, 1, r + 2);
    proof_round_sums(is_base, a, q, 50, 32, 20, weights, 1, weights + 40, 10, r + 4);
    proof_fraction_sums(is_base, a, q, q + 300, p, 256, 211, weights, weights + 9, 4, weights + 20, 64, r + 6);
    proof_fraction_sums(is_base, a, q, q + 300, p, 8, 13, weights, weights + 9, 2, weights + 20, 4, r + 8);
    print("round sums", r, sizeof(fx) * 10);
    proof_short_fold(is_base, a, 900, 512, q, weights, r);
    print("short fold", r, sizeof(fx) * 512);
    proof_fraction_layer(is_base, a, q, 512, 400, r, r + 512);
    print("fraction layer", r, sizeof(fx) * 1024);
  }
  proof_add_outer(r, p, 30, q, 33);
  print("add outer", r, sizeof(fx) * 990);
  proof_eq_prefix(p, 10, 777, r);
  print("eq prefix", r, sizeof(fx) * 777);
  const int kinds[] = {1, 2, 4, 8, 9, 16};
  for (int k = 0; k < 6; k++) {
    proof_contract(kinds[k], b, 2, 20, 20, p, 2, r);
    proof_contract(kinds[k], b, 40, 20, 1, p, 1, r + 80);
    print("contract", r, sizeof(fx) * 120);
  }
}

int main(void) {
  proof_set_threads(2);
  fill(a, 2 * N), fill(b, 2 * N), fill(matrix, ROWS * COLUMNS);
  vectors();
  commitment();
  sumchecks();
  return 0;
}
