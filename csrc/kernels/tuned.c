/* Optimizers that tune their own rate. Formulas: tuned.py, yellowfin.py and hypergradient.py in fastnet/optim. */
#include "engine/share.h"
#include "lib/formula.h"
#include "lib/reduce.h"
#include <math.h>

enum { GRAIN_OF_STEP = 2048, WINDOW = 128 };

/* Places in `tuning`, as in fastnet/optim/tuned.py. */
enum {
    SQUARES,
    PRODUCTS,
    NORMS,
    STEPS,
    WEIGHT,
    HIGHEST,
    LOWEST,
    MEAN_SQUARE,
    MEAN_NORM,
    DISTANCE,
    RATE,
    MOMENTUM,
    KEPT,
    CLIPPED,
    MEASURED,
    MEASURES,
    GIVEN = WEIGHT
};

KERNEL(past_products_update, INOUT_AS(double, tuning), INOUT_AS(double, sums), IN(w), IN(g), IN(past)) {
    const int64_t N = call->size[0], M = call->size[1], size = (N + M - 1) / M;
    const real weight_decay = (real)call->hyper[0];
    SHARED(r, call, M, 1)
        for (int64_t b = r.begin; b < r.end; b++) {
            const int64_t end = smaller((b + 1) * size, N);
            double squares[LANES] = {0}, products[LANES] = {0}, norms[LANES] = {0};
            int64_t first = smaller(b * size, N);
            for (; first + LANES <= end; first += LANES)
                for (int l = 0; l < LANES; l++) {
                    const double d = madd(weight_decay, w[first + l], g[first + l]), p = past[first + l];
                    squares[l] += d * d;
                    products[l] += d * p;
                    norms[l] += p * p;
                }
            FOLD(squares[l] += squares[l + half]);
            FOLD(products[l] += products[l + half]);
            FOLD(norms[l] += norms[l + half]);
            for (; first < end; first++) {
                const double d = madd(weight_decay, w[first], g[first]), p = past[first];
                squares[0] += d * d;
                products[0] += d * p;
                norms[0] += p * p;
            }
            sums[3 * b] = squares[0];
            sums[3 * b + 1] = products[0];
            sums[3 * b + 2] = norms[0];
        }
    together(call);
    if (is_first(call))
        for (int k = 0; k < 3; k++) {
            SUM(double, sum, M, sums[3 * i + k])
            tuning[SQUARES + k] += sum;
        }
}

KERNEL(tuned_step_update, INOUT(w), IN(past), IN_AS(double, tuning)) {
    const real push = (real)-tuning[RATE], shrink = (real)(1 - tuning[RATE] * call->hyper[0]);
    SHARED(r, call, call->size[0], GRAIN_OF_STEP)
        for (int64_t i = r.begin; i < r.end; i++)
            w[i] = madd(push, past[i], shrink * w[i]);
}

ELEMENT settled(real v) { return where(is_tiny(v), 0, v); }

/* The numbers of YellowFin's step. */
typedef struct {
    real weight_decay, smooth, fresh, momentum, push, shrink, decay;
} numbers;

static inline numbers numbers_of(const fn_call *call, const double *tuning) {
    const double lr = call->hyper[0], decay = call->hyper[2], smoothing = call->hyper[3];
    const double rate = lr * tuning[RATE];
    return (numbers){(real)call->hyper[1],
                     (real)smoothing,
                     (real)((1 - smoothing) * tuning[KEPT]),
                     (real)tuning[MOMENTUM],
                     (real)(rate * tuning[CLIPPED]),
                     (real)(1 - rate * decay),
                     (real)(rate * decay)};
}

KERNEL(yellowfin_update, INOUT(w), INOUT(v), INOUT(past), IN(g), IN_AS(double, tuning)) {
    const numbers n = numbers_of(call, tuning);
    SHARED(r, call, call->size[0], GRAIN_OF_STEP)
        for (int64_t i = r.begin; i < r.end; i++) {
            const real d = madd(n.weight_decay, w[i], g[i]);
            const real velocity = settled(madd(-n.push, d, n.momentum * v[i]));
            past[i] = settled(madd(n.fresh, d, n.smooth * past[i]));
            w[i] = madd(n.shrink, w[i], velocity);
            v[i] = velocity;
        }
}

KERNEL(yellowfin_closed_update, INOUT(w), INOUT(v), INOUT(past), INOUT(pushed), IN(g), IN_AS(double, tuning)) {
    const numbers n = numbers_of(call, tuning);
    SHARED(r, call, call->size[0], GRAIN_OF_STEP)
        for (int64_t i = r.begin; i < r.end; i++) {
            const real d = madd(n.weight_decay, w[i], g[i]);
            const real velocity = settled(madd(-n.push, d, n.momentum * v[i]));
            past[i] = settled(madd(n.fresh, d, n.smooth * past[i]));
            pushed[i] = madd(n.push, d, n.decay * w[i]);
            w[i] = madd(n.shrink, w[i], velocity);
            v[i] = velocity;
        }
}

