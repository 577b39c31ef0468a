/* The negative log-likelihood of a hierarchical softmax. Formulas: fastnet/losses/hierarchical.py.
 *
 * What a step costs is to reach rows of w in memory: those of the decisions that lead to the labels. The forward reads
 * them for each row of data. The backward sorts the decisions of a minibatch, so that it reaches each of these rows once
 * more, for its gradient or, by plain SGD, its update (touched.h).
 *
 * A logit is a sum along a row of w. It has LANES running sums, element k going to lane k % LANES by fused multiply-adds
 * from zero, which are added as the binary tree of FOLD (lib/reduce.h). The other sums add row by row.
 */
#include "lib/tree.h"
#include "products/touched.h"

/* The logits of `rows` rows of w, up to four. */
static inline __attribute__((always_inline)) void logits_of(const int rows, real *z, const real *x, const real *w,
                                                            const real *b, int64_t I) {
    vec sum[4][LANE_VECTORS];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < LANE_VECTORS; v++)
            sum[r][v] = (vec){0};
#define ADD_LANES(load_from)                                                                       \
    for (int v = 0; v < LANE_VECTORS; v++)                                                         \
        for (int r = 0; r < rows; r++)                                                             \
            sum[r][v] = vec_madd(load_from(x + k + v * WIDTH), load_from(w + r * I + k + v * WIDTH), sum[r][v]);
    int64_t k = 0;
    for (; k + LANES <= I; k += LANES) {
        ADD_LANES(load)
    }
#define LOAD_LAST(at) load_first(at, I - k - v * WIDTH)
    if (k < I) {
        ADD_LANES(LOAD_LAST)
    }
#undef LOAD_LAST
#undef ADD_LANES
    for (int r = 0; r < rows; r++) {
        real lane[LANES];
        for (int v = 0; v < LANE_VECTORS; v++)
            store(lane + v * WIDTH, sum[r][v]);
        FOLD(lane[l] += lane[l + half]);
        z[r] = lane[0] + (b ? b[r] : 0);
    }
}

static void logits(real *z, const real *x, const real *w, const real *b, int64_t rows, int64_t I) {
    int64_t r = 0;
    for (; r + 4 <= rows; r += 4)
        logits_of(4, z + r, x, w + r * I, b ? b + r : NULL, I);
    for (; r < rows; r++)
        logits_of(1, z + r, x, w + r * I, b ? b + r : NULL, I);
}

/* −log p of a decision for the outcome `place`, and in place of the logits z their slopes. */
static inline double decide(real *z, int64_t place, int64_t rows) {
    if (rows == 1) { /* the first outcome's logit; the second one's is −z */
        const real against = place ? *z : -*z, shared = real_log1p_exp(-REAL_FN(fabs)(against));
        *z = place ? real_sigmoid(against) : -real_sigmoid(against);
        return (double)((against < 0 ? 0 : against) + shared);
    }
    real total;
    below_top(z, z, 1, rows);
    const real at_place = z[place];
    softmax_and_log(z, &total, 1, rows);
    z[place] = 0;
    SUM(real, others, rows, z[i])
    z[place] = -others;
    return (double)(total - at_place);
}

KERNEL(hierarchical_nll_forward, OUT_AS(double, row_loss), OUT(count), OUT(d), IN(x), IN(w), IN(b), IN_AS(int64_t, t),
       IN_AS(int64_t, nodes)) {
    const int64_t I = call->size[0], M = call->size[2], ignored = (int64_t)call->scalar[0];
    SHARED(r, call, call->rows, 1)
        for (int64_t i = r.begin; i < r.end; i++) {
            real *const of_row = d + i * M;
            int64_t used = 0;
            double loss = 0;
            count[i] = t[i] != ignored;
            for (const int64_t *at = nodes + t[i] * NODE_COLUMNS; t[i] != ignored && at[ABOVE] >= 0;) {
                const int64_t *const above = nodes + at[ABOVE] * NODE_COLUMNS, first = above[FIRST_ROW];
                const int64_t rows = rows_of_decision(above);
                logits(of_row + used, x + i * I, w + first * I, b ? b + first : NULL, rows, I);
                loss += decide(of_row + used, at[PLACE], rows);
                used += rows;
                at = above;
            }
            row_loss[i] = loss;
            memset(of_row + used, 0, (size_t)(M - used) * sizeof(real));
        }
}

