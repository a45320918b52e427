// Threads that run one job together, phase by phase. The caller is thread 0, so a pool of one has no threads.
//
// Rules that stay true in this file:
// - between two barriers every thread works on the same phase; `next` hands out its pieces and is 0 at its start;
// - a result never depends on which thread took which piece;
// - waiting burns a core for microseconds only: then it yields, and between jobs it sleeps.
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

#if defined(__x86_64__)
#define RELAX() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define RELAX() __asm__ volatile("yield")
#else
#define RELAX() ((void)0)
#endif

typedef struct pool pool;
typedef void (*job_fn)(pool *, int thread, void *argument);

struct pool {
  int threads;
  atomic_int arrived, phase, next, generation, sleepers, stop;
  job_fn fn;
  void *argument;
  pthread_mutex_t mutex;
  pthread_cond_t wake;
  pthread_t *handles;
};

typedef struct { pool *p; int thread; } worker_start;

static void pool_barrier(pool *p) {
  if (p->threads == 1) { atomic_store_explicit(&p->next, 0, memory_order_relaxed); return; }
  int phase = atomic_load_explicit(&p->phase, memory_order_acquire);
  if (atomic_fetch_add_explicit(&p->arrived, 1, memory_order_acq_rel) == p->threads - 1) {
    atomic_store_explicit(&p->arrived, 0, memory_order_relaxed);
    atomic_store_explicit(&p->next, 0, memory_order_relaxed);
    atomic_store_explicit(&p->phase, phase + 1, memory_order_release);
    return;
  }
  for (int spins = 0; atomic_load_explicit(&p->phase, memory_order_acquire) == phase; spins++)
    if (spins < 4000) RELAX();
    else sched_yield();
}

// The next piece of this phase, or -1.
INLINE int pool_take(pool *p, int pieces) {
  int i = atomic_fetch_add_explicit(&p->next, 1, memory_order_relaxed);
  return i < pieces ? i : -1;
}

static void *pool_worker(void *start) {
  pool *p = ((worker_start *)start)->p;
  int thread = ((worker_start *)start)->thread, seen = 0;
  free(start);
  for (;;) {
    for (int spins = 0; atomic_load_explicit(&p->generation, memory_order_acquire) == seen && spins < 3000; spins++) RELAX();
    if (atomic_load_explicit(&p->generation, memory_order_acquire) == seen) {
      pthread_mutex_lock(&p->mutex);
      while (atomic_load_explicit(&p->generation, memory_order_acquire) == seen) pthread_cond_wait(&p->wake, &p->mutex);
      pthread_mutex_unlock(&p->mutex);
    }
    seen++;
    if (atomic_load_explicit(&p->stop, memory_order_acquire)) return NULL;
    p->fn(p, thread, p->argument);
    pool_barrier(p);
  }
}

static void pool_release(pool *p) {
  pthread_mutex_lock(&p->mutex);
  atomic_fetch_add_explicit(&p->generation, 1, memory_order_release);
  pthread_cond_broadcast(&p->wake);
  pthread_mutex_unlock(&p->mutex);
}

static void pool_run(pool *p, job_fn fn, void *argument) {
  p->fn = fn;
  p->argument = argument;
  atomic_store_explicit(&p->next, 0, memory_order_relaxed);
  if (p->threads > 1) pool_release(p);
  fn(p, 0, argument);
  pool_barrier(p);
}

void shoal_pool_destroy(pool *p) {
  atomic_store_explicit(&p->stop, 1, memory_order_release);
  pool_release(p);
  for (int i = 1; i < p->threads; i++) pthread_join(p->handles[i], NULL);
  pthread_mutex_destroy(&p->mutex);
  pthread_cond_destroy(&p->wake);
  free(p->handles);
  free(p);
}

// A pool of `threads`, or NULL when the system gives none.
pool *shoal_pool_create(int threads) {
  pool *p = calloc(1, sizeof *p);
  if (!p) return NULL;
  p->handles = calloc((size_t)threads, sizeof *p->handles);
  p->threads = 1;
  pthread_mutex_init(&p->mutex, NULL);
  pthread_cond_init(&p->wake, NULL);
  for (int i = 1; i < threads; i++) {
    worker_start *start = malloc(sizeof *start);
    *start = (worker_start){p, i};
    if (pthread_create(&p->handles[i], NULL, pool_worker, start)) { free(start); break; }
    p->threads = i + 1;  // workers read `threads` only inside a job, and none runs yet
  }
  if (p->threads != threads) { shoal_pool_destroy(p); return NULL; }
  return p;
}
