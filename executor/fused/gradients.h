/* Gradients of weights, biases and inputs out of those of the gates, a segment at a time. Part of kernels.h. */

/* Up to a vector of numbers, at the right edge of a matrix; zeros beyond `width`. */

INLINE VEC NAME(load_edge)(const REAL *p, int64_t width) {
    if (width >= LANES) return LOAD(p);
    VEC v = {0};
    for (int64_t lane = 0; lane < width; lane++) v[lane] = p[lane];
    return v;
}

INLINE void NAME(store_edge)(REAL *p, VEC v, int64_t width) {
    if (width >= LANES) STORE(p, v);
    else for (int64_t lane = 0; lane < width; lane++) p[lane] = v[lane];
}

/* What a weight matrix is multiplied with. */
typedef struct {
    int64_t width;
    int64_t step, sequence;  /* from one step, and one sequence, of `rest` to the next */
    const REAL *first;       /* [batch][width], without gaps: step 0, or null when it is in `rest` */
    const REAL *rest;        /* [steps (less 1 with `first`)][batch][width] */
} NAME(Values);

/* The same without the steps before `step`. */
INLINE NAME(Values) NAME(values_from)(NAME(Values) values, int64_t step) {
    if (step == 0) return values;
    values.rest += (step - (values.first ? 1 : 0)) * values.step;
    values.first = 0;
    return values;
}

/* The gradient of a weight matrix is the sum over all sequences of all steps of d times values. */
typedef struct {
    int64_t steps, batch, columns, rows;
    int64_t step_stride;     /* from one step's d to the next */
    const REAL *d;           /* [steps][>= rows][columns] */
    NAME(Values) values;
    REAL *sum;               /* [rows][width] */
} NAME(Outer);

#define PANEL (PANEL_VECTORS * LANES)

/* The values of sequences begin..end-1, `width` <= PANEL numbers from j, one sequence after the other. */
INLINE void NAME(pack_panel)(const NAME(Outer) *o, int64_t begin, int64_t end, int64_t j, int64_t width, REAL *panel) {
    const NAME(Values) *from = &o->values;
    for (int64_t s = begin; s < end; s++, panel += PANEL) {
        const int64_t step = s / o->batch - (from->first ? 1 : 0), b = s % o->batch;
        const REAL *values = step < 0 ? from->first + b * from->width
                                      : from->rest + step * from->step + b * from->sequence;
        UNROLL
        for (int v = 0; v < PANEL_VECTORS; v++)
            STORE(panel + v * LANES, NAME(load_edge)(values + j + v * LANES, width - v * LANES));
    }
}

/* sum[row][j] += sum over sequences begin..end-1 of d[row] values[j], for a tile of it. */
INLINE void NAME(outer_tile)(int rows, const NAME(Outer) *o, int64_t begin, int64_t end, int64_t row, int64_t j,
                             int64_t width, const REAL *panel) {
    VEC sums[TILE_ROWS][PANEL_VECTORS];
    REAL *out = o->sum + row * o->values.width + j;
    UNROLL
    for (int i = 0; i < rows; i++)
        UNROLL
        for (int v = 0; v < PANEL_VECTORS; v++) {
            sums[i][v] = NAME(load_edge)(out + i * o->values.width + v * LANES, width - v * LANES);
            __builtin_prefetch(out + (rows + i) * o->values.width + v * LANES, 1); /* what the next tile adds to */
        }
    for (int64_t s = begin; s < end;) {
        const int64_t step = s / o->batch, b = s % o->batch, run = NAME(least)(o->batch - b, end - s);
        const REAL *d = o->d + step * o->step_stride + row * o->columns + b;
        s += run;
        for (int64_t sequence = 0; sequence < run; sequence++, panel += PANEL) {
            VEC value[PANEL_VECTORS];
            UNROLL
            for (int v = 0; v < PANEL_VECTORS; v++) value[v] = LOAD(panel + v * LANES);
            UNROLL
            for (int i = 0; i < rows; i++) {
                UNROLL
                for (int v = 0; v < PANEL_VECTORS; v++) sums[i][v] += d[i * o->columns + sequence] * value[v];
            }
        }
    }
    UNROLL
    for (int i = 0; i < rows; i++)
        UNROLL
        for (int v = 0; v < PANEL_VECTORS; v++)
            NAME(store_edge)(out + i * o->values.width + v * LANES, sums[i][v], width - v * LANES);
}