/* The number whose bits are b in the order of real numbers: those of negative ones are inverted, and come first. */
#define SIGN ((bits)1 << (8 * sizeof(bits) - 1))

static inline real in_order(bits b) { return real_of(b & SIGN ? b ^ SIGN : ~b); }

/* The number with k smaller ones among the n numbers of x that are neither 0 nor NaN. Bit by bit, it is the greatest
 * number that at most k are less than. */
static real ranked(const real *x, int64_t n, int64_t zeros, int64_t k) {
    bits found = 0;
    for (bits bit = SIGN; bit; bit >>= 1) {
        const real bound = in_order(found | bit);
        int64_t less = bound > 0 ? -zeros : 0;
        for (int64_t i = 0; i < n; i++)
            less += x[i] < bound;
        if (bound == bound ? less <= k : !((found | bit) & SIGN))
            found |= bit;
    }
    return in_order(found);
}

KERNEL(yellowfin_median_update, INOUT_AS(double, tuning), IN(ratio)) {
    if (!is_first(call))
        return;
    const int64_t n = call->size[0];
    int64_t zeros = 0, count = 0;
    for (int64_t i = 0; i < n; i++) {
        zeros += ratio[i] == 0;
        count += ratio[i] == ratio[i];
    }
    count -= zeros;
    if (!count) {
        tuning[MEASURED] = tuning[MOMENTUM];
        return;
    }
    const double low = ranked(ratio, n, zeros, (count - 1) / 2), high = ranked(ratio, n, zeros, count / 2);
    tuning[MEASURED] = 0.5 * (low + high);
}

/* Functions of float64 in kernels of either dtype, as in fastnet/formulas/portable.py: additions, multiplications and
 * divisions alone. */
static double double_of(uint64_t b) {
    double x;
    memcpy(&x, &b, sizeof x);
    return x;
}

static double natural_log(double x) {
    if (!(x > 0 && x < INFINITY))
        return x == 0 ? -INFINITY : x > 0 ? x : NAN;
    const int small = x < 0x1p-1022;
    uint64_t b;
    x *= small ? 0x1p54 : 1;
    memcpy(&b, &x, sizeof b);
    int64_t exponent = (int64_t)(b >> 52) - 1022 - (small ? 54 : 0);
    double mantissa = double_of((b & 0xfffffffffffffu) | 0x3fe0000000000000u);
    if (mantissa < 0.70710678118654752440) {
        mantissa *= 2;
        exponent--;
    }
    const double s = (mantissa - 1) / (mantissa + 1), z = s * s;
    double series = 1.0 / 23;
    for (int k = 21; k > 0; k -= 2)
        series = series * z + 1.0 / k;
    return 2 * s * series + (double)exponent * 0.693147180559945309417;
}

static double natural_exp(double x) {
    if (x != x || x > 709)
        return x != x ? x : INFINITY;
    if (x < -700)
        return 0;
    const double shifted = x * 1.44269504088896340736 + 0x1.8p52, k = shifted - 0x1.8p52;
    const double r = (x - k * 0.693147180369123816490) - k * 1.90821492927058770002e-10;
    double series = 1;
    for (int n = 14; n > 0; n--)
        series = 1 + series * r / n;
    return series * double_of((uint64_t)((int64_t)k + 1023) << 52);
}

/* The cube root of x ≥ 0: Newton's iteration from within a factor of 2. */
static double cube_root(double x) {
    if (!(x > 0x1p-1022 && x < INFINITY))
        return x;
    uint64_t b;
    memcpy(&b, &x, sizeof b);
    const int64_t exponent = (int64_t)(b >> 52) - 1023;
    double root = double_of((uint64_t)((exponent + 3 * 400) / 3 - 400 + 1023) << 52) * 1.5;
    for (int i = 0; i < 7; i++)
        root = (2 * root + x / (root * root)) / 3;
    return root;
}

static double root_of(double distance, double lowest, double variance) {
    const double p = distance * lowest * (distance * lowest) / (2 * variance);
    if (p == 0)
        return 1;
    const double u = cube_root(0.5 * p * (1 + __builtin_sqrt(1 + 4 * p / 27)));
    double y = p / (3 * u) - u;
    y = y < -1 ? -1 : y;
    y = y > 0 ? 0 : y;
    return y * y / (y * y + p);
}

