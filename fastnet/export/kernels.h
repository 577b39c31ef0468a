/* The kernels of exported nets, those of forwards for one row, with the bits of the C backend's kernels in csrc/kernels.
 *
 * A function is found by its kernel's name, and its parameters by theirs: the tensors, sizes and numbers of the op, and
 * `rows`, which a function takes that goes over all rows itself. An absent tensor is NULL. The writer resolves REAL,
 * REAL_FN and REAL_IS_DOUBLE; `real` is the dtype. Sizes are int32_t. */

/* a·b + c, rounded once; with NO_FMA twice. */
ELEMENT madd(real a, real b, real c) {
#ifdef NO_FMA
    return a * b + c;
#else
    return REAL_FN(fma)(a, b, c);
#endif
}

/* `width` outputs from the o-th on, at most BLOCK: each adds its products in the order of the inputs. */
INLINED void columns(const int32_t width, real *RESTRICT y, const real *RESTRICT x, const real *RESTRICT w,
                     const real *RESTRICT b, int32_t I, int32_t O, int32_t o) {
    real sum[BLOCK] = {0};
    const real *row = w + o;
    for (int32_t i = 0; i < I; i++, row += O) {
        const real value = x[i];
        for (int32_t j = 0; j < width; j++)
            sum[j] = madd(value, row[j], sum[j]);
    }
    for (int32_t j = 0; j < width; j++)
        y[o + j] = b ? sum[j] + b[o + j] : sum[j];
}

/* All outputs, `width` at a time. The last ones may be computed twice. */
INLINED void all_columns(const int32_t width, real *RESTRICT y, const real *RESTRICT x, const real *RESTRICT w,
                         const real *RESTRICT b, int32_t I, int32_t O) {
    int32_t o = 0;
    for (; o + width <= O; o += width)
        columns(width, y, x, w, b, I, O, o);
    if (o < O)
        columns(width, y, x, w, b, I, O, O - width);
}

/* y = x·w + b, w by inputs. BLOCK: how many sums the registers hold. */
static void linear_forward(real *RESTRICT y, const real *RESTRICT x, const real *RESTRICT w, const real *RESTRICT b,
                           int32_t I, int32_t O) {
    if (BLOCK >= 64 && O >= 64)
        all_columns(64, y, x, w, b, I, O);
    else if (BLOCK >= 32 && O >= 32)
        all_columns(32, y, x, w, b, I, O);
    else if (BLOCK >= 16 && O >= 16)
        all_columns(16, y, x, w, b, I, O);
    else if (BLOCK >= 8 && O >= 8)
        all_columns(8, y, x, w, b, I, O);
    else if (O >= 4)
        all_columns(4, y, x, w, b, I, O);
    else
        all_columns(1, y, x, w, b, I, O);
}

/* y = x·wᵀ + b, w by outputs. */
static void transposed_linear_forward(real *RESTRICT y, const real *RESTRICT x, const real *RESTRICT w,
                                      const real *RESTRICT b, int32_t I, int32_t O) {
    for (int32_t o = 0; o < O; o++) {
        real sum = 0;
        for (int32_t i = 0; i < I; i++)
            sum = madd(x[i], w[o * I + i], sum);
        y[o] = b ? sum + b[o] : sum;
    }
}

/* Member n has the rows n, n + N, … */
static void linear_ensemble_forward(real *RESTRICT y, const real *RESTRICT x, const real *RESTRICT w,
                                    const real *RESTRICT b, int32_t I, int32_t O, int32_t N, int32_t rows) {
    for (int32_t r = 0, n = 0; r < rows; r++, n = n + 1 < N ? n + 1 : 0)
        linear_forward(y + r * O, x + r * I, w + n * I * O, b ? b + n * O : NULL, I, O);
}

static void scale_forward(real *y, const real *x, const real *w, int32_t N) {
    for (int32_t j = 0; j < N; j++)
        y[j] = x[j] * w[j];
}

static void shift_forward(real *y, const real *x, const real *b, int32_t N) {
    for (int32_t j = 0; j < N; j++)
        y[j] = x[j] + b[j];
}

static void affine_forward(real *y, const real *x, const real *w, const real *b, int32_t N) {
    for (int32_t j = 0; j < N; j++)
        y[j] = madd(x[j], w[j], b[j]);
}

