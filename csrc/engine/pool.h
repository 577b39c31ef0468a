/* A pool of threads. A team of them runs one function together. */
#ifndef FASTNET_POOL_H
#define FASTNET_POOL_H

#include "engine/fastnet.h"

typedef struct fn_team fn_team;

/* One thread's part in a team. */
typedef struct {
    fn_team *team;
    int64_t number; /* 0: the caller's thread */
    int64_t loops;  /* begun since the last barrier */
} fn_member;

typedef void fn_work(fn_member *member, void *argument);

/* Run work(member, argument) on up to `threads` threads, this one among them, and return when all have returned. If
 * another team is at work, or the system gives no thread, this thread runs it alone, and member is NULL. */
void fn_run_team(int64_t threads, fn_work *work, void *argument);

/* Wait until every member has arrived. */
void fn_barrier(fn_member *member);

typedef struct {
    int64_t begin, end;
} fn_range;

/* This member's first range of a loop over [0, n), and its next one; empty when nothing is left. Ranges begin at
 * multiples of the grain. */
fn_range fn_first_range(fn_member *member, int64_t n, int64_t grain);
fn_range fn_next_range(fn_member *member, int64_t n, int64_t grain);

#endif
