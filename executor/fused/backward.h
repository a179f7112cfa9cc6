/* The backward pass: gates become their gradients, step by step; what is made of those is in gradients.h.
 * Part of kernels.h. */

typedef struct {
    int64_t steps, batch, columns, inputs, hidden;
    int64_t x_step, x_sequence;      /* from one step, and one sequence, of x to the next */
    int64_t dy_step, dy_sequence, dy_unit; /* the same of dy, and from one unit to the next */
    const REAL *w_ih, *w_hh;
    const REAL *x;                   /* [steps][batch][inputs] */
    const REAL *y, *dy;              /* [steps][batch][hidden]; dy may be null */
    const REAL *h, *c;               /* [batch][hidden]: the state before (c: LSTM) */
    const REAL *dh_after, *dc_after; /* [batch][hidden]: gradient of the state after; may be null */
    REAL *dh, *dc;                   /* [batch][hidden], out: gradient of the state before; with room for columns */
    REAL *scratch;                   /* [hidden][columns] */
    REAL *gates;                     /* the tape; out, the gradients of the gates before their non-linearity */
    const REAL *cells;               /* the tape (LSTM) */
    REAL *dw_ih, *dw_hh, *db_ih, *db_hh; /* added to; null where no gradient is wanted */
    REAL *dx;                        /* [steps][batch][inputs], or null */
    const int64_t *sizes;            /* [steps]: how many sequences went on; null for all */
} NAME(Backward);

/* How many sequences went on at that step. */
INLINE int64_t NAME(live)(const NAME(Backward) *b, int64_t step) { return b->sizes ? b->sizes[step] : b->batch; }

/* Their columns, as so many rows of so many numbers one after the other. */
typedef struct {
    int64_t rows, width;
} NAME(area);

INLINE NAME(area) NAME(area_of)(const NAME(Backward) *b, int64_t live) {
    const int64_t width = NAME(padded)(live);
    return width == b->columns ? (NAME(area)){1, b->hidden * width} : (NAME(area)){b->hidden, width};
}