static void batchnorm_inference_forward(real *y, const real *x, const real *gamma, const real *beta,
                                        const real *running_mean, const real *running_var, int32_t N, real eps) {
    for (int32_t j = 0; j < N; j++) {
        const real scale = 1 / REAL_FN(sqrt)(running_var[j] + eps) * (gamma ? gamma[j] : 1);
        y[j] = madd(x[j] - running_mean[j], scale, beta ? beta[j] : 0);
    }
}

static void blend_forward(real *y, const real *x, const real *f, const real *a, int32_t N) {
    for (int32_t j = 0; j < N; j++)
        y[j] = madd(a[j], f[j] - x[j], x[j]);
}

static void concat_forward(real *RESTRICT y, const real *RESTRICT a, const real *RESTRICT b, int32_t I, int32_t O) {
    for (int32_t i = 0; i < I; i++)
        y[i] = a[i];
    for (int32_t o = 0; o < O; o++)
        y[I + o] = b[o];
}

static void take_columns_forward(real *RESTRICT y, const real *RESTRICT x, const int32_t *RESTRICT places, int32_t M) {
    for (int32_t m = 0; m < M; m++)
        y[m] = x[places[m]];
}

/* NaN for a number that is no code, where the table has no row for unknown ones. */
static void embedding_forward(real *RESTRICT y, const real *RESTRICT x, const real *RESTRICT w, int32_t V, int32_t E,
                              int32_t N, int32_t place, int32_t unknown) {
    const int32_t count = V - unknown;
    const real code = x[place];
    const int known = code >= 0 && code < (real)count && code == (real)(int32_t)code;
    int32_t row = unknown ? count : -1;
    if (known)
        row = (int32_t)code;
    for (int32_t j = 0; j < place; j++)
        y[j] = x[j];
    for (int32_t j = place + 1; j < N; j++)
        y[j - 1] = x[j];
    for (int32_t e = 0; e < E; e++)
        y[N - 1 + e] = row < 0 ? REAL_FN(nan)("") : w[row * E + e];
}

static void spread_forward(real *RESTRICT y, const real *RESTRICT x, int32_t I, int32_t N, real factor) {
    for (int32_t n = 0; n < N; n++)
        for (int32_t i = 0; i < I; i++)
            y[n * I + i] = x[i] * factor;
}

static void sum_members_forward(real *RESTRICT y, const real *RESTRICT x, int32_t I, int32_t N, real factor) {
    for (int32_t i = 0; i < I; i++) {
        real sum = 0;
        for (int32_t n = 0; n < N; n++)
            sum += x[n * I + i];
        y[i] = sum * factor;
    }
}

static void log_mean_exp_forward(real *RESTRICT y, const real *RESTRICT x, int32_t I, int32_t N) {
    for (int32_t i = 0; i < I; i++) {
        real top = x[i], sum = 0;
        for (int32_t n = 1; n < N; n++)
            top = x[n * I + i] > top ? x[n * I + i] : top;
        top = top == -REAL_FN(inf)() ? 0 : top;
        for (int32_t n = 0; n < N; n++)
            sum += real_exp_below_0(x[n * I + i] - top);
        y[i] = top + real_log(sum / (real)N);
    }
}

static void glu_forward(real *RESTRICT y, const real *RESTRICT x, int32_t H) {
    for (int32_t j = 0; j < H; j++)
        y[j] = x[j] * real_sigmoid(x[H + j]);
}

static void swiglu_forward(real *RESTRICT y, const real *RESTRICT x, int32_t H) {
    for (int32_t j = 0; j < H; j++)
        y[j] = x[j] * real_sigmoid(x[j]) * x[H + j];
}

static void prelu_forward(real *y, const real *x, const real *a, int32_t N, int32_t A) {
    for (int32_t j = 0, k = 0; j < N; j++, k = k + 1 < A ? k + 1 : 0)
        y[j] = x[j] > 0 ? x[j] : a[k] * x[j];
}

/* w·x less the nearest integer. */
ELEMENT part_of_turn(real w, real x) {
    const real most = REAL(4194304.0f, 2251799813685248.0), turns = w * x;
    const real whole = REAL_FN(fabs)(turns) < most ? turns + ROUNDER - ROUNDER : turns;
    return madd(w, x, -whole);
}

