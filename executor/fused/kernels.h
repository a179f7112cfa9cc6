/* The kernels of kernels.c for one REAL type; included once per type. */

typedef REAL NAME(vec) __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(REAL))));
typedef INTEGER NAME(ivec) __attribute__((vector_size(VECTOR_BYTES)));
#define VEC NAME(vec)
#define IVEC NAME(ivec)
#define LANES ((int64_t)(VECTOR_BYTES / sizeof(REAL)))
#define LOAD(p) (*(const VEC *)(p))
#define STORE(p, v) (*(VEC *)(p) = (v))

/* The element-wise functions. */

INLINE VEC NAME(choose)(IVEC mask, VEC yes, VEC no) { return (VEC)((mask & (IVEC)yes) | (~mask & (IVEC)no)); }

/* x within -bound..bound; a NaN stays one. */
INLINE VEC NAME(clamp)(VEC x, REAL bound) {
    const VEC high = (VEC){0} + bound;
    x = NAME(choose)(x > high, high, x);
    return NAME(choose)(x < -high, -high, x);
}

/* exp(x) - 1, for |x| < LARGEST_EXPONENT: 2^n (p + 1) - 1 with p = exp(r) - 1 by its Taylor series. */
INLINE VEC NAME(expm1)(VEC x) {
    const VEC shift = (VEC){0} + (REAL)((int64_t)3 << (MANTISSA_BITS - 1)); /* adding it rounds to an integer */
    const VEC n = (x * (REAL)1.4426950408889634 + shift) - shift;
    const VEC r = (x - n * LN2_HIGH) - n * LN2_LOW;
    VEC p = {0};
    REAL factorial[TAYLOR_TERMS + 1];
    factorial[0] = 1;
    for (int i = 1; i <= TAYLOR_TERMS; i++) factorial[i] = factorial[i - 1] * i;
    for (int i = TAYLOR_TERMS; i >= 2; i--) p = (p + 1 / factorial[i]) * r;
    p = p * r + r;
    const VEC scale = (VEC)((__builtin_convertvector(n, IVEC) + EXPONENT_BIAS) << MANTISSA_BITS);
    return scale * p + (scale - 1);
}

INLINE VEC NAME(sigmoid)(VEC x) { return 1 / (2 + NAME(expm1)(NAME(clamp)(-x, LARGEST_EXPONENT))); }

INLINE VEC NAME(tanh)(VEC x) {
    const VEC e = NAME(expm1)(NAME(clamp)(2 * x, LARGEST_EXPONENT / 2));
    return e / (e + 2);
}

/* [batch][size] to [size][columns], zeros in the padding; and back. In squares, which stay in cache. */

INLINE int64_t NAME(least)(int64_t a, int64_t b) { return a < b ? a : b; }

void NAME(to_columns)(int64_t batch, int64_t size, int64_t columns, const REAL *restrict natural, REAL *restrict out) {
    for (int64_t from = 0; from < batch; from += LANES)
        for (int64_t unit = 0; unit < size; unit += LANES)
            for (int64_t u = unit; u < NAME(least)(unit + LANES, size); u++)
                for (int64_t b = from; b < NAME(least)(from + LANES, batch); b++)
                    out[u * columns + b] = natural[b * size + u];
    for (int64_t u = 0; u < size; u++)
        for (int64_t b = batch; b < columns; b++) out[u * columns + b] = 0;
}

void NAME(from_columns)(int64_t batch, int64_t size, int64_t columns, const REAL *restrict in, REAL *restrict natural) {
    for (int64_t from = 0; from < batch; from += LANES)
        for (int64_t unit = 0; unit < size; unit += LANES)
            for (int64_t b = from; b < NAME(least)(from + LANES, batch); b++)
                for (int64_t u = unit; u < NAME(least)(unit + LANES, size); u++)
                    natural[b * size + u] = in[u * columns + b];
}

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

typedef struct {
    int64_t steps, batch, columns, hidden;
    const REAL *w_hh;
    const REAL *y, *dy;              /* [steps][batch][hidden]; y for a GRU only, dy may be null */
    const REAL *first;               /* [batch][hidden]: h that the segment began with (GRU) */
    REAL *before;                    /* [hidden][columns]: c that the segment began with (LSTM); scratch (GRU) */
    REAL *dh, *dc;                   /* [hidden][columns]: gradient of the state after; out, before (dc: LSTM) */
    REAL *gates;                     /* the tape; out, the gradients of the gates before their non-linearity */
    const REAL *cells;               /* the tape (LSTM) */
} NAME(Backward);

