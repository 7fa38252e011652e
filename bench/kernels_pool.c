/* Times a sequence of kernel launches on a pool of spinning threads: what bench/kernels_cpu.py measures with. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <time.h>

typedef void kernel(void *const *p, const int64_t *d, int64_t begin, int64_t end, int64_t thread);

struct launch {
    kernel *entry;
    void *const *p;
    const int64_t *d;
    int64_t items;
};

struct job {
    const struct launch *launches;
    int count, threads, runs;
    atomic_int arrived, round;
    atomic_long next[64];
    double *seconds, last; /* when the last thread reached the barrier */
};

struct worker {
    struct job *job;
    int thread;
};

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

static void barrier(struct job *job) {
    const int round = atomic_load(&job->round);
    if (atomic_fetch_add(&job->arrived, 1) + 1 == job->threads) {
        atomic_store(&job->arrived, 0);
        job->last = now();
        atomic_store(&job->round, round + 1);
    } else {
        while (atomic_load(&job->round) == round) __builtin_ia32_pause();
    }
}

static void *work(void *arg) {
    const struct worker *w = arg;
    struct job *job = w->job;
    for (int run = 0; run < job->runs; run++) {
        barrier(job);
        const double start = job->last;
        for (int i = 0; i < job->count; i++) {
            const struct launch *l = job->launches + i;
            const long chunk = (l->items + 8 * job->threads - 1) / (8 * job->threads);
            long begin;
            while ((begin = atomic_fetch_add(&job->next[i % 64], chunk)) < l->items)
                l->entry(l->p, l->d, begin, begin + chunk < l->items ? begin + chunk : l->items, w->thread);
            barrier(job);
            if (w->thread == 0) atomic_store(&job->next[i % 64], 0);
        }
        if (w->thread == 0) job->seconds[run] = job->last - start;
    }
    return 0;
}

/* Runs `count` (at most 64) launches `runs` times; seconds[run] is each run's time. */
int time_launches(const struct launch *launches, int count, int threads, int runs, double *seconds) {
    struct job job = {.last = 0, .launches = launches, .count = count, .threads = threads, .runs = runs, .seconds = seconds};
    struct worker workers[16];
    pthread_t ids[16];
    if (count > 64 || threads > 16) return -1;
    for (int i = 0; i < threads; i++) {
        workers[i] = (struct worker){&job, i};
        if (i && pthread_create(&ids[i], 0, work, &workers[i])) return -1;
    }
    work(&workers[0]);
    for (int i = 1; i < threads; i++) pthread_join(ids[i], 0);
    return 0;
}
