// What a core could do at best, for bench/kernels.py: integer dot products between registers, and plain reads of memory.
#include <stddef.h>
#include <stdint.h>
#include <string.h>

// DOT(i): one instruction of four products per 32-bit lane (AVX2: two per 16-bit lane), into sum number i.
#if defined(__AVX512VNNI__)
#define DOT(i) "vpdpbusd %%zmm14, %%zmm15, %%zmm" #i "\n"
#define USED "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11"
enum { PRODUCTS = 64 };
#elif defined(__AVXVNNI__)
#define DOT(i) "{vex} vpdpbusd %%ymm14, %%ymm15, %%ymm" #i "\n"
#define USED "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11"
enum { PRODUCTS = 32 };
#elif defined(__AVX2__)
#define DOT(i) "vpmaddubsw %%ymm14, %%ymm15, %%ymm" #i "\n"
#define USED "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11"
enum { PRODUCTS = 32 };
#elif defined(__ARM_FEATURE_DOTPROD)
#define DOT(i) "sdot v" #i ".4s, v14.16b, v15.16b\n"
#define USED "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11"
enum { PRODUCTS = 16 };
#else
enum { PRODUCTS = 0 };
#endif

// Products of one dot instruction; 0: plain C, which has none.
int ceiling_products(void) { return PRODUCTS; }

// 12 x rounds dot instructions.
void ceiling_dots(int64_t rounds) {
#if defined(DOT)
  for (int64_t i = 0; i < rounds; i++)
    __asm__ volatile(DOT(0) DOT(1) DOT(2) DOT(3) DOT(4) DOT(5) DOT(6) DOT(7) DOT(8) DOT(9) DOT(10) DOT(11) ::: USED);
#else
  (void)rounds;
#endif
}

// Reads `size` bytes (a multiple of 256) once.
void ceiling_reads(const uint8_t *p, int64_t size) {
  typedef int64_t line __attribute__((vector_size(64)));
  line sums[4] = {{0}}, read;
  for (int64_t i = 0; i < size; i += 256)
    for (int j = 0; j < 4; j++) {
      memcpy(&read, p + i + 64 * j, 64);
      sums[j] ^= read;
    }
  __asm__ volatile("" ::"m"(sums) : "memory");
}