/* One step's gates become their gradients, the gradient of c that of c before. */
INLINE void NAME(lstm_reverse)(const NAME(Backward) *b, int64_t step) {
    const int64_t size = b->hidden * b->columns;
    REAL *gates = b->gates + step * 4 * size;
    const REAL *after = b->cells + step * size, *before = step ? after - size : b->before;
    for (int64_t at = 0; at < size; at += LANES) {
        const VEC input = LOAD(gates + at), forget = LOAD(gates + size + at);
        const VEC cell = LOAD(gates + 2 * size + at), output = LOAD(gates + 3 * size + at);
        const VEC tanh_c = NAME(tanh)(LOAD(after + at)), dh = LOAD(b->dh + at);
        const VEC dc = LOAD(b->dc + at) + dh * output * (1 - tanh_c * tanh_c);
        STORE(gates + at, dc * cell * input * (1 - input));
        STORE(gates + size + at, dc * LOAD(before + at) * forget * (1 - forget));
        STORE(gates + 2 * size + at, dc * input * (1 - cell * cell));
        STORE(gates + 3 * size + at, dh * tanh_c * output * (1 - output));
        STORE(b->dc + at, dc * forget);
    }
}

/* One step's gates become the gradients of reset, update, the input part and the hidden part of new; what
 * reaches h directly stays in dh. */
INLINE void NAME(gru_reverse)(const NAME(Backward) *b, int64_t step) {
    const int64_t size = b->hidden * b->columns;
    REAL *gates = b->gates + step * 4 * size;
    const REAL *natural = step ? b->y + (step - 1) * b->batch * b->hidden : b->first, *before = b->before;
    NAME(to_columns)(b->batch, b->hidden, b->columns, natural, b->before);
    for (int64_t at = 0; at < size; at += LANES) {
        const VEC reset = LOAD(gates + at), update = LOAD(gates + size + at);
        const VEC new = LOAD(gates + 2 * size + at), of_hidden = LOAD(gates + 3 * size + at);
        const VEC dh = LOAD(b->dh + at), dnew = dh * (1 - update) * (1 - new * new);
        STORE(gates + at, dnew * of_hidden * reset * (1 - reset));
        STORE(gates + size + at, dh * (LOAD(before + at) - new) * update * (1 - update));
        STORE(gates + 2 * size + at, dnew);
        STORE(gates + 3 * size + at, dnew * reset);
        STORE(b->dh + at, dh * update);
    }
}

/* out[unit][column] += sum over the rows of w[row][unit] d[row][column], for `units` units. */
INLINE void NAME(add_transposed)(int units, REAL *out, const REAL *w, int64_t H, int64_t rows, const REAL *d, int64_t columns) {
    VEC sums[GATE_ROWS];
    for (int i = 0; i < units; i++) sums[i] = LOAD(out + i * columns);
    for (int64_t row = 0; row < rows; row++) {
        const VEC value = LOAD(d + row * columns);
#pragma GCC unroll 16
        for (int i = 0; i < units; i++) sums[i] += w[row * H + i] * value;
    }
    for (int i = 0; i < units; i++) STORE(out + i * columns, sums[i]);
}

/* The same for every unit and column. */
INLINE void NAME(add_hidden_gradient)(REAL *dh, const REAL *w, int64_t H, int64_t rows, const REAL *d, int64_t P) {
    int64_t unit = 0;
    for (; unit + GATE_ROWS <= H; unit += GATE_ROWS)
        for (int64_t b = 0; b < P; b += LANES)
            NAME(add_transposed)(GATE_ROWS, dh + unit * P + b, w + unit, H, rows, d + b, P);
    for (; unit < H; unit++)
        for (int64_t b = 0; b < P; b += LANES) NAME(add_transposed)(1, dh + unit * P + b, w + unit, H, rows, d + b, P);
}

