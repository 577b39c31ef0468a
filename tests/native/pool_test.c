/* Teams under a thread sanitizer: every element of a range is visited once, barriers hold, two callers and
 * a fork do not disturb one another, threads that cannot be had are done without. Exits with 0 where all is
 * well. Linked with --wrap=pthread_create. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/pool.h"

enum { N = 3001, PHASES = 7, LOOPS_A_PHASE = 11, ROUNDS = 30 };

typedef struct {
    int visits[PHASES][LOOPS_A_PHASE][N]; /* not atomic: a race is an error */
    long sum[PHASES];
    int64_t grain;
} work;

static int threads_left; /* that the system gives */

int __real_pthread_create(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
int __wrap_pthread_create(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
                          void *(*start)(void *), void *argument) {
    if (!threads_left)
        return EAGAIN;
    threads_left--;
    return __real_pthread_create(thread, attributes, start, argument);
}

/* Counts who has come, and those of them whom a Ctrl-C could reach. */
typedef struct {
    atomic_int members, open_to_signals;
} census;

static void count(fn_member *member, void *argument) {
    census *c = argument;
    sigset_t blocked;
    pthread_sigmask(SIG_SETMASK, NULL, &blocked);
    c->members++;
    c->open_to_signals += !sigismember(&blocked, SIGINT);
    if (member)
        fn_barrier(member);
}

/* Whether a team of `wanted` has so many members, where the system gives `given` threads more. */
static int wrong_team(int wanted, int given, int members) {
    census c = {0};
    threads_left = given;
    fn_run_team(wanted, count, &c);
    threads_left = 1000;
    return c.members != members || c.open_to_signals != 1;
}

static fn_range first(fn_member *member, int64_t grain) {
    return member ? fn_first_range(member, N, grain) : (fn_range){0, N};
}

static fn_range next(fn_member *member, int64_t grain) {
    return member ? fn_next_range(member, N, grain) : (fn_range){N, N};
}

static void run(fn_member *member, void *argument) {
    work *w = argument;
    for (int p = 0; p < PHASES; p++) {
        for (int l = 0; l < LOOPS_A_PHASE; l++)
            for (fn_range r = first(member, w->grain); r.begin < r.end; r = next(member, w->grain)) {
                if (r.begin % w->grain)
                    abort();
                for (int64_t i = r.begin; i < r.end; i++)
                    w->visits[p][l][i] += 1 + (p ? (int)w->visits[p - 1][l][N - 1 - i] : 0);
            }
        if (member)
            fn_barrier(member);
        if (!member || !member->number)
            for (int i = 0; i < N; i++)
                w->sum[p] += w->visits[p][LOOPS_A_PHASE - 1][i];
        if (member)
            fn_barrier(member);
    }
}

static int rounds(int64_t threads) {
    work *w = malloc(sizeof *w);
    int wrong = 0;
    for (int round = 0; round < ROUNDS; round++) {
        memset(w, 0, sizeof *w);
        w->grain = round % 3 ? 16 : 1;
        fn_run_team(threads, run, w);
        for (int p = 0; p < PHASES; p++) {
            wrong += w->sum[p] != (long)(p + 1) * N;
            for (int l = 0; l < LOOPS_A_PHASE; l++)
                for (int i = 0; i < N; i++)
                    wrong += w->visits[p][l][i] != p + 1;
        }
    }
    free(w);
    return wrong;
}

static void *other(void *argument) {
    (void)argument;
    return (void *)(intptr_t)rounds(3);
}

int main(void) {
    int wrong = wrong_team(4, 0, 1) + wrong_team(4, 2, 3) + wrong_team(2, 0, 2);
    wrong += wrong_team(8, 1, 4) + wrong_team(3, 0, 3) + wrong_team(1, 0, 1);
    for (int64_t threads = 1; threads <= 8; threads++)
        wrong += rounds(threads);
    pthread_t caller;
    void *theirs = NULL;
    pthread_create(&caller, NULL, other, NULL);
    wrong += rounds(4);
    pthread_join(caller, &theirs);
    wrong += (int)(intptr_t)theirs;
    const pid_t child = fork();
    if (child == 0)
        _exit(rounds(4) != 0);
    int status = 0;
    waitpid(child, &status, 0);
    printf("%d wrong, child %d\n", wrong, status);
    return wrong || status;
}