typedef struct {
    const double *drow_loss;
    const real *d, *x, *w;
    const int64_t *t, *nodes;
    int64_t B, I, R, M, ignored;
} backward;

/* n columns of row i of dx from column j on, at most `vectors` vectors of them: the sum over the row's logits. */
static inline __attribute__((always_inline)) void sum_of_logits(const int vectors, real *dx, const backward *p,
                                                                int64_t i, int64_t j, int64_t n) {
    vec sum[ROW_VECTORS];
    const real *slope = p->d + i * p->M;
    for (int v = 0; v < vectors; v++)
        sum[v] = (vec){0};
    for (const int64_t *at = p->nodes + p->t[i] * NODE_COLUMNS; p->t[i] != p->ignored && at[ABOVE] >= 0;) {
        at = p->nodes + at[ABOVE] * NODE_COLUMNS;
        const real *row = p->w + at[FIRST_ROW] * p->I + j, *const end = row + rows_of_decision(at) * p->I;
        for (; row < end; row += p->I, slope++) {
            const vec value = broadcast((real)(p->drow_loss[i] * (double)*slope));
            for (int v = 0; v < vectors; v++)
                sum[v] = vec_madd(value, load_first(row + v * WIDTH, n - v * WIDTH), sum[v]);
        }
    }
    for (int v = 0; v < vectors; v++)
        store_first(dx + i * p->I + j + v * WIDTH, sum[v], n - v * WIDTH);
}

static void gradient_of_x(const fn_call *call, real *dx, const backward *p) {
    SHARED(r, call, p->B, 1)
        for (int64_t i = r.begin; i < r.end; i++) {
            int64_t j = 0;
            for (; j + 8 * WIDTH <= p->I; j += 8 * WIDTH)
                sum_of_logits(8, dx, p, i, j, 8 * WIDTH);
            for (; j < p->I; j += WIDTH)
                sum_of_logits(1, dx, p, i, j, p->I - j);
        }
}

/* Decisions of rows of data, sorted by nodes, and for a node by rows. They are in a thread's scratch memory; each
 * thread sorts for itself. */
enum { DECISIONS = FN_SCRATCH / 32 };
typedef struct {
    int64_t key[DECISIONS]; /* sorted: the decision's node times DECISIONS plus its index in the other arrays */
    int64_t room[DECISIONS];
    int64_t row[DECISIONS];
    const real *slopes[DECISIONS];
} decisions;
_Static_assert(sizeof(decisions) <= FN_SCRATCH, "no room for the decisions");

static inline int64_t node_of(int64_t key) { return key / DECISIONS; }
static inline int64_t index_of(int64_t key) { return key % DECISIONS; }

/* Sort n numbers, by merging ever longer runs. */
static void sort_numbers(int64_t *numbers, int64_t *room, int64_t n) {
    int64_t *from = numbers, *to = room;
    for (int64_t run = 1; run < n; run *= 2) {
        for (int64_t begin = 0; begin < n; begin += 2 * run) {
            const int64_t middle = smaller(begin + run, n), end = smaller(begin + 2 * run, n);
            for (int64_t a = begin, b = middle, k = begin; k < end; k++)
                to[k] = b == end || (a < middle && from[a] < from[b]) ? from[a++] : from[b++];
        }
        int64_t *const other = from;
        from = to;
        to = other;
    }
    if (from != numbers)
        memcpy(numbers, from, (size_t)n * sizeof *numbers);
}

/* Sort the decisions of rows from *first on, of as many as there is room for, and move *first behind them. Returns how
 * many decisions there are. */
