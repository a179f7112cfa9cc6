/* The forward pass: the steps of a layer one after the other. Part of kernels.h. */

/* Adds to each of `rows` sums the products of a weight row with the vectors of x: sums[i] += w[i][k] x[k]. */
INLINE void NAME(add_products)(int rows, VEC *sums, const REAL *const *w, int64_t inner, const REAL *x, int64_t columns) {
    for (int64_t k = 0; k < inner; k++) {
        const VEC value = LOAD(x + k * columns);
#pragma GCC unroll 16
        for (int i = 0; i < rows; i++) sums[i] += w[i][k] * value;
    }
}


typedef struct {
    int64_t steps, batch, columns, inputs, hidden;
    const REAL *x;                                /* [steps][batch][inputs] */
    const REAL *w_ih, *w_hh, *b_ih, *b_hh;        /* torch's; biases may be null */
    REAL *h, *c;                                  /* [hidden][columns]: in, the state before; out, after (c: LSTM) */
    REAL *next, *x_columns;                       /* scratch: [hidden][columns], [inputs][columns] */
    REAL *gates;                                  /* the tape [steps][4][hidden][columns], or null */
    REAL *cells;                                  /* the tape [steps][hidden][columns] (LSTM), or null */
    REAL *y;                                      /* [steps][batch][hidden], or null */
} NAME(Forward);

INLINE void NAME(lstm_units)(int units, const NAME(Forward) *f, int64_t step, int64_t unit, int64_t column) {
    const int64_t H = f->hidden, P = f->columns;
    const REAL *of_x[4 * UNITS], *of_h[4 * UNITS];
    VEC sums[4 * UNITS];
    for (int gate = 0; gate < 4; gate++)
        for (int i = 0; i < units; i++) {
            const int64_t row = gate * H + unit + i;
            of_x[gate * units + i] = f->w_ih + row * f->inputs;
            of_h[gate * units + i] = f->w_hh + row * H;
            const REAL bias = f->b_ih ? f->b_ih[row] + f->b_hh[row] : 0;
            sums[gate * units + i] = (VEC){0} + bias;
        }
    NAME(add_products)(4 * units, sums, of_x, f->inputs, f->x_columns + column, P);
    NAME(add_products)(4 * units, sums, of_h, H, f->h + column, P);
    for (int i = 0; i < units; i++) {
        const int64_t at = (unit + i) * P + column;
        const VEC input = NAME(sigmoid)(sums[i]), forget = NAME(sigmoid)(sums[units + i]);
        const VEC cell = NAME(tanh)(sums[2 * units + i]), output = NAME(sigmoid)(sums[3 * units + i]);
        const VEC c = forget * LOAD(f->c + at) + input * cell;
        STORE(f->c + at, c);
        STORE(f->next + at, output * NAME(tanh)(c));
        if (f->gates) {
            REAL *gates = f->gates + step * 4 * H * P + at;
            STORE(gates, input);
            STORE(gates + H * P, forget);
            STORE(gates + 2 * H * P, cell);
            STORE(gates + 3 * H * P, output);
            STORE(f->cells + step * H * P + at, c);
        }
    }
}

/* The gates of a GRU's tape: reset, update, new, and the hidden part of new before it is reset. */
INLINE void NAME(gru_units)(int units, const NAME(Forward) *f, int64_t step, int64_t unit, int64_t column) {
    const int64_t H = f->hidden, P = f->columns;
    const REAL *of_x[3 * UNITS], *of_h[3 * UNITS];
    VEC sums[4 * UNITS]; /* reset, update, hidden part of new, input part of new */
    for (int gate = 0; gate < 3; gate++)
        for (int i = 0; i < units; i++) {
            const int64_t row = gate * H + unit + i;
            of_x[gate * units + i] = f->w_ih + row * f->inputs;
            of_h[gate * units + i] = f->w_hh + row * H;
            const REAL of_input = f->b_ih ? f->b_ih[row] : 0, of_hidden = f->b_hh ? f->b_hh[row] : 0;
            sums[gate * units + i] = (VEC){0} + (gate < 2 ? of_input + of_hidden : of_input);
            sums[3 * units + i] = (VEC){0} + of_hidden;
        }
    NAME(add_products)(3 * units, sums, of_x, f->inputs, f->x_columns + column, P);
    for (int i = 0; i < units; i++) {
        const VEC of_input = sums[2 * units + i];
        sums[2 * units + i] = sums[3 * units + i];
        sums[3 * units + i] = of_input;
    }
    NAME(add_products)(3 * units, sums, of_h, H, f->h + column, P);
    for (int i = 0; i < units; i++) {
        const int64_t at = (unit + i) * P + column;
        const VEC reset = NAME(sigmoid)(sums[i]), update = NAME(sigmoid)(sums[units + i]);
        const VEC of_hidden = sums[2 * units + i];
        const VEC new = NAME(tanh)(sums[3 * units + i] + reset * of_hidden);
        STORE(f->next + at, new + update * (LOAD(f->h + at) - new));
        if (f->gates) {
            REAL *gates = f->gates + step * 4 * H * P + at;
            STORE(gates, reset);
            STORE(gates + H * P, update);
            STORE(gates + 2 * H * P, new);
            STORE(gates + 3 * H * P, of_hidden);
        }
    }
}

#define DEFINE_FORWARD(KIND)                                                                                  \
    void NAME(KIND##_forward)(NAME(Forward) *f) {                                                             \
        REAL *const first = f->h;                                                                             \
        const int64_t H = f->hidden, P = f->columns;                                                          \
        for (int64_t step = 0; step < f->steps; step++) {                                                     \
            NAME(to_columns)(f->batch, f->inputs, P, f->x + step * f->batch * f->inputs, f->x_columns);       \
            int64_t unit = 0;                                                                                 \
            for (; unit + UNITS <= H; unit += UNITS)                                                          \
                for (int64_t b = 0; b < P; b += LANES) NAME(KIND##_units)(UNITS, f, step, unit, b);           \
            for (; unit < H; unit++)                                                                          \
                for (int64_t b = 0; b < P; b += LANES) NAME(KIND##_units)(1, f, step, unit, b);               \
            REAL *const after = f->next;                                                                      \
            f->next = f->h;                                                                                   \
            f->h = after;                                                                                     \
            if (f->y) NAME(from_columns)(f->batch, H, P, f->h, f->y + step * f->batch * H);                   \
        }                                                                                                     \
        if (f->h != first) {                                                                                  \
            memcpy(first, f->h, H * P * sizeof(REAL));                                                        \
            f->next = f->h;                                                                                   \
            f->h = first;                                                                                     \
        }                                                                                                     \
    }
DEFINE_FORWARD(lstm)
DEFINE_FORWARD(gru)