INLINE void NAME(add_output_gradient)(const NAME(Backward) *b, int64_t step) {
    if (!b->dy) return;
    const REAL *dy = b->dy + step * b->batch * b->hidden;
    for (int64_t from = 0; from < b->batch; from += LANES)
        for (int64_t unit = 0; unit < b->hidden; unit += LANES)
            for (int64_t u = unit; u < NAME(least)(unit + LANES, b->hidden); u++)
                for (int64_t i = from; i < NAME(least)(from + LANES, b->batch); i++)
                    b->dh[u * b->columns + i] += dy[i * b->hidden + u];
}

void NAME(lstm_backward)(const NAME(Backward) *b) {
    const int64_t H = b->hidden, P = b->columns;
    for (int64_t step = b->steps - 1; step >= 0; step--) {
        NAME(add_output_gradient)(b, step);
        NAME(lstm_reverse)(b, step);
        memset(b->dh, 0, H * P * sizeof(REAL));
        NAME(add_hidden_gradient)(b->dh, b->w_hh, H, 4 * H, b->gates + step * 4 * H * P, P);
    }
}

void NAME(gru_backward)(const NAME(Backward) *b) {
    const int64_t H = b->hidden, P = b->columns;
    for (int64_t step = b->steps - 1; step >= 0; step--) {
        const REAL *gates = b->gates + step * 4 * H * P;
        NAME(add_output_gradient)(b, step);
        NAME(gru_reverse)(b, step);
        NAME(add_hidden_gradient)(b->dh, b->w_hh, H, 2 * H, gates, P);
        NAME(add_hidden_gradient)(b->dh, b->w_hh + 2 * H * H, H, H, gates + 3 * H * P, P);
    }
}

/* Vectors of `width` <= LANES numbers, at the right edge of a matrix. */

INLINE VEC NAME(load_edge)(const REAL *p, int64_t width) {
    VEC v = {0};
    memcpy(&v, p, width * sizeof(REAL));
    return v;
}

INLINE void NAME(store_edge)(REAL *p, VEC v, int64_t width) { memcpy(p, &v, width * sizeof(REAL)); }

typedef struct {
    int64_t steps, batch, columns, rows, width;
    int64_t step_stride;     /* from one step's d to the next */
    const REAL *d;           /* [steps][>= rows][columns] */
    const REAL *first;       /* [batch][width]: the values of step 0, or null when they are in `values` */
    const REAL *values;      /* [steps (less 1 with `first`)][batch][width] */
    REAL *sum;               /* [rows][width] */
} NAME(Outer);

/* sum[row][j] += sum over steps and sequences of d[step][row][b] values[step][b][j], for a tile of it. */
INLINE void NAME(outer_tile)(int rows, int vectors, int64_t edge, const NAME(Outer) *o, int64_t begin, int64_t end,
                             int64_t row, int64_t j) {
    VEC sums[TILE_ROWS][2];
    for (int i = 0; i < rows; i++)
        for (int v = 0; v < vectors; v++) {
            const REAL *p = o->sum + (row + i) * o->width + j + v * LANES;
            sums[i][v] = edge ? NAME(load_edge)(p, edge) : LOAD(p);
        }
    for (int64_t step = begin; step < end; step++) {
        const REAL *d = o->d + step * o->step_stride + row * o->columns;
        const REAL *values = o->values + (o->first ? step - 1 : step) * o->batch * o->width;
        if (o->first && step == 0) values = o->first;
        for (int64_t b = 0; b < o->batch; b++) {
            VEC value[2];
            for (int v = 0; v < vectors; v++) {
                const REAL *p = values + b * o->width + j + v * LANES;
                value[v] = edge ? NAME(load_edge)(p, edge) : LOAD(p);
            }
#pragma GCC unroll 8
            for (int i = 0; i < rows; i++)
                for (int v = 0; v < vectors; v++) sums[i][v] += d[i * o->columns + b] * value[v];
        }
    }
    for (int i = 0; i < rows; i++)
        for (int v = 0; v < vectors; v++) {
            REAL *p = o->sum + (row + i) * o->width + j + v * LANES;
            if (edge) NAME(store_edge)(p, sums[i][v], edge);
            else STORE(p, sums[i][v]);
        }
}

INLINE void NAME(outer_row)(int rows, const NAME(Outer) *o, int64_t begin, int64_t end, int64_t row) {
    int64_t j = 0;
    for (; j + 2 * LANES <= o->width; j += 2 * LANES) NAME(outer_tile)(rows, 2, 0, o, begin, end, row, j);
    for (; j < o->width; j += LANES)
        NAME(outer_tile)(rows, 1, j + LANES <= o->width ? 0 : o->width - j, o, begin, end, row, j);
}

