/* Gradients of weights, biases and inputs out of those of the gates, a segment at a time. Part of kernels.h. */

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