static void angles_forward(real *RESTRICT y, const real *RESTRICT x, const real *RESTRICT w, const real *RESTRICT p,
                           int32_t I, int32_t K, int32_t M) {
    const int32_t S = M / (I * K);
    for (int32_t i = 0; i < I; i++)
        for (int32_t s = 0; s < S; s++)
            for (int32_t k = 0; k < K; k++) {
                const int32_t at = (i * S + s) * K + k;
                y[at] = madd(REAL(6.28318531f, 6.2831853071795864769), part_of_turn(w[i * K + k], x[i]), p[at]);
            }
}

ELEMENT within(real a, real low, real high) { return a < low ? low : a > high ? high : a; }

static void piecewise_forward(real *RESTRICT y, const real *RESTRICT x, const real *RESTRICT edge,
                              const real *RESTRICT scale, const real *RESTRICT ends, int32_t I) {
    for (int32_t i = 0, begin = 0; i < I; i++) {
        const int32_t end = (int32_t)ends[i], last = end - 1;
        for (int32_t m = begin; m < end; m++)
            y[m] = within((x[i] - edge[m]) * scale[m], m == begin ? (real)-1 : 0, m == last ? (real)2 : 1);
        begin = end;
    }
}

static void grouped_linear_forward(real *RESTRICT y, const real *RESTRICT x, const real *RESTRICT w,
                                   const real *RESTRICT b, const real *RESTRICT ends, int32_t I, int32_t E) {
    for (int32_t i = 0, begin = 0; i < I; i++) {
        const int32_t end = (int32_t)ends[i];
        linear_forward(y + i * E, x + begin, w + begin * E, b + i * E, end - begin, E);
        begin = end;
    }
}

enum { PLAIN, SQUARE, EXPONENTIAL, OF_THE_TOP, BELOW_THE_TOP, ONES, BELOW_ONE };

ELEMENT term_of(const int32_t kind, real x, real top) {
    if (kind == SQUARE)
        return x * x;
    if (kind == EXPONENTIAL)
        return real_exp_below_0(x);
    if (kind == OF_THE_TOP)
        return x < top ? 0 : real_exp_below_0(x - top);
    if (kind == BELOW_THE_TOP)
        return x < top ? real_exp_below_0(x - top) : 0;
    if (kind == ONES)
        return x < 1 ? 0 : x;
    if (kind == BELOW_ONE)
        return x < 1 ? x : 0;
    return x;
}

/* Sums of 16 lanes: a binary tree. */
ELEMENT sum_of_lanes(real lane[16]) {
    for (int32_t l = 0; l < 8; l++)
        lane[l] += lane[l + 8];
    for (int32_t l = 0; l < 4; l++)
        lane[l] += lane[l + 4];
    lane[0] += lane[2];
    lane[1] += lane[3];
    return lane[0] + lane[1];
}

/* The sum of n terms: term i goes to lane i % 16, then the lanes are added, then the remainder follows one by one. */
ELEMENT sum_of_terms(const int32_t kind, const real *x, int32_t n, real top) {
    int32_t i = 0;
    real sum = 0;
    if (n >= 16) {
        real lane[16] = {0};
        for (; i + 16 <= n; i += 16)
            for (int32_t l = 0; l < 16; l++)
                lane[l] += term_of(kind, x[i + l], top);
        sum = sum_of_lanes(lane);
    }
    for (; i < n; i++)
        sum += term_of(kind, x[i], top);
    return sum;
}

static real max_of(const real *x, int32_t n) {
    real max = -REAL_FN(inf)();
    for (int32_t i = 0; i < n; i++)
        max = x[i] > max ? x[i] : max;
    return max;
}

static void softmax_forward(real *y, const real *x, int32_t N) {
    const real top = max_of(x, N);
    for (int32_t c = 0; c < N; c++)
        y[c] = real_exp_below_0(x[c] - top);
    const real share = 1 / sum_of_terms(PLAIN, y, N, 0);
    for (int32_t c = 0; c < N; c++)
        y[c] *= share;
}

