/* Threads: every member of a team runs the same function, computes its share of whatever is computed, and meets the
 * others where it needs theirs. Part of kernels.c.
 *
 * The threads are OpenMP's, as those of torch's own operations are. Its barriers are not for thousands of steps: they
 * spin for milliseconds, and where other processes use the cores as well, that is the time that the missing thread
 * would need. Ours sleep sooner. */

/* Where the members meet, one time after the other. */
typedef struct Meetings Meetings;

/* A thread: its place among `of`. */
typedef struct {
    Meetings *meetings;
    int64_t place, of;
} Member;

typedef void Work(const void *given, const Member *me);

/* from..to-1 of a count, a member's: whole tiles. */
typedef struct {
    int64_t from, to;
} Share;

static Share share_of(const Member *me, int64_t count, int64_t tile) {
    const int64_t tiles = (count + tile - 1) / tile;
    const int64_t from = tiles * me->place / me->of * tile, to = tiles * (me->place + 1) / me->of * tile;
    return (Share){from, to < count ? to : count};
}

#ifdef _OPENMP
#include <omp.h>
#include <pthread.h>
#include <stdatomic.h>

enum { SPINS = 2000 }; /* some tens of microseconds: on cores of one's own a wait is shorter */

struct Meetings {
    atomic_int arrived, past, sleepers; /* past: how many meetings there were */
    pthread_mutex_t lock;
    pthread_cond_t is_past;
};

static void pause_briefly(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void wake(Meetings *m) {
    pthread_mutex_lock(&m->lock);
    pthread_cond_broadcast(&m->is_past);
    pthread_mutex_unlock(&m->lock);
}

static void sleep_until_past(Meetings *m, int before) {
    pthread_mutex_lock(&m->lock);
    atomic_fetch_add(&m->sleepers, 1);
    while (atomic_load(&m->past) == before) pthread_cond_wait(&m->is_past, &m->lock);
    atomic_fetch_sub(&m->sleepers, 1);
    pthread_mutex_unlock(&m->lock);
}

static void meet(const Member *me) {
    Meetings *m = me->meetings;
    if (me->of == 1) return;
    const int before = atomic_load(&m->past);
    if (atomic_fetch_add(&m->arrived, 1) + 1 == me->of) {
        atomic_store(&m->arrived, 0);
        atomic_fetch_add(&m->past, 1);
        if (atomic_load(&m->sleepers)) wake(m);
        return;
    }
    for (int spin = 0; spin < SPINS; spin++, pause_briefly())
        if (atomic_load_explicit(&m->past, memory_order_acquire) != before) return;
    sleep_until_past(m, before);
}

/* `work` by so many threads, or as few as OpenMP gives. */
static void by_a_team(Work *work, const void *given, int64_t threads) {
    Meetings meetings = {0, 0, 0, PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER};
#pragma omp parallel num_threads((int)threads)
    {
        const Member me = {&meetings, omp_get_thread_num(), omp_get_num_threads()};
        work(given, &me);
        meet(&me); /* the team ends in a barrier of OpenMP's */
    }
}

int64_t most_threads(void) { return INT32_MAX; }
#else
static void meet(const Member *me) { (void)me; }

static void by_a_team(Work *work, const void *given, int64_t threads) {
    (void)threads;
    work(given, &(const Member){0, 0, 1});
}

int64_t most_threads(void) { return 1; }
#endif
