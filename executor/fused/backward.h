/* The backward pass: gates become their gradients, step by step; what is made of those is in gradients.h.
 * Part of kernels.h. */

typedef struct {
    int64_t threads, steps, batch, columns, inputs, hidden;
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

/* This thread's units: it works on their rows of whatever has a row per unit. */
INLINE Share NAME(own_units)(const NAME(Backward) *b, const Member *me) { return share_of(me, b->hidden, GATE_ROWS); }

/* The columns of the sequences that went on, as so many rows of so many numbers one after the other; from `at` on. */
typedef struct {
    int64_t rows, width, at;
} NAME(area);

INLINE NAME(area) NAME(area_of)(const NAME(Backward) *b, Share units, int64_t live) {
    const int64_t width = NAME(padded)(live), rows = units.to - units.from, at = units.from * b->columns;
    return width == b->columns ? (NAME(area)){1, rows * width, at} : (NAME(area)){rows, width, at};
}

/* This thread's units of a state before, to columns. */
INLINE void NAME(state_in)(const NAME(Backward) *b, Share units, int64_t live, const REAL *natural) {
    NAME(to_columns)(live, units.to - units.from, b->columns, natural + units.from, b->hidden,
                     b->scratch + units.from * b->columns);
}

/* One step's gates become their gradients, the gradient of c that of c before. */
INLINE void NAME(lstm_reverse)(const NAME(Backward) *b, Share units, int64_t step) {
    const int64_t size = b->hidden * b->columns;
    REAL *gates = b->gates + step * 4 * size;
    const REAL *after = b->cells + step * size, *before = step ? after - size : b->scratch;
    const int64_t live = NAME(live)(b, step);
    const NAME(area) area = NAME(area_of)(b, units, live);
    if (step == 0) NAME(state_in)(b, units, live, b->c);
    for (int64_t row = 0; row < area.rows; row++)
        for (int64_t at = area.at + row * b->columns, end = at + area.width; at < end; at += LANES) {
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
    memset(b->dh + area.at, 0, (units.to - units.from) * b->columns * sizeof(REAL));
}

/* One step's gates become the gradients of reset, update, the input part and the hidden part of new; what
 * reaches h directly stays in dh. */
INLINE void NAME(gru_reverse)(const NAME(Backward) *b, Share units, int64_t step) {
    const int64_t size = b->hidden * b->columns;
    REAL *gates = b->gates + step * 4 * size;
    const REAL *natural = step ? b->y + (step - 1) * b->batch * b->hidden : b->h, *before = b->scratch;
    const int64_t live = NAME(live)(b, step);
    const NAME(area) area = NAME(area_of)(b, units, live);
    NAME(state_in)(b, units, live, natural);
    for (int64_t row = 0; row < area.rows; row++)
        for (int64_t at = area.at + row * b->columns, end = at + area.width; at < end; at += LANES) {
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
    UNROLL
    for (int i = 0; i < units; i++) sums[i] = LOAD(out + i * columns);
    for (int64_t row = 0; row < rows; row++) {
        const VEC value = LOAD(d + row * columns);
        __builtin_prefetch(w + (row + ROWS_AHEAD) * H); /* rows of a page or more each: nothing else fetches them */
        UNROLL
        for (int i = 0; i < units; i++) sums[i] += w[row * H + i] * value;
    }
    UNROLL
    for (int i = 0; i < units; i++) STORE(out + i * columns, sums[i]);
}

/* The same for this thread's units, and for the columns of the sequences that went on. */
INLINE void NAME(add_hidden_gradient)(const NAME(Backward) *b, Share units, const REAL *w, int64_t rows,
                                      const REAL *d, int64_t live) {
    const int64_t H = b->hidden, P = b->columns;
    int64_t unit = units.from;
    for (; unit + GATE_ROWS <= units.to; unit += GATE_ROWS)
        for (int64_t at = 0; at < live; at += LANES)
            NAME(add_transposed)(GATE_ROWS, b->dh + unit * P + at, w + unit, H, rows, d + at, P);
    for (; unit < units.to; unit++)
        for (int64_t at = 0; at < live; at += LANES)
            NAME(add_transposed)(1, b->dh + unit * P + at, w + unit, H, rows, d + at, P);
}

INLINE void NAME(add_output_gradient)(const NAME(Backward) *b, Share units, int64_t step) {
    if (!b->dy) return;
    const REAL *dy = b->dy + step * b->dy_step;
    const int64_t live = NAME(live)(b, step);
    for (int64_t from = 0; from < live; from += LANES)
        for (int64_t unit = units.from; unit < units.to; unit += LANES)
            for (int64_t u = unit; u < NAME(least)(unit + LANES, units.to); u++)
                for (int64_t i = from; i < NAME(least)(from + LANES, live); i++)
                    b->dh[u * b->columns + i] += dy[i * b->dy_sequence + u * b->dy_unit];
}

/* The gradient of a state comes in as [batch][hidden], or not at all, and is worked on in columns: those of sequences
 * that end later than this step were there before. */
INLINE void NAME(gradient_in)(const NAME(Backward) *b, Share units, int64_t step, const REAL *natural,
                              REAL *gradient) {
    const int64_t from = step + 1 < b->steps ? NAME(live)(b, step + 1) : 0, count = NAME(live)(b, step) - from;
    const int64_t H = b->hidden, rows = units.to - units.from;
    gradient += units.from * b->columns;
    if (from == 0) memset(gradient, 0, rows * b->columns * sizeof(REAL));
    if (natural && count)
        NAME(fill_columns)(count, rows, b->columns, natural + from * H + units.from, H, gradient + from);
}

/* It goes out as it came in for sequences that did not begin. */
INLINE void NAME(gradient_out)(const NAME(Backward) *b, const Member *me, Share units, const REAL *natural,
                               REAL *gradient) {
    const int64_t P = b->columns, at = units.from * P, rows = units.to - units.from, begun = NAME(live)(b, 0);
    const Share rest = share_of(me, (b->batch - begun) * b->hidden, 1);
    const int64_t bytes = (rest.to - rest.from) * sizeof(REAL);
    memcpy(b->scratch + at, gradient + at, rows * P * sizeof(REAL));
    meet(me); /* what is in columns is elsewhere: [batch][hidden] takes its place */
    NAME(from_columns)(begun, rows, P, b->scratch + at, gradient + units.from, b->hidden);
    gradient += begun * b->hidden + rest.from;
    if (natural) memcpy(gradient, natural + begun * b->hidden + rest.from, bytes);
    else memset(gradient, 0, bytes);
}

INLINE void NAME(lstm_recurrence)(const NAME(Backward) *b, const Member *me) {
    const Share units = NAME(own_units)(b, me);
    const int64_t H = b->hidden;
    for (int64_t step = b->steps - 1; step >= 0; step--) {
        NAME(gradient_in)(b, units, step, b->dh_after, b->dh);
        NAME(gradient_in)(b, units, step, b->dc_after, b->dc);
        NAME(add_output_gradient)(b, units, step);
        NAME(lstm_reverse)(b, units, step);
        meet(me); /* all gradients of the gates */
        NAME(add_hidden_gradient)(b, units, b->w_hh, 4 * H, b->gates + step * 4 * H * b->columns, NAME(live)(b, step));
    }
    NAME(gradient_out)(b, me, units, b->dh_after, b->dh);
    NAME(gradient_out)(b, me, units, b->dc_after, b->dc);
}

INLINE void NAME(gru_recurrence)(const NAME(Backward) *b, const Member *me) {
    const Share units = NAME(own_units)(b, me);
    const int64_t H = b->hidden, P = b->columns;
    for (int64_t step = b->steps - 1; step >= 0; step--) {
        const REAL *gates = b->gates + step * 4 * H * P;
        const int64_t live = NAME(live)(b, step);
        NAME(gradient_in)(b, units, step, b->dh_after, b->dh);
        NAME(add_output_gradient)(b, units, step);
        NAME(gru_reverse)(b, units, step);
        meet(me); /* all gradients of the gates */
        NAME(add_hidden_gradient)(b, units, b->w_hh, 2 * H, gates, live);
        NAME(add_hidden_gradient)(b, units, b->w_hh + 2 * H * H, H, gates + 3 * H * P, live);
    }
    NAME(gradient_out)(b, me, units, b->dh_after, b->dh);
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
 * sequences went on are one product. Of the rows each thread has its own. */
INLINE void NAME(add_weight_gradients)(const NAME(Backward) *b, const Member *me, int64_t from, int64_t to,
                                       int64_t rows, NAME(Values) values, REAL *dw, REAL *db) {
    const int64_t P = b->columns, stride = 4 * b->hidden * P;
    const Share own = share_of(me, rows, TILE_ROWS);
    from += own.from, to += own.from, rows = own.to - own.from;
    for (int64_t step = 0, end; step < b->steps; step = end) {
        const int64_t live = NAME(live)(b, step);
        for (end = step + 1; end < b->steps && NAME(live)(b, end) == live; end++) {}
        const NAME(Outer) outer = {end - step, live, P, rows, stride, b->gates + step * stride + from * P,
                                   NAME(values_from)(values, step), dw ? dw + to * values.width : 0};
        if (dw) NAME(add_outer)(&outer);
        if (db) NAME(add_rows)(&outer, db + to);
    }
}

/* Each thread has some of all steps' panels. */
INLINE void NAME(inputs_gradient)(const NAME(Backward) *b, const Member *me, int64_t rows) {
    const int64_t I = b->inputs, panels = (I + INPUTS_PANEL - 1) / INPUTS_PANEL;
    const Share own = share_of(me, b->dx ? b->steps * panels : 0, 1);
    for (int64_t each = own.from; each < own.to; each++) {
        const int64_t step = each / panels, from = each % panels * INPUTS_PANEL, live = NAME(live)(b, step);
        const int64_t to = NAME(least)(from + INPUTS_PANEL, I);
        const REAL *d = b->gates + step * 4 * b->hidden * b->columns;
        REAL *dx = b->dx + step * b->batch * I;
        NAME(inputs_step)(live, rows, b->columns, I, from, to, d, b->w_ih, dx);
        for (int64_t ended = live; ended < b->batch; ended++)
            memset(dx + ended * I + from, 0, (to - from) * sizeof(REAL));
    }
}

static void NAME(lstm_gradients)(const void *given, const Member *me) {
    const NAME(Backward) *b = given;
    const int64_t H = b->hidden;
    NAME(lstm_recurrence)(b, me);
    NAME(add_weight_gradients)(b, me, 0, 0, 4 * H, NAME(inputs_of)(b), b->dw_ih, b->db_ih);
    NAME(add_weight_gradients)(b, me, 0, 0, 4 * H, NAME(states_of)(b), b->dw_hh, b->db_hh);
    NAME(inputs_gradient)(b, me, 4 * H);
}

/* The fourth gate of the tape is the hidden part of new: the weights of x have nothing to do with it, those
 * of h with it in the place of the third. */
static void NAME(gru_gradients)(const void *given, const Member *me) {
    const NAME(Backward) *b = given;
    const int64_t H = b->hidden;
    NAME(gru_recurrence)(b, me);
    NAME(add_weight_gradients)(b, me, 0, 0, 3 * H, NAME(inputs_of)(b), b->dw_ih, b->db_ih);
    NAME(add_weight_gradients)(b, me, 0, 0, 2 * H, NAME(states_of)(b), b->dw_hh, b->db_hh);
    NAME(add_weight_gradients)(b, me, 3 * H, 2 * H, H, NAME(states_of)(b), b->dw_hh, b->db_hh);
    NAME(inputs_gradient)(b, me, 3 * H);
}

void NAME(lstm_backward)(const NAME(Backward) *b) {
    by_a_team(NAME(lstm_gradients), b, b->threads);
}

void NAME(gru_backward)(const NAME(Backward) *b) {
    by_a_team(NAME(gru_gradients), b, b->threads);
}
