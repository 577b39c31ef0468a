/* Philox4x32-10 (J. K. Salmon et al., SC 2011), as fastnet/random.py draws it: sixteen neighbouring
 * blocks at a time, one in each lane, so that a draw is four whole vectors of words. */
#ifndef FASTNET_RNG_H
#define FASTNET_RNG_H

#include "kernel.h"

enum { DRAW = 4 * LANES }; /* words of a draw: those of elements draw·64 … draw·64 + 63 */

static inline void philox_draw(uint32_t word[4][LANES], int64_t draw, uint64_t seed, uint64_t step,
                               uint32_t stream) {
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int l = 0; l < LANES; l++) {
        word[0][l] = (uint32_t)draw * LANES + (uint32_t)l;
        word[1][l] = (uint32_t)step;
        word[2][l] = (uint32_t)(step >> 32);
        word[3][l] = stream;
    }
    for (int round = 0; round < 10; round++) {
        for (int l = 0; l < LANES; l++) {
            const uint64_t p0 = (uint64_t)word[0][l] * 0xD2511F53u;
            const uint64_t p1 = (uint64_t)word[2][l] * 0xCD9E8D57u;
            word[0][l] = (uint32_t)(p1 >> 32) ^ word[1][l] ^ k0;
            word[1][l] = (uint32_t)p1;
            word[2][l] = (uint32_t)(p0 >> 32) ^ word[3][l] ^ k1;
            word[3][l] = (uint32_t)p0;
        }
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
}

#endif