static void log_softmax_forward(real *y, const real *x, int32_t N) {
    const int32_t part = 1024;
    const real top = max_of(x, N);
    real total = 0;
    for (int32_t c = 0; c < N; c++)
        y[c] = x[c] - top;
    for (int32_t c = 0; c < N; c += part)
        total += sum_of_terms(EXPONENTIAL, y + c, N - c < part ? N - c : part, 0);
    total = real_log(total);
    for (int32_t c = 0; c < N; c++)
        y[c] -= total;
}

/* The sums of x − from and of its squares over a row. */
static void moments(double *sum, double *squares, const real *x, real from, int32_t N) {
    const int32_t part = 1024;
    *sum = *squares = 0;
    for (int32_t begin = 0; begin < N; begin += part) {
        const int32_t end = N - begin < part ? N : begin + part;
        real lane[16] = {0}, square[16] = {0};
        for (int32_t c = begin; c < end; c += 16)
            for (int32_t l = 0; l < 16; l++)
                if (c + l < end) {
                    const real d = x[c + l] - from;
                    lane[l] += d;
                    square[l] = madd(d, d, square[l]);
                }
        *sum += (double)sum_of_lanes(lane);
        *squares += (double)sum_of_lanes(square);
    }
}

ELEMENT positive_eps(real eps) { return eps > 0 ? eps : REAL(1.1920929e-7f, 2.220446049250313e-16); }

static void layernorm_forward(real *RESTRICT y, const real *RESTRICT x, const real *RESTRICT gamma,
                              const real *RESTRICT beta, int32_t N, real eps) {
    double sum, squares;
    real mean = x[0];
    moments(&sum, &squares, x, mean, N);
    mean += (real)(sum / (double)N);
    moments(&sum, &squares, x, mean, N);
    const double left = sum / (double)N;
    double variance = squares / (double)N - left * left;
    variance = variance < 0 ? 0 : variance;
    const real rstd = 1 / REAL_FN(sqrt)((real)variance + positive_eps(eps)), off = -(real)left * rstd;
    for (int32_t j = 0; j < N; j++) {
        const real xhat = madd(x[j] - mean, rstd, off), factor = gamma ? gamma[j] : 1;
        y[j] = beta ? madd(xhat, factor, beta[j]) : xhat * factor;
    }
}

static void rmsnorm_forward(real *RESTRICT y, const real *RESTRICT x, const real *RESTRICT gamma, int32_t N, real eps) {
    double sum, squares;
    moments(&sum, &squares, x, 0, N);
    const real rstd = 1 / REAL_FN(sqrt)((real)(squares / (double)N) + positive_eps(eps));
    for (int32_t j = 0; j < N; j++)
        y[j] = x[j] * rstd * (gamma ? gamma[j] : 1);
}

static void rescale_forward(real *y, const real *x, const real *c, const real *r, const real *f, int32_t N,
                            real offset) {
    for (int32_t j = 0; j < N; j++) {
        const real centred = (x[j] - c[j]) - r[j];
        y[j] = (f ? centred * f[j] : centred) + offset;
    }
}

/* The number of knots ≤ x. */
static int32_t knots_below(const real *k, int32_t K, real x) {
    int32_t low = 0;
    for (int32_t left = K; left > 0;) {
        const int32_t half = left / 2;
        if (k[low + half] <= x) {
            low += half + 1;
            left -= half + 1;
        } else {
            left = half;
        }
    }
    return low;
}

static void interpolate_forward(real *RESTRICT y, const real *RESTRICT x, const real *RESTRICT k,
                                const real *RESTRICT v, int32_t N, int32_t K) {
    for (int32_t j = 0; j < N; j++) {
        const real *const knot = k + j * K, *const value = v + j * K;
        const int32_t n = knots_below(knot, K, x[j]);
        if (x[j] != x[j])
            y[j] = x[j];
        else if (n == 0 || n == K)
            y[j] = value[n ? K - 1 : 0];
        else
            y[j] = value[n - 1] + (x[j] - knot[n - 1]) / (knot[n] - knot[n - 1]) * (value[n] - value[n - 1]);
    }
}

