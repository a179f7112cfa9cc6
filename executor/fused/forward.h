/* The forward pass: the steps of a layer one after the other. Part of kernels.h. */

typedef struct {
    int64_t threads, steps, batch, columns, inputs, hidden;
    int64_t x_step, x_sequence;                   /* from one step, and one sequence, of x to the next */
    const REAL *x;                                /* [steps][batch][inputs] */
    const REAL *w_ih, *w_hh, *b_ih, *b_hh;        /* torch's; biases may be null */
    const REAL *h, *c;                            /* [batch][hidden]: the state before (c: LSTM) */
    REAL *h_after, *c_after;                      /* [batch][hidden]: the state after; h_after may be null */
    REAL *scratch;                                /* [2 (GRU) or 3 (LSTM) times hidden, and inputs][columns] */
    REAL *gates;                                  /* the tape [steps][4][hidden][columns], or null */
    REAL *cells;                                  /* the tape [steps][hidden][columns] (LSTM), or null */
    REAL *y;                                      /* [steps][batch][hidden], or null */
    const int64_t *sizes;                         /* [steps]: how many sequences go on, never more than before, the
                                                     first ones; null for all. Columns of the others are garbage */
} NAME(Forward);

/* What a step reads and writes, in columns. */
typedef struct {
    const REAL *x, *h;
    REAL *c, *next;     /* c before, then after (LSTM); h after */
    REAL *gates, *cells; /* this step's tape, or null */
    int64_t columns;     /* of the sequences that go on */
    Share units;         /* that are this thread's */
} NAME(Step);

/* A tile of sums: rows of weights times vectors of sequences. */
typedef VEC NAME(tile)[VECTORS];

/* sums[i][v] += w[i][k] x[k][v], for every k. */
INLINE void NAME(add_products)(int rows, int vectors, NAME(tile) *sums, const REAL *const *w, int64_t inner,
                               const REAL *x, int64_t columns) {
    for (int64_t k = 0; k < inner; k++) {
        VEC value[VECTORS];
        UNROLL
        for (int v = 0; v < vectors; v++) value[v] = LOAD(x + k * columns + v * LANES);
        UNROLL
        for (int i = 0; i < rows; i++) {
            UNROLL
            for (int v = 0; v < vectors; v++) sums[i][v] += w[i][k] * value[v];
        }
    }
}

INLINE void NAME(lstm_unit)(const NAME(Forward) *f, const NAME(Step) *s, int64_t at, VEC input, VEC forget, VEC cell,
                            VEC output) {
    const int64_t size = f->hidden * f->columns;
    input = NAME(sigmoid)(input), forget = NAME(sigmoid)(forget);
    cell = NAME(tanh)(cell), output = NAME(sigmoid)(output);
    const VEC c = forget * LOAD(s->c + at) + input * cell;
    STORE(s->c + at, c);
    STORE(s->next + at, output * NAME(tanh)(c));
    if (!s->gates) return;
    STORE(s->gates + at, input);
    STORE(s->gates + size + at, forget);
    STORE(s->gates + 2 * size + at, cell);
    STORE(s->gates + 3 * size + at, output);
    STORE(s->cells + at, c);
}

INLINE void NAME(lstm_units)(int units, int vectors, const NAME(Forward) *f, const NAME(Step) *s, int64_t unit,
                             int64_t column) {
    const int64_t H = f->hidden, P = f->columns;
    const REAL *of_x[4 * UNITS], *of_h[4 * UNITS];
    NAME(tile) sums[4 * UNITS];
    UNROLL
    for (int gate = 0; gate < 4; gate++)
        UNROLL
        for (int i = 0; i < units; i++) {
            const int64_t row = gate * H + unit + i;
            of_x[gate * units + i] = f->w_ih + row * f->inputs;
            of_h[gate * units + i] = f->w_hh + row * H;
            const REAL bias = f->b_ih ? f->b_ih[row] + f->b_hh[row] : 0;
            UNROLL
            for (int v = 0; v < vectors; v++) sums[gate * units + i][v] = (VEC){0} + bias;
        }
    NAME(add_products)(4 * units, vectors, sums, of_x, f->inputs, s->x + column, P);
    NAME(add_products)(4 * units, vectors, sums, of_h, H, s->h + column, P);
    UNROLL
    for (int i = 0; i < units; i++)
        UNROLL
        for (int v = 0; v < vectors; v++)
            NAME(lstm_unit)(f, s, (unit + i) * P + column + v * LANES, sums[i][v], sums[units + i][v],
                            sums[2 * units + i][v], sums[3 * units + i][v]);
}