/* The gradient of a weight matrix, added to `sum`: a panel of the values of as many sequences as stay in
 * cache at a time. */
static void NAME(add_outer)(const NAME(Outer) *o) {
    REAL panel[BLOCK_SEQUENCES * PANEL] __attribute__((aligned(VECTOR_BYTES)));
    const int64_t sequences = o->steps * o->batch;
    for (int64_t begin = 0; begin < sequences; begin += BLOCK_SEQUENCES) {
        const int64_t end = NAME(least)(begin + BLOCK_SEQUENCES, sequences);
        for (int64_t j = 0; j < o->values.width; j += PANEL) {
            const int64_t width = NAME(least)(PANEL, o->values.width - j);
            int64_t row = 0;
            NAME(pack_panel)(o, begin, end, j, width, panel);
            for (; row + TILE_ROWS <= o->rows; row += TILE_ROWS)
                NAME(outer_tile)(TILE_ROWS, o, begin, end, row, j, width, panel);
            for (; row < o->rows; row++) NAME(outer_tile)(1, o, begin, end, row, j, width, panel);
        }
    }
}

/* The gradient of a bias, added to `sum`: the padding of d is zero. */
INLINE void NAME(add_rows)(const NAME(Outer) *o, REAL *sum) {
    for (int64_t row = 0; row < o->rows; row++) {
        VEC total = {0};
        for (int64_t step = 0; step < o->steps; step++)
            for (int64_t b = 0; b < o->batch; b += LANES)
                total += LOAD(o->d + step * o->step_stride + row * o->columns + b);
        REAL one = 0;
        for (int64_t lane = 0; lane < LANES; lane++) one += total[lane];
        sum[row] += one;
    }
}

/* dx[b][j] = sum over the rows of d[row][b] w[row][j], for a tile of it. */
INLINE void NAME(inputs_tile)(int sequences, int vectors, int64_t edge, int64_t rows, int64_t columns, int64_t width,
                              const REAL *d, const REAL *w, REAL *dx) {
    VEC sums[TILE_ROWS][2];
    UNROLL
    for (int i = 0; i < sequences; i++)
        UNROLL
        for (int v = 0; v < vectors; v++) sums[i][v] = (VEC){0};
    for (int64_t row = 0; row < rows; row++) {
        VEC value[2];
        UNROLL
        for (int v = 0; v < vectors; v++) value[v] = NAME(load_edge)(w + row * width + v * LANES, edge);
        UNROLL
        for (int i = 0; i < sequences; i++)
            UNROLL
            for (int v = 0; v < vectors; v++) sums[i][v] += d[row * columns + i] * value[v];
    }
    UNROLL
    for (int i = 0; i < sequences; i++)
        UNROLL
        for (int v = 0; v < vectors; v++) NAME(store_edge)(dx + i * width + v * LANES, sums[i][v], edge);
}

INLINE void NAME(inputs_panel)(int vectors, int64_t edge, int64_t batch, int64_t rows, int64_t columns, int64_t width,
                               const REAL *d, const REAL *w, REAL *dx) {
    int64_t b = 0;
    for (; b + TILE_ROWS <= batch; b += TILE_ROWS)
        NAME(inputs_tile)(TILE_ROWS, vectors, edge, rows, columns, width, d + b, w, dx + b * width);
    for (; b < batch; b++) NAME(inputs_tile)(1, vectors, edge, rows, columns, width, d + b, w, dx + b * width);
}

#define INPUTS_PANEL (2 * LANES)

/* The gradient of a step's inputs j..end-1, a panel or what is left of one: dx is [batch][width], w [rows][width]. */
INLINE void NAME(inputs_step)(int64_t batch, int64_t rows, int64_t columns, int64_t width, int64_t j, int64_t end,
                              const REAL *d, const REAL *w, REAL *dx) {
    if (j + INPUTS_PANEL <= end) NAME(inputs_panel)(2, LANES, batch, rows, columns, width, d, w + j, dx + j);
    else for (; j < end; j += LANES) NAME(inputs_panel)(1, end - j, batch, rows, columns, width, d, w + j, dx + j);
}