static void one_hot_forward(real *RESTRICT y, const real *RESTRICT x, const real *RESTRICT v,
                            const int32_t *RESTRICT source, int32_t O) {
    int found = 0;
    for (int32_t o = 0; o < O; o++) {
        const int32_t s = source[o];
        if (s < 0) {
            y[o] = x[-1 - s];
        } else if (o + 1 < O && source[o + 1] == s) {
            const int equal = x[s] == v[o];
            found |= equal;
            y[o] = equal ? 1 : 0;
        } else {
            y[o] = found ? 0 : 1;
            found = 0;
        }
    }
}

/* Squared distances of x to n centres, by differences. */
static void differences(real *RESTRICT d, const real *RESTRICT x, const real *RESTRICT mu, int32_t I, int32_t J,
                        int32_t n) {
    for (int32_t j = 0; j < n; j++) {
        real sum = 0;
        for (int32_t i = 0; i < I; i++) {
            const real difference = x[i] - mu[i * J + j];
            sum = madd(difference, difference, sum);
        }
        d[j] = sum;
    }
}

/* Whether products surely cancel: a guess by some inputs of the first and the last of n centres. */
static int centres_are_far(const real *mu, const real *sigma, int32_t I, int32_t J, int32_t n) {
    const int32_t step = (I + 63) / 64;
    real norm = 0, distance = 0, share = 0;
    for (int32_t i = 0; i < I; i += step) {
        const real first = mu[i * J], difference = first - mu[i * J + n - 1];
        norm += first * first;
        distance += difference * difference;
        share += 1;
    }
    const real breadth = 2 * (sigma[0] * sigma[0]) * (share / (real)I);
    return norm > 8 * (distance > breadth ? distance : breadth);
}

/* Squared distances by ‖x‖² − 2x·μ + ‖μ‖²; returns whether any of them loses digits that differences keep. */
static int products(real *RESTRICT d, const real *RESTRICT x, real squared, const real *RESTRICT mu,
                    const real *RESTRICT sigma, int32_t I, int32_t J, int32_t n) {
    int cancels = 0;
    for (int32_t j = 0; j < n; j++) {
        real norm = 0, product = 0;
        for (int32_t i = 0; i < I; i++) {
            const real centre = mu[i * J + j];
            norm = madd(centre, centre, norm);
            product = madd(x[i], centre, product);
        }
        norm = squared + norm;
        const real difference = madd(-2, product, norm), distance = 0 > difference ? 0 : difference;
        const real most = REAL(3.4028235e38f, 1.7976931348623157e308), breadth = 16 * (sigma[j] * sigma[j]);
        d[j] = distance;
        cancels |= !(norm <= (8 * distance > breadth ? 8 * distance : breadth)) | !(distance <= most);
    }
    return cancels;
}

static void gaussian_basis_forward(real *RESTRICT y, real *RESTRICT d, const real *RESTRICT x, const real *RESTRICT mu,
                                   const real *RESTRICT sigma, int32_t I, int32_t J, int32_t M) {
    const real squared = sum_of_terms(SQUARE, x, I, 0), lowest = REAL(-104.0f, -745.2);
    for (int32_t j = 0; j < J; j += 64) {
        const int32_t n = J - j < 64 ? J - j : 64;
        if (I < 16 || centres_are_far(mu + j, sigma + j, I, J, n) ||
            products(d + j, x, squared, mu + j, sigma + j, I, J, n))
            differences(d + j, x, mu + j, I, J, n);
    }
    for (int32_t j = 0; j < J; j++) {
        const real exponent = d[j] * ((real)-0.5 / (sigma[j] * sigma[j]));
        const int is_0 = exponent < lowest;
        const real bump = real_exp_below_0(is_0 ? 0 : exponent);
        y[j] = is_0 ? 0 : bump;
    }
    for (int32_t j = J; j < M; j++)
        y[j] = 1;
}

/* The logarithms of the probabilities of a tree's classes. From the root downwards, a node's sum waits in the column of
 * its first leaf. */