/* The gates of a GRU's tape: reset, update, new, and the hidden part of new before it is reset. */
INLINE void NAME(gru_unit)(const NAME(Forward) *f, const NAME(Step) *s, int64_t at, VEC reset, VEC update,
                           VEC of_input, VEC of_hidden) {
    const int64_t size = f->hidden * f->columns;
    reset = NAME(sigmoid)(reset), update = NAME(sigmoid)(update);
    const VEC new = NAME(tanh)(of_input + reset * of_hidden);
    STORE(s->next + at, new + update * (LOAD(s->h + at) - new));
    if (!s->gates) return;
    STORE(s->gates + at, reset);
    STORE(s->gates + size + at, update);
    STORE(s->gates + 2 * size + at, new);
    STORE(s->gates + 3 * size + at, of_hidden);
}

INLINE void NAME(gru_units)(int units, int vectors, const NAME(Forward) *f, const NAME(Step) *s, int64_t unit,
                            int64_t column) {
    const int64_t H = f->hidden, P = f->columns;
    const REAL *of_x[3 * UNITS], *of_h[3 * UNITS];
    NAME(tile) sums[4 * UNITS]; /* input part of new, reset, update, hidden part of new */
    UNROLL
    for (int gate = 0; gate < 3; gate++)
        UNROLL
        for (int i = 0; i < units; i++) {
            const int64_t row = gate * H + unit + i, place = (gate + 1) % 3 * units + i;
            of_x[place] = f->w_ih + row * f->inputs;
            of_h[gate * units + i] = f->w_hh + row * H;
            const REAL of_input = f->b_ih ? f->b_ih[row] : 0, of_hidden = f->b_hh ? f->b_hh[row] : 0;
            UNROLL
            for (int v = 0; v < vectors; v++) {
                sums[place][v] = (VEC){0} + (gate < 2 ? of_input + of_hidden : of_input);
                sums[3 * units + i][v] = (VEC){0} + of_hidden;
            }
        }
    NAME(add_products)(3 * units, vectors, sums, of_x, f->inputs, s->x + column, P);
    NAME(add_products)(3 * units, vectors, sums + units, of_h, H, s->h + column, P);
    UNROLL
    for (int i = 0; i < units; i++)
        UNROLL
        for (int v = 0; v < vectors; v++)
            NAME(gru_unit)(f, s, (unit + i) * P + column + v * LANES, sums[units + i][v], sums[2 * units + i][v],
                           sums[i][v], sums[3 * units + i][v]);
}

/* The state of sequences that do not begin is handed on. */
INLINE void NAME(keep)(const NAME(Forward) *f, const Member *me, int64_t begun) {
    const Share rest = share_of(me, (f->batch - begun) * f->hidden, 1);
    const int64_t at = begun * f->hidden + rest.from, bytes = (rest.to - rest.from) * sizeof(REAL);
    if (f->h_after) memcpy(f->h_after + at, f->h + at, bytes);
    if (f->c_after) memcpy(f->c_after + at, f->c + at, bytes);
}

/* This thread's units of the state before, of the sequences that begin. */
INLINE void NAME(take_in)(const NAME(Forward) *f, Share units, int64_t begun, const REAL *natural, REAL *columns) {
    NAME(to_columns)(begun, units.to - units.from, f->columns, natural + units.from, f->hidden,
                     columns + units.from * f->columns);
}

/* This thread's units of sequences from..to-1, to [batch][hidden]. */
INLINE void NAME(put_out)(const NAME(Forward) *f, Share units, int64_t from, int64_t to, const REAL *columns,
                          REAL *natural) {
    NAME(from_columns)(to - from, units.to - units.from, f->columns, columns + units.from * f->columns + from,
                       natural + from * f->hidden + units.from, f->hidden);
}