/* One step's gates become their gradients, the gradient of c that of c before. */
INLINE void NAME(lstm_reverse)(const NAME(Backward) *b, int64_t step) {
    const int64_t size = b->hidden * b->columns;
    REAL *gates = b->gates + step * 4 * size;
    const REAL *after = b->cells + step * size, *before = step ? after - size : b->scratch;
    const int64_t live = NAME(live)(b, step);
    const NAME(area) area = NAME(area_of)(b, live);
    if (step == 0) NAME(to_columns)(live, b->hidden, b->columns, b->c, b->hidden, b->scratch);
    for (int64_t row = 0; row < area.rows; row++)
        for (int64_t at = row * b->columns; at < row * b->columns + area.width; at += LANES) {
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
    memset(b->dh, 0, size * sizeof(REAL));
}

/* One step's gates become the gradients of reset, update, the input part and the hidden part of new; what
 * reaches h directly stays in dh. */
INLINE void NAME(gru_reverse)(const NAME(Backward) *b, int64_t step) {
    const int64_t size = b->hidden * b->columns;
    REAL *gates = b->gates + step * 4 * size;
    const REAL *natural = step ? b->y + (step - 1) * b->batch * b->hidden : b->h, *before = b->scratch;
    const int64_t live = NAME(live)(b, step);
    const NAME(area) area = NAME(area_of)(b, live);
    NAME(to_columns)(live, b->hidden, b->columns, natural, b->hidden, b->scratch);
    for (int64_t row = 0; row < area.rows; row++)
        for (int64_t at = row * b->columns; at < row * b->columns + area.width; at += LANES) {
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
INLINE void NAME(add_transposed)(int units, REAL *out, const REAL *w, int64_t H, int64_t rows, const REAL *d,
                                 int64_t columns) {
    VEC sums[GATE_ROWS];
    for (int i = 0; i < units; i++) sums[i] = LOAD(out + i * columns);
    for (int64_t row = 0; row < rows; row++) {
        const VEC value = LOAD(d + row * columns);
        __builtin_prefetch(w + (row + ROWS_AHEAD) * H); /* rows of a page or more each: nothing else fetches them */
#pragma GCC unroll 16
        for (int i = 0; i < units; i++) sums[i] += w[row * H + i] * value;
    }
    for (int i = 0; i < units; i++) STORE(out + i * columns, sums[i]);
}

/* The same for every unit, and for the columns of the sequences that went on. */
INLINE void NAME(add_hidden_gradient)(REAL *dh, const REAL *w, int64_t H, int64_t rows, const REAL *d, int64_t P,
                                      int64_t live) {
    int64_t unit = 0;
    for (; unit + GATE_ROWS <= H; unit += GATE_ROWS)
        for (int64_t b = 0; b < live; b += LANES)
            NAME(add_transposed)(GATE_ROWS, dh + unit * P + b, w + unit, H, rows, d + b, P);
    for (; unit < H; unit++)
        for (int64_t b = 0; b < live; b += LANES)
            NAME(add_transposed)(1, dh + unit * P + b, w + unit, H, rows, d + b, P);
}

INLINE void NAME(add_output_gradient)(const NAME(Backward) *b, int64_t step) {
    if (!b->dy) return;
    const REAL *dy = b->dy + step * b->dy_step;
    const int64_t live = NAME(live)(b, step);
    for (int64_t from = 0; from < live; from += LANES)
        for (int64_t unit = 0; unit < b->hidden; unit += LANES)
            for (int64_t u = unit; u < NAME(least)(unit + LANES, b->hidden); u++)
                for (int64_t i = from; i < NAME(least)(from + LANES, live); i++)
                    b->dh[u * b->columns + i] += dy[i * b->dy_sequence + u * b->dy_unit];
}

/* The gradient of a state comes in as [batch][hidden], or not at all, and is worked on in columns: those of sequences
 * that end later than this step were there before. */
INLINE void NAME(gradient_in)(const NAME(Backward) *b, int64_t step, const REAL *natural, REAL *gradient) {
    const int64_t from = step + 1 < b->steps ? NAME(live)(b, step + 1) : 0, count = NAME(live)(b, step) - from;
    if (from == 0) memset(gradient, 0, b->hidden * b->columns * sizeof(REAL));
    if (natural && count)
        NAME(fill_columns)(count, b->hidden, b->columns, natural + from * b->hidden, b->hidden, gradient + from);
}

/* It goes out as it came in for sequences that did not begin. */
INLINE void NAME(gradient_out)(const NAME(Backward) *b, const REAL *natural, REAL *gradient) {
    const int64_t begun = NAME(live)(b, 0), at = begun * b->hidden, rest = (b->batch - begun) * b->hidden;
    memcpy(b->scratch, gradient, b->hidden * b->columns * sizeof(REAL));
    NAME(from_columns)(begun, b->hidden, b->columns, b->scratch, gradient);
    if (natural) memcpy(gradient + at, natural + at, rest * sizeof(REAL));
    else memset(gradient + at, 0, rest * sizeof(REAL));
}

INLINE void NAME(lstm_recurrence)(const NAME(Backward) *b) {
    const int64_t H = b->hidden, P = b->columns;
    for (int64_t step = b->steps - 1; step >= 0; step--) {
        NAME(gradient_in)(b, step, b->dh_after, b->dh);
        NAME(gradient_in)(b, step, b->dc_after, b->dc);
        NAME(add_output_gradient)(b, step);
        NAME(lstm_reverse)(b, step);
        NAME(add_hidden_gradient)(b->dh, b->w_hh, H, 4 * H, b->gates + step * 4 * H * P, P, NAME(live)(b, step));
    }
    NAME(gradient_out)(b, b->dh_after, b->dh);
    NAME(gradient_out)(b, b->dc_after, b->dc);
}

INLINE void NAME(gru_recurrence)(const NAME(Backward) *b) {
    const int64_t H = b->hidden, P = b->columns;
    for (int64_t step = b->steps - 1; step >= 0; step--) {
        const REAL *gates = b->gates + step * 4 * H * P;
        const int64_t live = NAME(live)(b, step);
        NAME(gradient_in)(b, step, b->dh_after, b->dh);
        NAME(add_output_gradient)(b, step);
        NAME(gru_reverse)(b, step);
        NAME(add_hidden_gradient)(b->dh, b->w_hh, H, 2 * H, gates, P, live);
        NAME(add_hidden_gradient)(b->dh, b->w_hh + 2 * H * H, H, H, gates + 3 * H * P, P, live);
    }
    NAME(gradient_out)(b, b->dh_after, b->dh);
}

/* What the weights of x, and those of h, are multiplied with. */
INLINE NAME(Values) NAME(inputs_of)(const NAME(Backward) *b) {
    return (NAME(Values)){b->inputs, b->x_step, b->x_sequence, 0, b->x};
}

INLINE NAME(Values) NAME(states_of)(const NAME(Backward) *b) {
    return (NAME(Values)){b->hidden, b->batch * b->hidden, b->hidden, b->h, b->y};
}

/* Adds to the gradients of the weights that `values` are multiplied with, and of the bias: those of the
 * `rows` gates of the tape from `from` on belong to the rows of the weights from `to` on. Steps in which the same
 * sequences went on are one product. */
INLINE void NAME(add_weight_gradients)(const NAME(Backward) *b, int64_t from, int64_t to, int64_t rows,
                                       NAME(Values) values, REAL *dw, REAL *db) {
    const int64_t P = b->columns, stride = 4 * b->hidden * P;
    for (int64_t step = 0, end; step < b->steps; step = end) {
        const int64_t live = NAME(live)(b, step);
        for (end = step + 1; end < b->steps && NAME(live)(b, end) == live; end++) {}
        const NAME(Outer) outer = {end - step, live, P, rows, stride, b->gates + step * stride + from * P,
                                   NAME(values_from)(values, step), dw ? dw + to * values.width : 0};
        if (dw) NAME(add_outer)(&outer);
        if (db) NAME(add_rows)(&outer, db + to);
    }
}

INLINE void NAME(inputs_gradient)(const NAME(Backward) *b, int64_t rows) {
    const int64_t I = b->inputs;
    for (int64_t step = 0; b->dx && step < b->steps; step++) {
        const int64_t live = NAME(live)(b, step);
        REAL *dx = b->dx + step * b->batch * I;
        NAME(inputs_step)(live, rows, b->columns, I, b->gates + step * 4 * b->hidden * b->columns, b->w_ih, dx);
        memset(dx + live * I, 0, (b->batch - live) * I * sizeof(REAL));
    }
}

void NAME(lstm_backward)(const NAME(Backward) *b) {
    const int64_t H = b->hidden;
    NAME(lstm_recurrence)(b);
    NAME(add_weight_gradients)(b, 0, 0, 4 * H, NAME(inputs_of)(b), b->dw_ih, b->db_ih);
    NAME(add_weight_gradients)(b, 0, 0, 4 * H, NAME(states_of)(b), b->dw_hh, b->db_hh);
    NAME(inputs_gradient)(b, 4 * H);
}

/* The fourth gate of the tape is the hidden part of new: the weights of x have nothing to do with it, those
 * of h with it in the place of the third. */
void NAME(gru_backward)(const NAME(Backward) *b) {
    const int64_t H = b->hidden;
    NAME(gru_recurrence)(b);
    NAME(add_weight_gradients)(b, 0, 0, 3 * H, NAME(inputs_of)(b), b->dw_ih, b->db_ih);
    NAME(add_weight_gradients)(b, 0, 0, 2 * H, NAME(states_of)(b), b->dw_hh, b->db_hh);
    NAME(add_weight_gradients)(b, 3 * H, 2 * H, H, NAME(states_of)(b), b->dw_hh, b->db_hh);
    NAME(inputs_gradient)(b, 3 * H);
}