static void tree_log_softmax_forward(real *RESTRICT y, const real *RESTRICT z, const int32_t *RESTRICT nodes,
                                     const int32_t *RESTRICT spans, const int32_t *RESTRICT children,
                                     const int32_t *RESTRICT leaves, int32_t C, int32_t N) {
    y[leaves[0]] = 0;
    for (int32_t node = C; node < N; node++) {
        const int32_t m = nodes[node * 4 + 3];
        const int32_t *const child = children + spans[node * 3];
        const real *const logit = z + nodes[node * 4 + 2];
        const real above = y[leaves[spans[node * 3 + 1]]];
        if (m == 2) {
            const real shared = real_log1p_exp(-REAL_FN(fabs)(*logit));
            y[leaves[spans[child[0] * 3 + 1]]] = above - ((*logit < 0 ? -*logit : 0) + shared);
            y[leaves[spans[child[1] * 3 + 1]]] = above - ((*logit < 0 ? 0 : *logit) + shared);
            continue;
        }
        const real top = max_of(logit, m), ones = sum_of_terms(OF_THE_TOP, logit, m, top);
        const real total = real_log1p(ones - 1 + sum_of_terms(BELOW_THE_TOP, logit, m, top));
        for (int32_t k = 0; k < m; k++)
            y[leaves[spans[child[k] * 3 + 1]]] = above + ((logit[k] - top) - total);
    }
}

/* Gradients. They take all rows, as each of a parameter's is a sum over rows in their order. */

/* dx of one of few rows, for 16 outputs or more: output o goes to lane o % 16, then the lanes are added. */
ELEMENT sum_along_row(const real *dy, const real *w, int32_t O) {
    real lane[16] = {0};
    int32_t o = 0;
    for (; o + 16 <= O; o += 16)
        for (int32_t l = 0; l < 16; l++)
            lane[l] = madd(w[o + l], dy[o + l], lane[l]);
    for (int32_t l = 0; o + l < O; l++)
        lane[l] = madd(w[o + l], dy[o + l], lane[l]);
    return sum_of_lanes(lane);
}

static void linear_vjp(real *RESTRICT dx, real *RESTRICT dw, real *RESTRICT db, const real *RESTRICT dy,
                       const real *RESTRICT x, const real *RESTRICT w, int32_t I, int32_t O, int32_t rows,
                       int32_t accumulate) {
    for (int32_t r = 0; dx && r < rows; r++)
        for (int32_t i = 0; i < I; i++) {
            const real *const slope = dy + r * O, *const row = w + i * O;
            real sum = 0;
            if (rows <= 4 && O >= 16)
                sum = sum_along_row(slope, row, O);
            else
                for (int32_t o = 0; o < O; o++)
                    sum = madd(slope[o], row[o], sum);
            dx[r * I + i] = sum;
        }
    for (int32_t i = 0; dw && i < I; i++)
        for (int32_t o = 0; o < O; o++) {
            real sum = accumulate ? dw[i * O + o] : 0;
            for (int32_t r = 0; r < rows; r++)
                sum = madd(x[r * I + i], dy[r * O + o], sum);
            dw[i * O + o] = sum;
        }
    for (int32_t o = 0; db && o < O; o++) {
        real sum = accumulate ? db[o] : 0;
        for (int32_t r = 0; r < rows; r++)
            sum += dy[r * O + o];
        db[o] = sum;
    }
}

static void batchnorm_inference_vjp(real *RESTRICT dx, real *RESTRICT dgamma, real *RESTRICT dbeta,
                                    const real *RESTRICT dy, const real *RESTRICT x, const real *RESTRICT gamma,
                                    const real *RESTRICT running_mean, const real *RESTRICT running_var, int32_t N,
                                    real eps, int32_t rows, int32_t accumulate) {
    for (int32_t j = 0; j < N; j++) {
        const real rstd = 1 / REAL_FN(sqrt)(running_var[j] + eps), scale = rstd * (gamma ? gamma[j] : 1);
        real of_gamma = 0, of_beta = 0;
        for (int32_t r = 0, at = j; r < rows; r++, at += N) {
            of_beta += dy[at];
            of_gamma = madd(dy[at], x[at] - running_mean[j], of_gamma);
            if (dx)
                dx[at] = dy[at] * scale;
        }
        if (dgamma)
            dgamma[j] = accumulate ? dgamma[j] + of_gamma * rstd : of_gamma * rstd;
        if (dbeta)
            dbeta[j] = accumulate ? dbeta[j] + of_beta : of_beta;
    }
}

