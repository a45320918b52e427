// Threads that run one job together, phase by phase; a phase is a number of pieces that may run at once. The caller is
// thread 0, so a pool of one has no threads.
//
// Nobody leads: whoever completes a phase's last piece asks the job for the next phase and announces it. So a thread that
// the system takes off its core delays the others by the piece it holds, and not at all when it holds none.
//
// Rules that stay true in this file:
// - a thread touches a job's memory only between claiming a piece and giving it back, or while it announces a phase; so
//   when the job is over nobody does, however late a thread wakes up;
// - a result never depends on which thread took which piece;
// - waiting burns a core for microseconds only: then it yields, then it sleeps, also in the middle of a job.
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

typedef struct {
  void (*run)(void *job, int piece, int thread);
  int pieces;
} phase;

// The job's next phase, which may use what all phases before it did; 0 when there is none.
typedef int (*next_fn)(void *job, phase *out);

enum { SPINS = 2000, YIELDS = 64 };

typedef struct {
  int threads;
  pthread_mutex_t mutex;
  pthread_cond_t wake;
  pthread_t *handles;
  // Of the current job; written by the caller before it, or by the thread that ended a phase.
  void *job;
  next_fn next;
  phase now;
  _Alignas(64) atomic_uint_fast64_t ticket;  // number of the phase << 32 | its pieces that nobody has claimed
  _Alignas(64) atomic_int open;              // pieces of the phase that are not done
  atomic_int is_over, sleepers, is_awaited, stop;  // is_awaited: the caller sleeps until the job is over
} pool;

static void pool_wake(pool *p) {
  pthread_mutex_lock(&p->mutex);
  pthread_cond_broadcast(&p->wake);
  pthread_mutex_unlock(&p->mutex);
}

// Called by whoever ended a phase, or begins a job, while nobody else touches the job.
static void pool_announce(pool *p) {
  uint64_t number = atomic_load_explicit(&p->ticket, memory_order_relaxed) >> 32;
  do {
    if (!p->next(p->job, &p->now)) {
      atomic_store(&p->is_over, 1);
      if (atomic_load(&p->is_awaited)) pool_wake(p);
      return;
    }
  } while (p->now.pieces <= 0);
  int pieces = p->now.pieces;
  atomic_store_explicit(&p->open, pieces, memory_order_relaxed);
  // Sequentially consistent, as in `pool_sleep`: either the sleeper sees this ticket or we see the sleeper.
  atomic_store_explicit(&p->ticket, (number + 1) << 32 | (uint32_t)pieces, memory_order_seq_cst);
  if (pieces > 1 && atomic_load_explicit(&p->sleepers, memory_order_seq_cst)) pool_wake(p);
}

// Takes pieces of one phase until none is left. 0 if there was none at all.
static int pool_help(pool *p, int thread) {
  int done = 0;
  uint64_t ticket = atomic_load_explicit(&p->ticket, memory_order_acquire);
  while ((uint32_t)ticket) {
    if (!atomic_compare_exchange_weak_explicit(&p->ticket, &ticket, ticket - 1, memory_order_acq_rel, memory_order_acquire)) continue;
    p->now.run(p->job, p->now.pieces - (int)(uint32_t)ticket, thread);
    ticket--;
    done++;
    if (!(uint32_t)ticket) break;
    ticket = atomic_load_explicit(&p->ticket, memory_order_acquire);
  }
  if (done && atomic_fetch_sub_explicit(&p->open, done, memory_order_acq_rel) == done) pool_announce(p);
  return done;
}

INLINE int pool_has_work(pool *p) { return (uint32_t)atomic_load(&p->ticket) != 0; }

static void pool_sleep_helper(pool *p) {
  pthread_mutex_lock(&p->mutex);
  atomic_fetch_add(&p->sleepers, 1);
  while (!pool_has_work(p) && !atomic_load(&p->stop)) pthread_cond_wait(&p->wake, &p->mutex);
  atomic_fetch_sub(&p->sleepers, 1);
  pthread_mutex_unlock(&p->mutex);
}

static void pool_sleep_caller(pool *p) {
  pthread_mutex_lock(&p->mutex);
  atomic_fetch_add(&p->sleepers, 1);
  atomic_store(&p->is_awaited, 1);
  while (!pool_has_work(p) && !atomic_load(&p->is_over)) pthread_cond_wait(&p->wake, &p->mutex);
  atomic_store(&p->is_awaited, 0);
  atomic_fetch_sub(&p->sleepers, 1);
  pthread_mutex_unlock(&p->mutex);
}

typedef struct { pool *p; int thread; } worker_start;

static void *pool_worker(void *start) {
  pool *p = ((worker_start *)start)->p;
  int thread = ((worker_start *)start)->thread;
  free(start);
  for (int idle = 0; !atomic_load_explicit(&p->stop, memory_order_acquire);) {
    if (pool_help(p, thread)) idle = 0;
    else if (++idle < SPINS) RELAX();
    else if (idle < SPINS + YIELDS) sched_yield();
    else { pool_sleep_helper(p); idle = 0; }
  }
  return NULL;
}

// Runs every phase of `job`; one job at a time.
static void pool_run(pool *p, next_fn next, void *job) {
  if (p->threads == 1) {
    for (phase now; next(job, &now);)
      for (int piece = 0; piece < now.pieces; piece++) now.run(job, piece, 0);
    return;
  }
  p->next = next;
  p->job = job;
  atomic_store_explicit(&p->is_over, 0, memory_order_relaxed);
  pool_announce(p);
  for (int idle = 0; !atomic_load_explicit(&p->is_over, memory_order_acquire);) {
    if (pool_help(p, 0)) idle = 0;
    else if (++idle < SPINS) RELAX();
    else if (idle < SPINS + YIELDS) sched_yield();
    else { pool_sleep_caller(p); idle = 0; }
  }
}

void shoal_pool_destroy(pool *p) {
  atomic_store(&p->stop, 1);
  pool_wake(p);
  for (int i = 1; i < p->threads; i++) pthread_join(p->handles[i], NULL);
  pthread_mutex_destroy(&p->mutex);
  pthread_cond_destroy(&p->wake);
  free(p->handles);
  free(p);
}

// A pool of `threads`, or NULL when the system gives none.
pool *shoal_pool_create(int threads) {
  pool *p = aligned_alloc(_Alignof(pool), sizeof *p);
  if (!p) return NULL;
  memset(p, 0, sizeof *p);
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