KERNEL(yellowfin_tune_update, INOUT_AS(double, tuning), INOUT_AS(double, recent)) {
    if (!is_first(call))
        return;
    const double smoothing = call->hyper[0], fresh = 1 - smoothing, window = call->hyper[1];
    const int logs = call->hyper[2] > 0, clipping = call->hyper[3] > 0, closed = call->hyper[4] > 0;
    const double gamma = call->hyper[5], eps = call->hyper[6];
    double *const t = tuning;
    const double steps = t[STEPS] > 0 ? t[STEPS] : 0;
    t[KEPT] = 1;
    if (clipping && steps >= 1) {
        const double before = t[HIGHEST] / t[WEIGHT], limit = 100 * (logs ? natural_exp(before) : before);
        if (t[SQUARES] > limit)
            t[KEPT] = __builtin_sqrt(limit / t[SQUARES]);
    }
    const double square = t[KEPT] * t[KEPT] * t[SQUARES];
    t[WEIGHT] = smoothing * t[WEIGHT] + fresh;
    /* Algorithm 2: the range of curvature. */
    const int64_t now = steps < 0x1p53 ? (int64_t)steps : 0;
    recent[now % WINDOW] = square + eps;
    double top = square + eps, bottom = top;
    for (int64_t i = now - (int64_t)window + 1 > 0 ? now - (int64_t)window + 1 : 0; i < now; i++) {
        const double x = recent[i % WINDOW];
        top = x > top || x != x ? x : top;
        bottom = x < bottom || x != x ? x : bottom;
    }
    t[HIGHEST] = smoothing * t[HIGHEST] + fresh * (logs ? natural_log(top) : top);
    t[LOWEST] = smoothing * t[LOWEST] + fresh * (logs ? natural_log(bottom) : bottom);
    double highest = t[HIGHEST] / t[WEIGHT], lowest = t[LOWEST] / t[WEIGHT];
    if (logs) {
        highest = natural_exp(highest);
        lowest = natural_exp(lowest);
    }
    /* Algorithm 3: the variance. */
    t[MEAN_SQUARE] = smoothing * t[MEAN_SQUARE] + fresh * square;
    const double mixed = 2 * smoothing * fresh * t[KEPT], own = fresh * fresh;
    const double of_mean = smoothing * smoothing * t[NORMS] + mixed * t[PRODUCTS] + own * square;
    double variance = t[MEAN_SQUARE] / t[WEIGHT] - of_mean / (t[WEIGHT] * t[WEIGHT]);
    variance = variance < eps ? eps : variance;
    /* Algorithm 4: the distance to the optimum. */
    t[MEAN_NORM] = smoothing * t[MEAN_NORM] + fresh * __builtin_sqrt(square);
    t[DISTANCE] = smoothing * t[DISTANCE] + fresh * (t[MEAN_NORM] / (t[MEAN_SQUARE] + eps * t[WEIGHT]));
    const double distance = t[DISTANCE] / t[WEIGHT] + eps;
    /* Algorithm 1, SingleStep. */
    const double root = root_of(distance, lowest, variance);
    const double ratio = highest / lowest, dynamic = __builtin_sqrt(ratio < 1 ? 1 : ratio);
    const double least = (dynamic - 1) / (dynamic + 1);
    double momentum = least * least > root * root ? least * least : root * root;
    const double rest = 1 - __builtin_sqrt(momentum), slow = (steps + 1) / (10 * window);
    double rate = rest * rest / lowest * (slow < 1 ? slow : 1);
    if (steps < 1) {
        momentum = 0;
        rate = 1e-4;
    }
    if (closed) { /* algorithm 5 */
        t[MEASURES] += 1;
        momentum = t[MOMENTUM] + (t[MEASURES] > 2 ? gamma * (momentum - t[MEASURED]) : 0);
    } else
        t[MEASURES] = 0;
    t[RATE] = rate;
    t[MOMENTUM] = momentum;
    t[STEPS] = steps + 1;
    t[CLIPPED] = clipping && t[SQUARES] > highest ? __builtin_sqrt(highest / t[SQUARES]) : 1;
    t[SQUARES] = t[PRODUCTS] = t[NORMS] = 0;
}

KERNEL(hypergradient_tune_update, INOUT_AS(double, tuning)) {
    if (!is_first(call))
        return;
    const double lr = call->hyper[0], hypergrad_lr = call->hyper[1];
    double *const t = tuning;
    if (t[STEPS] > 0 && t[GIVEN] == lr) {
        const double lengths = __builtin_sqrt(t[SQUARES]) * __builtin_sqrt(t[NORMS]);
        if (!(call->hyper[2] > 0))
            t[RATE] += hypergrad_lr * t[PRODUCTS];
        else if (lengths != 0)
            t[RATE] *= 1 + hypergrad_lr * (t[PRODUCTS] / lengths);
    } else
        t[RATE] = t[GIVEN] = lr;
    t[STEPS] += 1;
    t[SQUARES] = t[PRODUCTS] = t[NORMS] = 0;
}
