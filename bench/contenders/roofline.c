/* What one core can do at best: roofline.py compiles this for the machine and times it. */
#include <math.h>
#include <stdint.h>

#if defined(__AVX512F__)
enum { BYTES = 64, CHAINS = 24 }; /* of a vector; independent sums, which hide the latency */
#elif defined(__AVX__)
enum { BYTES = 32, CHAINS = 12 };
#else
enum { BYTES = 16, CHAINS = 24 };
#endif
enum { LANES = BYTES / 4, TURNS = 1024, ELEMENTS = 4096 };
typedef float vector __attribute__((vector_size(BYTES)));
typedef uint64_t words __attribute__((vector_size(BYTES), aligned(8), may_alias));

/* The product of the low halves of lanes of 64 bits. */
#if defined(__AVX512F__)
#include <immintrin.h>
#define PRODUCT(a, b) ((words)_mm512_mul_epu32((__m512i)(a), _mm512_set1_epi64(b)))
#elif defined(__AVX2__)
#include <immintrin.h>
#define PRODUCT(a, b) ((words)_mm256_mul_epu32((__m256i)(a), _mm256_set1_epi64x(b)))
#else
#define PRODUCT(a, b) (((a) & 0xFFFFFFFFu) * (uint64_t)(b))
#endif

static volatile float sink;

/* Flops of one unit of multiply_add; elements of one of root_divide and philox. */
int64_t flops(void) { return 2ll * TURNS * CHAINS * LANES; }
int64_t elements(void) { return ELEMENTS; }

void multiply_add(int64_t units) {
    vector sum[CHAINS], a = {0}, b = {0};
    a += 0.999f;
    b += 0.001f;
    for (int c = 0; c < CHAINS; c++)
        sum[c] = a * (float)c;
    for (int64_t i = 0; i < units * TURNS; i++)
#pragma GCC unroll 24
        for (int c = 0; c < CHAINS; c++)
            sum[c] = sum[c] * a + b;
    for (int c = 0; c < CHAINS; c++)
        sink = sum[c][0];
}

/* a / √a over an array that stays in the L1 cache. */
void root_divide(int64_t units, float *from, float *to) {
    for (int64_t unit = 0; unit < units; unit++) {
        for (int i = 0; i < ELEMENTS; i++)
            to[i] = from[i] / sqrtf(from[i]);
        __asm__ volatile("" ::: "memory");
    }
}

/* Changing n floats in place; a unit moves 8 n bytes. */
void change(int64_t units, float *values, int64_t n) {
    for (int64_t unit = 0; unit < units; unit++) {
        for (int64_t i = 0; i < n; i++)
            values[i] = 1.0f - values[i];
        __asm__ volatile("" ::: "memory");
    }
}

/* Philox4x32-10, STREAMS vectors of counters at a time, each word in a lane of 64 bits. */
void philox(int64_t units, uint64_t *to) {
    enum { STREAMS = 4, WORDS = 4 * STREAMS * BYTES / 8 };
    for (int64_t unit = 0; unit < units; unit++) {
        for (int64_t word = 0; word < ELEMENTS; word += WORDS) {
            words a[STREAMS], b[STREAMS], c[STREAMS] = {0}, d[STREAMS] = {0};
            uint32_t key0 = 1, key1 = 2;
            for (int s = 0; s < STREAMS; s++) {
                a[s] = (words){0} + (uint64_t)(word + s);
                b[s] = (words){0} + (uint64_t)unit;
            }
#pragma GCC unroll 10
            for (int round = 0; round < 10; round++) {
#pragma GCC unroll 4
                for (int s = 0; s < STREAMS; s++) {
                    const words p = PRODUCT(a[s], 0xD2511F53u);
                    const words q = PRODUCT(c[s], 0xCD9E8D57u);
                    a[s] = (q >> 32) ^ b[s] ^ key0;
                    b[s] = q;
                    c[s] = (p >> 32) ^ d[s] ^ key1;
                    d[s] = p;
                }
                key0 += 0x9E3779B9u;
                key1 += 0xBB67AE85u;
            }
            for (int s = 0; s < STREAMS; s++)
                *(words *)(to + word / 4 + s * (BYTES / 8)) = a[s] ^ b[s] ^ c[s] ^ d[s];
        }
        __asm__ volatile("" ::: "memory");
    }
}
