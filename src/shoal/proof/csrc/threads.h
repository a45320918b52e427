// A loop cut into ranges for a few threads. Threads live for one call: loops worth it run for milliseconds.
#pragma once
#include <pthread.h>
#include "field.h"

#define MOST_THREADS 16
static int proof_threads = 1;

typedef void (*range_function)(void *context, int64_t begin, int64_t end);
typedef struct { range_function run; void *context; int64_t begin, end; } range_job;

static void *range_main(void *p) {
  range_job *job = p;
  job->run(job->context, job->begin, job->end);
  return NULL;
}

// run(context, begin, end) for ranges that make up [0, count), each at least `grain` long; returns when all are done.
static void parallel_for(range_function run, void *context, int64_t count, int64_t grain) {
  int64_t most = count / (grain > 0 ? grain : 1);
  int threads = proof_threads < most ? proof_threads : (int)most;
  if (threads < 2) { run(context, 0, count); return; }
  pthread_t handles[MOST_THREADS];
  range_job jobs[MOST_THREADS];
  int started[MOST_THREADS];
  for (int t = 0; t < threads; t++) {
    jobs[t] = (range_job){run, context, count * t / threads, count * (t + 1) / threads};
    started[t] = t > 0 && pthread_create(&handles[t], NULL, range_main, &jobs[t]) == 0;
  }
  for (int t = 0; t < threads; t++)
    if (!started[t]) range_main(&jobs[t]);
  for (int t = 0; t < threads; t++)
    if (started[t]) pthread_join(handles[t], NULL);
}

void proof_set_threads(int threads) {
  proof_threads = threads < 1 ? 1 : threads > MOST_THREADS ? MOST_THREADS : threads;
}
