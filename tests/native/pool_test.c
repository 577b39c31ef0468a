/* Teams under a thread sanitizer: every element of a range is visited once, barriers hold, two callers and
 * a fork do not disturb one another. Exits with 0 where all is well. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pool.h"

enum { N = 3001, PHASES = 7, LOOPS_A_PHASE = 11, ROUNDS = 30 };

typedef struct {
    int visits[PHASES][LOOPS_A_PHASE][N]; /* not atomic: a race is an error */
    long sum[PHASES];
    int64_t grain;
} work;

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
    int wrong = 0;
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