static int64_t sort_decisions(decisions *s, const backward *p, int64_t *first) {
    int64_t n = 0;
    for (; *first < p->B; ++*first) {
        const real *slopes = p->d + *first * p->M;
        const int64_t before = n;
        const int64_t *at = p->nodes + (p->t[*first] == p->ignored ? 0 : p->t[*first]) * NODE_COLUMNS;
        for (; p->t[*first] != p->ignored && at[ABOVE] >= 0; n++) {
            if (n == DECISIONS) {
                n = before;
                goto full;
            }
            s->key[n] = at[ABOVE] * DECISIONS + n;
            s->row[n] = *first;
            s->slopes[n] = slopes;
            at = p->nodes + at[ABOVE] * NODE_COLUMNS;
            slopes += rows_of_decision(at);
        }
    }
full:
    sort_numbers(s->key, s->room, n);
    return n;
}

/* n columns of the gradient of a row of w, at most `vectors` vectors of them, from column j on: the sum over the
 * decisions [begin, end) of a node. The row is the k-th of the node's. */
static inline __attribute__((always_inline)) void row_of_gradient(const int vectors, const touched_rows *w,
                                                                  const backward *p, const decisions *s, int64_t begin,
                                                                  int64_t end, int64_t row, int64_t k, int64_t j,
                                                                  int64_t n) {
    vec sum[ROW_VECTORS], total[ROW_VECTORS], lost[ROW_VECTORS];
    const int64_t at = row * w->O + j;
    const int accumulates = w->use == ACCUMULATES, many = p->B > MANY_ROWS;
#define OF_EACH_VECTOR for (int v = 0; v < vectors; v++)
    OF_EACH_VECTOR sum[v] = accumulates && !many ? load_first(w->to + at + v * WIDTH, n - v * WIDTH) : (vec){0};
    OF_EACH_VECTOR total[v] = lost[v] = (vec){0};
    for (int64_t e = begin, block = -1; e < end; e++) {
        const int64_t of = index_of(s->key[e]), b = s->row[of];
        if (many && b / ROW_BLOCK != block) {
            OF_EACH_VECTOR add_block(&total[v], &lost[v], sum[v]);
            OF_EACH_VECTOR sum[v] = (vec){0};
            block = b / ROW_BLOCK;
        }
        const vec value = broadcast((real)(p->drow_loss[b] * (double)s->slopes[of][k]));
        const real *const x = p->x + b * p->I + j;
        OF_EACH_VECTOR sum[v] = vec_madd(value, load_first(x + v * WIDTH, n - v * WIDTH), sum[v]);
    }
    if (many)
        OF_EACH_VECTOR {
            add_block(&total[v], &lost[v], sum[v]);
            sum[v] = with_lost(total[v], lost[v]);
            if (accumulates)
                sum[v] = load_first(w->to + at + v * WIDTH, n - v * WIDTH) + sum[v];
        }
    put_gradient(vectors, w, at, sum, n);
#undef OF_EACH_VECTOR
}

#define ROW_OF_GRADIENT(vectors)                                                                                   \
    static __attribute__((noinline)) void row_of_gradient_##vectors(                                               \
        const touched_rows *w, const backward *p, const decisions *s, int64_t begin, int64_t end, int64_t row,     \
        int64_t k, int64_t j, int64_t n) {                                                                         \
        row_of_gradient(vectors, w, p, s, begin, end, row, k, j, n);                                               \
    }
ROW_OF_GRADIENT(1)
ROW_OF_GRADIENT(8)

/* Rows [first, last) of w, of a node with the decisions [begin, end), whose first row is `top`. */
static void gradients_of_node(const touched_rows *w, const backward *p, const decisions *s, int64_t begin, int64_t end,
                              int64_t top, int64_t first, int64_t last) {
    for (int64_t row = first; row < last; row++) {
        enum { ROWS_AHEAD = 8 };
        prefetch_row(w, smaller(row + ROWS_AHEAD, p->R - 1));
        int64_t j = 0;
        for (; j + 8 * WIDTH <= p->I; j += 8 * WIDTH)
            row_of_gradient_8(w, p, s, begin, end, row, row - top, j, 8 * WIDTH);
        for (; j < p->I; j += WIDTH)
            row_of_gradient_1(w, p, s, begin, end, row, row - top, j, smaller(WIDTH, p->I - j));
    }
}

