/* Weights (I, O) rounded to bfloat16 once and kept, as pairs in panels: see pairs_of in fastnet/layers/bfloat16_linear.py.
 *
 * A pair is a word of 32 bits, w[2u][o] below w[2u + 1][o]. A panel has PANEL_COLUMNS neighbouring columns; its pairs of
 * one u lie one after the other, and those of u + 1 follow. Beyond w there are zeros. So the layout is the same at all
 * levels: where lanes are pairs, tiles read a panel in place; elsewhere words become two lanes by a shift and a mask.
 */
#ifndef FASTNET_PAIRS_H
#define FASTNET_PAIRS_H

#include "lib/simd.h"
#include "products/operand.h"

enum { PANEL_COLUMNS = 32 };
_Static_assert((int)PANEL_COLUMNS % (2 * (int)WIDTH) == 0, "a register tile reads one panel");

/* The words of pair u of the panel of column j, from column j on; there are `pairs` along I. */
static inline const uint32_t *words_at(const uint32_t *words, int64_t pairs, int64_t u, int64_t j) {
    return words + (j / PANEL_COLUMNS * pairs + u) * PANEL_COLUMNS + j % PANEL_COLUMNS;
}

/* The bits of x rounded to bfloat16, as `rounded` does. */
static inline uint32_t bfloat16_bits(real given) {
    const float x = (float)given;
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    const uint32_t number = (bits + 0x7fff + (bits >> 16 & 1)) >> 16, sign = bits >> 16 & 0x8000;
    const uint32_t finite = (bits & 0x7f800000) ? number : sign;
    return (bits & 0x7fffffff) > 0x7f800000 ? bits >> 16 | 0x40 : finite;
}

/* Pairs [begin, end) of all panels. Rows of w are read one after the other. */
static inline void pack_pairs(uint32_t *restrict words, const real *restrict w, int64_t I, int64_t O, int64_t begin,
                              int64_t end) {
    const int64_t pairs = (I + 1) / 2;
    for (int64_t u = begin; u < end; u++) {
        const real *const first = w + 2 * u * O, *const second = 2 * u + 1 < I ? first + O : NULL;
        for (int64_t j = 0; j < O; j += PANEL_COLUMNS) {
            uint32_t *const to = (uint32_t *)words_at(words, pairs, u, j);
            const int64_t n = smaller(PANEL_COLUMNS, O - j);
            if (second)
                for (int64_t k = 0; k < n; k++)
                    to[k] = bfloat16_bits(first[j + k]) | bfloat16_bits(second[j + k]) << 16;
            else
                for (int64_t k = 0; k < n; k++)
                    to[k] = bfloat16_bits(first[j + k]);
            for (int64_t k = n; k < PANEL_COLUMNS; k++)
                to[k] = 0;
        }
    }
}

/* What one multiplication takes of WIDTH words: the pairs themselves, or the numbers of lane 2u + `odd`; of two lanes the
 * even one has the second number (operand.h). */
static inline __attribute__((always_inline)) vec lane_of_words(const uint32_t *words, int odd) {
#if BFLOAT16_PAIRS
    (void)odd;
    return load((const real *)words);
#elif REAL_IS_DOUBLE
    vec lanes; /* for tests */
    for (int i = 0; i < WIDTH; i++) {
        const uint32_t bits = odd ? words[i] << 16 : words[i] & 0xffff0000;
        float number;
        memcpy(&number, &bits, sizeof number);
        lanes[i] = number;
    }
    return lanes;
#else
    typedef uint32_t word __attribute__((vector_size(VECTOR_BYTES)));
    const word pair = (word)load((const real *)words);
    return (vec)(odd ? pair << 16 : pair & 0xffff0000);
#endif
}

#if !BFLOAT16_PAIRS
/* The words of `pairs` rows of a panel as rows of lanes, `width` wide. */
static inline void spread_pairs(real *to, const uint32_t *words, int64_t lanes, int64_t width) {
    for (int64_t u = 0; u < lanes; u++)
        for (int64_t j = 0; j < width; j += WIDTH)
            store(to + u * width + j, lane_of_words(words + u / 2 * PANEL_COLUMNS + j, (int)u % 2));
}
#endif

#endif
