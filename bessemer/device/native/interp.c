/* The step interpreter and its thread pool; compiled into every CPU engine.

   A context owns a `bsm_table`: steps, pointers and integers in flat arrays that the session fills and patches. A run
   is one call. Kernels get their slice of the pointers and integers, and a range of work items; the pool hands out
   chunks of the items through an atomic counter. Workers spin for a while after each job, because the next step comes
   within microseconds, then sleep; a job ends when its items are done, whoever slept through it. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef void bsm_kernel(void *const *p, const int64_t *d, int64_t begin, int64_t end, int64_t thread);
typedef int64_t bsm_host(int64_t step);

enum { KERNEL = 0, HOST = 1, COPY = 2, BRANCH = 3, JUMP = 4 };

struct bsm_step {
    int64_t kind;
    int64_t kernel;  /* KERNEL: number in `kernels` */
    int64_t pointer; /* first of its pointers; COPY: to, from; BRANCH: the condition */
    int64_t integer; /* first of its integers; COPY: the bytes */
    int64_t items;   /* KERNEL: where among the integers its number of work items is */
    int64_t target;  /* BRANCH, JUMP */
    int64_t serial;  /* KERNEL: too small to be worth waking anybody */
};

enum { JOB = 1 << 16, OPEN = 1 << 15, YIELD = 1 << 12 };

struct bsm_pool;

struct bsm_table {
    const struct bsm_step *steps;
    void **pointers;
    int64_t *integers;
    bsm_kernel **kernels;
    bsm_host *host;
    int64_t *nanoseconds; /* per step, added to; or null */
    struct bsm_pool *pool;
};

struct bsm_pool {
    int64_t threads; /* the caller included */
    int64_t spins;
    pthread_t *workers;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    _Atomic int64_t gate;     /* job * JOB + (OPEN while it may be joined) + workers that are at it */
    _Atomic int64_t sleeping; /* workers */
    _Atomic int64_t next;     /* first work item that nobody has taken */
    bsm_kernel *kernel;
    void *const *p;
    const int64_t *d;
    int64_t items, chunk;
    int stop;
};

struct worker {
    struct bsm_pool *pool;
    int64_t number;
};

static inline void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

static void work(struct bsm_pool *pool, int64_t number) {
    for (;;) {
        const int64_t begin = atomic_fetch_add_explicit(&pool->next, pool->chunk, memory_order_relaxed);
        if (begin >= pool->items) return;
        const int64_t end = begin + pool->chunk;
        pool->kernel(pool->p, pool->d, begin, end < pool->items ? end : pool->items, number);
    }
}

static int64_t job_of(struct bsm_pool *pool) { return atomic_load_explicit(&pool->gate, memory_order_acquire) / JOB; }

/* Whether a worker got into job `number`: one that wakes up late finds it closed, and nobody waits for it. */
static int join(struct bsm_pool *pool, int64_t number) {
    int64_t gate = atomic_load(&pool->gate);
    while (gate / JOB == number && gate & OPEN)
        if (atomic_compare_exchange_weak(&pool->gate, &gate, gate + 1)) return 1;
    return 0;
}

static void *worker_main(void *argument) {
    const struct worker self = *(struct worker *)argument;
    struct bsm_pool *pool = self.pool;
    free(argument);
    int64_t seen = 0;
    for (;;) {
        int64_t spins = pool->spins;
        while (job_of(pool) == seen && spins-- > 0) relax();
        if (job_of(pool) == seen) {
            pthread_mutex_lock(&pool->lock);
            atomic_fetch_add(&pool->sleeping, 1);
            while (atomic_load(&pool->gate) / JOB == seen) pthread_cond_wait(&pool->wake, &pool->lock);
            atomic_fetch_sub(&pool->sleeping, 1);
            pthread_mutex_unlock(&pool->lock);
        }
        seen = job_of(pool);
        if (pool->stop) return 0;
        if (join(pool, seen)) {
            work(pool, self.number);
            atomic_fetch_sub_explicit(&pool->gate, 1, memory_order_release);
        }
    }
}

