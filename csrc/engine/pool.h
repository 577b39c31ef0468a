/* The threads of this process that share work: teams of them run one function together. */
#ifndef FASTNET_POOL_H
#define FASTNET_POOL_H

#include "engine/fastnet.h"

typedef struct fn_team fn_team;

/* One thread's part in a team. */
typedef struct {
    fn_team *team;
    int64_t number; /* from 0, the caller's own */
    int64_t loops;  /* begun since the last barrier */
} fn_member;

typedef void fn_work(fn_member *member, void *argument);

/* Run work(member, argument) on up to `threads` threads, this one among them, and return when all have
 * returned. Where a team is at work already, or no thread can be had, this thread runs it alone, with no
 * member. */
void fn_run_team(int64_t threads, fn_work *work, void *argument);

/* Wait until every member has come here. */
void fn_barrier(fn_member *member);

typedef struct {
    int64_t begin, end;
} fn_range;

/* A range of [0, n) for this member: the first of a loop, and the next one; empty where nothing is left.
 * Ranges begin at multiples of the grain. */
fn_range fn_first_range(fn_member *member, int64_t n, int64_t grain);
fn_range fn_next_range(fn_member *member, int64_t n, int64_t grain);

#endif