static void add_to_forward(real *RESTRICT y, const real *RESTRICT x, int32_t N) {
    for (int32_t j = 0; j < N; j++)
        y[j] += x[j];
}

static void concat_vjp(real *da, real *db, const real *dy, int32_t I, int32_t O) {
    for (int32_t i = 0; da && i < I; i++)
        da[i] = dy[i];
    for (int32_t o = 0; db && o < O; o++)
        db[o] = dy[I + o];
}

static void take_columns_vjp(real *RESTRICT dx, const real *RESTRICT dy, const int32_t *RESTRICT places, int32_t M,
                             int32_t N) {
    for (int32_t j = 0; j < N; j++)
        dx[j] = 0;
    for (int32_t m = 0; m < M; m++)
        dx[places[m]] += dy[m];
}

static void rescale_vjp(real *dx, const real *dy, const real *f, int32_t N) {
    for (int32_t j = 0; dx && j < N; j++)
        dx[j] = f ? dy[j] * f[j] : dy[j];
}

/* The mean of the losses of rows. */
static double mean_of(const double *values, int32_t n) {
    double sum = 0;
    int32_t i = 0;
    if (n >= 16) {
        double lane[16] = {0};
        for (; i + 16 <= n; i += 16)
            for (int32_t l = 0; l < 16; l++)
                lane[l] += values[i + l];
        for (int32_t half = 8; half; half /= 2)
            for (int32_t l = 0; l < half; l++)
                lane[l] += lane[l + half];
        sum = lane[0];
    }
    for (; i < n; i++)
        sum += values[i];
    return sum / (double)n;
}

static void softmax_nll_forward(double *loss, double *row_loss, real *p, const real *z, const int32_t *t, int32_t C,
                                int32_t rows) {
    for (int32_t r = 0; r < rows; r++) {
        real *const at = p + r * C;
        const real top = max_of(z + r * C, C);
        for (int32_t c = 0; c < C; c++)
            at[c] = z[r * C + c] - top;
        const real at_label = at[t[r]];
        for (int32_t c = 0; c < C; c++)
            at[c] = real_exp_below_0(at[c]);
        const real ones = sum_of_terms(ONES, at, C, 0), low = sum_of_terms(BELOW_ONE, at, C, 0);
        const real share = 1 / (ones + low);
        for (int32_t c = 0; c < C; c++)
            at[c] *= share;
        row_loss[r] = (double)(real_log1p(ones - 1 + low) - at_label);
    }
    *loss = mean_of(row_loss, rows);
}

static void softmax_nll_vjp(real *dz, const real *p, const int32_t *t, int32_t C, int32_t rows) {
    const real share = (real)(1.0 / (double)rows);
    for (int32_t r = 0; r < rows; r++) {
        real *const to = dz + r * C;
        for (int32_t c = 0; c < C; c++)
            to[c] = p[r * C + c] * share;
        to[t[r]] = 0;
        to[t[r]] = -sum_of_terms(PLAIN, to, C, 0);
    }
}

static void mse_forward(double *loss, double *row_loss, const real *y, const real *t, int32_t N, int32_t rows) {
    for (int32_t r = 0; r < rows; r++) {
        double sum = 0;
        int32_t i = r * N;
        const int32_t end = i + N;
        if (N >= 16) {
            double lane[16] = {0};
            for (; i + 16 <= end; i += 16)
                for (int32_t l = 0; l < 16; l++) {
                    const real error = y[i + l] - t[i + l];
                    lane[l] += (double)(error * error);
                }
            for (int32_t half = 8; half; half /= 2)
                for (int32_t l = 0; l < half; l++)
                    lane[l] += lane[l + half];
            sum = lane[0];
        }
        for (; i < end; i++) {
            const real error = y[i] - t[i];
            sum += (double)(error * error);
        }
        row_loss[r] = sum / (double)N;
    }
    *loss = mean_of(row_loss, rows);
}

static void mse_vjp(real *dy, const real *y, const real *t, int32_t N, int32_t rows) {
    const real factor = (real)(2.0 / (double)(rows * N));
    for (int32_t i = 0; i < rows * N; i++)
        dy[i] = (y[i] - t[i]) * factor;
}