/* The same elements of b, which are added in double precision. */
static void gradients_of_biases(const touched_rows *b, const backward *p, const decisions *s, int64_t begin, int64_t end,
                                int64_t top, int64_t first, int64_t last) {
    enum { MOST = ROW_VECTORS * WIDTH };
    for (int64_t row = first; row < last; row += MOST) {
        const int64_t n = smaller(MOST, last - row);
        double sum[MOST];
        real g[MOST] = {0};
        vec of_g[ROW_VECTORS];
        for (int64_t l = 0; l < n; l++)
            sum[l] = b->use == ACCUMULATES ? (double)b->to[row + l] : 0;
        for (int64_t e = begin; e < end; e++) {
            const int64_t of = index_of(s->key[e]);
            const double scale = p->drow_loss[s->row[of]];
            const real *const slopes = s->slopes[of] + row - top;
            for (int64_t l = 0; l < n; l++)
                sum[l] += scale * (double)slopes[l];
        }
        for (int64_t l = 0; l < n; l++)
            g[l] = (real)sum[l];
        for (int v = 0; v < ROW_VECTORS; v++)
            of_g[v] = load(g + v * WIDTH);
        put_gradient(ROW_VECTORS, b, row, of_g, n);
    }
}

/* The first of n sorted decisions whose rows of w do not end before this one. */
static int64_t first_decision(const decisions *s, const backward *p, int64_t n, int64_t row) {
    int64_t low = 0, high = n;
    while (low < high) {
        const int64_t middle = (low + high) / 2, *const node = p->nodes + node_of(s->key[middle]) * NODE_COLUMNS;
        if (node[FIRST_ROW] + rows_of_decision(node) <= row)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

typedef void of_node(const touched_rows *to, const backward *p, const decisions *s, int64_t begin, int64_t end,
                     int64_t top, int64_t first, int64_t last);

/* The gradients of the rows in the range of w, or of b, by n sorted decisions. */
static void gradients_in_range(const touched_rows *to, const backward *p, const decisions *s, int64_t n, fn_range r,
                               of_node *gradients) {
    int64_t row = r.begin;
    for (int64_t e = first_decision(s, p, n, row), end; e < n; e = end) {
        const int64_t node = node_of(s->key[e]), top = p->nodes[node * NODE_COLUMNS + FIRST_ROW];
        if (top >= r.end)
            break;
        for (end = e + 1; end < n && node_of(s->key[end]) == node; end++)
            ;
        if (row < top)
            untouched(to, row, top);
        const int64_t first = row < top ? top : row;
        row = smaller(top + rows_of_decision(p->nodes + node * NODE_COLUMNS), r.end);
        gradients(to, p, s, e, end, top, first, row);
    }
    if (row < r.end)
        untouched(to, row, r.end);
}

KERNEL(hierarchical_nll_vjp, OUT(dx), OUT(dw), OUT(db), IN_AS(double, drow_loss), IN(d), IN(x), IN(w),
       IN_AS(int64_t, t), IN_AS(int64_t, nodes)) {
    const backward p = {drow_loss, d, x, w, t, nodes, call->rows, call->size[0], call->size[1], call->size[2],
                        (int64_t)call->scalar[0]};
    decisions *const s = call->scratch;
    if (dx)
        gradient_of_x(call, dx, &p);
    if (!dw && !db)
        return;
    int64_t next = 0, n = sort_decisions(s, &p, &next);
    fn_call without_update = *call;
    if (next < p.B) /* gradients add up parts, and are complete only at the end */
        without_update.update = NULL;
    touched_rows of_w = {0}, of_b = {0};
    if (dw)
        of_w = touched(&without_update, dw, p.R, p.I);
    if (db)
        of_b = touched(&without_update, db, p.R, 1);
    together(call); /* until no member reads w any more */
    for (;;) {
        if (dw)
            SHARED(r, call, p.R, 1 + p.R / 1024 + 4096 / p.I)
                gradients_in_range(&of_w, &p, s, n, r, gradients_of_node);
        if (db)
            SHARED(r, call, p.R, 4096 + p.R / 64)
                gradients_in_range(&of_b, &p, s, n, r, gradients_of_biases);
        if (next == p.B)
            return;
        together(call); /* as another member may take a range next time */
        of_w.use = of_b.use = ACCUMULATES;
        n = sort_decisions(s, &p, &next);
    }
}