/* The gradient of a weight matrix, added to `sum`; as many steps at a time as stay in cache. */
void NAME(add_outer)(const NAME(Outer) *o) {
    const int64_t block = o->batch < BLOCK_SEQUENCES ? BLOCK_SEQUENCES / o->batch : 1;
    for (int64_t begin = 0; begin < o->steps; begin += block) {
        const int64_t end = begin + block < o->steps ? begin + block : o->steps;
        int64_t row = 0;
        for (; row + TILE_ROWS <= o->rows; row += TILE_ROWS) NAME(outer_row)(TILE_ROWS, o, begin, end, row);
        for (; row < o->rows; row++) NAME(outer_row)(1, o, begin, end, row);
    }
}

/* The gradient of a bias, added to `sum`: d is [steps][>= rows][columns], its padding zero. */
void NAME(add_rows)(int64_t steps, int64_t rows, int64_t columns, int64_t step_stride, const REAL *d, REAL *sum) {
    for (int64_t row = 0; row < rows; row++) {
        VEC total = {0};
        for (int64_t step = 0; step < steps; step++)
            for (int64_t b = 0; b < columns; b += LANES) total += LOAD(d + step * step_stride + row * columns + b);
        REAL one = 0;
        for (int64_t lane = 0; lane < LANES; lane++) one += total[lane];
        sum[row] += one;
    }
}

/* dx[step][b][j] = sum over the rows of d[step][row][b] w[row][j], for a tile of it. */
INLINE void NAME(inputs_tile)(int sequences, int vectors, int64_t edge, int64_t rows, int64_t columns, int64_t width,
                              const REAL *d, const REAL *w, REAL *dx) {
    VEC sums[TILE_ROWS][2];
    for (int i = 0; i < sequences; i++)
        for (int v = 0; v < vectors; v++) sums[i][v] = (VEC){0};
    for (int64_t row = 0; row < rows; row++) {
        VEC value[2];
        for (int v = 0; v < vectors; v++)
            value[v] = edge ? NAME(load_edge)(w + row * width, edge) : LOAD(w + row * width + v * LANES);
#pragma GCC unroll 8
        for (int i = 0; i < sequences; i++)
            for (int v = 0; v < vectors; v++) sums[i][v] += d[row * columns + i] * value[v];
    }
    for (int i = 0; i < sequences; i++)
        for (int v = 0; v < vectors; v++) {
            if (edge) NAME(store_edge)(dx + i * width, sums[i][v], edge);
            else STORE(dx + i * width + v * LANES, sums[i][v]);
        }
}

INLINE void NAME(inputs_panel)(int vectors, int64_t edge, int64_t batch, int64_t rows, int64_t columns, int64_t width,
                               const REAL *d, const REAL *w, REAL *dx) {
    int64_t b = 0;
    for (; b + TILE_ROWS <= batch; b += TILE_ROWS)
        NAME(inputs_tile)(TILE_ROWS, vectors, edge, rows, columns, width, d + b, w, dx + b * width);
    for (; b < batch; b++) NAME(inputs_tile)(1, vectors, edge, rows, columns, width, d + b, w, dx + b * width);
}

/* The gradient of the inputs: dx is [steps][batch][width], w [rows][width]. */
void NAME(inputs_gradient)(int64_t steps, int64_t batch, int64_t rows, int64_t columns, int64_t width,
                           int64_t step_stride, const REAL *d, const REAL *w, REAL *dx) {
    for (int64_t step = 0; step < steps; step++) {
        const REAL *now = d + step * step_stride;
        REAL *out = dx + step * batch * width;
        int64_t j = 0;
        for (; j + 2 * LANES <= width; j += 2 * LANES)
            NAME(inputs_panel)(2, 0, batch, rows, columns, width, now, w + j, out + j);
        for (; j < width; j += LANES) {
            const int64_t edge = j + LANES <= width ? 0 : width - j;
            NAME(inputs_panel)(1, edge, batch, rows, columns, width, now, w + j, out + j);
        }
    }
}

#undef VEC
#undef IVEC
#undef LANES
#undef LOAD
#undef STORE
