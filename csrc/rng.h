/* Philox4x32-10 (J. K. Salmon et al., SC 2011), as fastnet/random.py draws it: sixteen neighbouring
 * blocks at a time, one in each lane, so that a draw is four whole vectors of words. */
#ifndef FASTNET_RNG_H
#define FASTNET_RNG_H

#include "kernel.h"

enum { DRAW = 4 * LANES }; /* words of a draw: those of elements draw·64 … draw·64 + 63 */

static inline void philox_draw(uint32_t word[4][LANES], int64_t draw, uint64_t seed, uint64_t step,
                               uint32_t stream) {
    for (int l = 0; l < LANES; l++) {
        uint32_t c0 = (uint32_t)draw * LANES + (uint32_t)l, c1 = (uint32_t)step;
        uint32_t c2 = (uint32_t)(step >> 32), c3 = stream;
        uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
#pragma GCC unroll 10 /* so that the loop over the lanes is the one that becomes vectors */
        for (int round = 0; round < 10; round++) {
            const uint64_t p0 = (uint64_t)c0 * 0xD2511F53u, p1 = (uint64_t)c2 * 0xCD9E8D57u;
            c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
            c1 = (uint32_t)p1;
            c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
            c3 = (uint32_t)p0;
            k0 += 0x9E3779B9u;
            k1 += 0xBB67AE85u;
        }
        word[0][l] = c0;
        word[1][l] = c1;
        word[2][l] = c2;
        word[3][l] = c3;
    }
}

#endif
