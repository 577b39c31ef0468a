/* Written by csrc/generate.py from the formulas in fastnet/optim/sgd.py: change those. */
#ifndef FASTNET_SGD_UPDATE_H
#define FASTNET_SGD_UPDATE_H

#include "lib/formula.h"

enum { SGD_UPDATE_NUMBERS = 3 };

static inline void sgd_update_numbers(real number[], const double *hyper) {
    const double lr_ = hyper[0];
    const double weight_decay_ = hyper[1];
    const double shrink_ = hyper[2];
    number[0] = R(-lr_);
    number[1] = R(weight_decay_);
    number[2] = R(shrink_);
}

static inline __attribute__((always_inline)) void
sgd_update_element(real *w, const real *g, const real *number) {
    const real w_ = *w;
    const real g_ = *g;
    *w = madd(number[0], madd(number[1], w_, g_), number[2] * w_);
}

#endif