static void start_job(struct bsm_pool *pool, int64_t flags) {
    atomic_store(&pool->gate, (atomic_load(&pool->gate) / JOB + 1) * JOB + flags);
    if (atomic_load(&pool->sleeping)) {
        pthread_mutex_lock(&pool->lock);
        pthread_cond_broadcast(&pool->wake);
        pthread_mutex_unlock(&pool->lock);
    }
}

/* Closes the job and waits for the workers that joined it. */
static void end_job(struct bsm_pool *pool) {
    atomic_fetch_sub(&pool->gate, OPEN);
    for (int64_t spins = 1; atomic_load_explicit(&pool->gate, memory_order_acquire) % OPEN; spins++)
        if (spins % YIELD) relax();
        else sched_yield(); /* more threads than processors: let the worker run */
}

struct bsm_pool *bsm_pool_create(int64_t threads, int64_t spins) {
    struct bsm_pool *pool = calloc(1, sizeof *pool);
    if (!pool) return 0;
    pool->spins = spins;
    pool->threads = 1;
    pool->workers = calloc((size_t)threads, sizeof *pool->workers);
    pthread_mutex_init(&pool->lock, 0);
    pthread_cond_init(&pool->wake, 0);
    for (int64_t i = 1; pool->workers && i < threads; i++) {
        struct worker *w = malloc(sizeof *w);
        if (!w) break;
        *w = (struct worker){pool, i};
        if (pthread_create(&pool->workers[i], 0, worker_main, w)) {
            free(w);
            break;
        }
        pool->threads++;
    }
    return pool;
}

int64_t bsm_pool_threads(const struct bsm_pool *pool) { return pool->threads; }

void bsm_pool_destroy(struct bsm_pool *pool) {
    pool->stop = 1;
    start_job(pool, 0);
    for (int64_t i = 1; i < pool->threads; i++) pthread_join(pool->workers[i], 0);
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->lock);
    free(pool->workers);
    free(pool);
}

static void run_kernel(struct bsm_pool *pool, bsm_kernel *kernel, void *const *p, const int64_t *d, int64_t items,
                       int64_t serial) {
    if (items <= 0) return;
    if (serial || items == 1 || pool->threads == 1) {
        kernel(p, d, 0, items, 0);
        return;
    }
    pool->kernel = kernel, pool->p = p, pool->d = d, pool->items = items;
    const int64_t chunk = items / (pool->threads * 4);
    pool->chunk = chunk > 0 ? chunk : 1;
    atomic_store_explicit(&pool->next, 0, memory_order_relaxed);
    start_job(pool, OPEN);
    work(pool, 0);
    end_job(pool);
}

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Runs steps from `first` up to `last`. Returns 0, or what a host step returned when it failed. */
int64_t bsm_run(const struct bsm_table *t, int64_t first, int64_t last) {
    int64_t k = first;
    while (k < last) {
        const struct bsm_step *s = t->steps + k;
        void *const *p = t->pointers + s->pointer;
        const int64_t *d = t->integers + s->integer;
        const int64_t started = t->nanoseconds ? now() : 0;
        int64_t next = k + 1;
        switch (s->kind) {
        case KERNEL:
            run_kernel(t->pool, t->kernels[s->kernel], p, d, t->integers[s->items], s->serial);
            break;
        case HOST: {
            const int64_t failed = t->host(k);
            if (failed) return failed;
            break;
        }
        case COPY:
            if (d[0] > 0) memmove(p[0], p[1], (size_t)d[0]);
            break;
        case BRANCH:
            if (!*(const uint8_t *)p[0]) next = s->target;
            break;
        case JUMP:
            next = s->target;
            break;
        }
        if (t->nanoseconds) t->nanoseconds[k] += now() - started;
        k = next;
    }
    return 0;
}