/* The same of the last state. */
INLINE void NAME(end_state)(const NAME(Forward) *f, Share units, int64_t from, int64_t to, const REAL *h,
                            const REAL *c) {
    if (f->h_after) NAME(put_out)(f, units, from, to, h, f->h_after);
    if (c) NAME(put_out)(f, units, from, to, c, f->c_after);
}

/* The same of a step's outputs; zeros for the sequences that have ended. */
INLINE void NAME(put_out_step)(const NAME(Forward) *f, Share units, int64_t live, const REAL *h, REAL *y) {
    NAME(put_out)(f, units, 0, live, h, y);
    for (int64_t b = live; b < f->batch; b++)
        memset(y + b * f->hidden + units.from, 0, (units.to - units.from) * sizeof(REAL));
}

INLINE void NAME(inputs_in)(const NAME(Forward) *f, const Member *me, int64_t step, int64_t live, REAL *x) {
    const Share own = share_of(me, f->inputs, LANES);
    NAME(to_columns)(live, own.to - own.from, f->columns, f->x + step * f->x_step + own.from, f->x_sequence,
                     x + own.from * f->columns);
}

#define DEFINE_FORWARD(KIND, PARTS)                                                                           \
    INLINE void NAME(KIND##_column)(int units, int vectors, const NAME(Forward) *f, const NAME(Step) *s,      \
                                    int64_t column) {                                                         \
        int64_t unit = s->units.from;                                                                         \
        for (; unit + units <= s->units.to; unit += units)                                                    \
            NAME(KIND##_units)(units, vectors, f, s, unit, column);                                           \
        for (; unit < s->units.to; unit++) NAME(KIND##_units)(1, vectors, f, s, unit, column);                \
    }                                                                                                         \
    INLINE void NAME(KIND##_step)(const NAME(Forward) *f, const NAME(Step) *s) {                              \
        int64_t column = 0;                                                                                   \
        for (; column + VECTORS * LANES <= s->columns; column += VECTORS * LANES)                             \
            NAME(KIND##_column)(UNITS, VECTORS, f, s, column);                                                \
        for (; column < s->columns; column += LANES) NAME(KIND##_column)(UNITS, 1, f, s, column);             \
    }                                                                                                         \
    static void NAME(KIND##_steps)(const void *given, const Member *me) {                                     \
        const NAME(Forward) *f = given;                                                                       \
        const int64_t H = f->hidden, P = f->columns, size = H * P;                                            \
        const Share units = share_of(me, H, STEP_UNITS);                                                      \
        REAL *h = f->scratch, *next = h + size, *c = PARTS == 3 ? next + size : 0, *x = h + PARTS * size;     \
        int64_t live = f->sizes ? f->sizes[0] : f->batch;                                                     \
        NAME(take_in)(f, units, live, f->h, h);                                                               \
        if (c) NAME(take_in)(f, units, live, f->c, c);                                                        \
        NAME(keep)(f, me, live);                                                                              \
        for (int64_t step = 0; step < f->steps; step++) {                                                     \
            if (f->sizes && f->sizes[step] < live) {                                                          \
                NAME(end_state)(f, units, f->sizes[step], live, h, c);                                        \
                live = f->sizes[step];                                                                        \
            }                                                                                                 \
            NAME(inputs_in)(f, me, step, live, x);                                                            \
            meet(me); /* all of x, and of h */                                                                \
            const NAME(Step) now = {x, h, c, next, f->gates ? f->gates + step * 4 * size : 0,                 \
                                    f->cells ? f->cells + step * size : 0, NAME(padded)(live), units};        \
            NAME(KIND##_step)(f, &now);                                                                       \
            next = h, h = now.next;                                                                           \
            if (f->y) NAME(put_out_step)(f, units, live, h, f->y + step * f->batch * H);                      \
            meet(me); /* nobody needs x, nor the h before */                                                  \
        }                                                                                                     \
        NAME(end_state)(f, units, 0, live, h, c);                                                             \
    }                                                                                                         \
    void NAME(KIND##_forward)(const NAME(Forward) *f) {                                                       \
        by_a_team(NAME(KIND##_steps), f, f->threads);                                                         \
    }
DEFINE_FORWARD(lstm, 3)
DEFINE_FORWARD(gru, 2)
