/* The pool of threads. A thread that waits spins for a while, unless another member needs its core, and then sleeps in
 * the kernel (a futex). */
#define _GNU_SOURCE
#include "engine/pool.h"

#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { SPIN_NANOSECONDS = 10000, LOOPS = 8, STACK = 1 << 20 };

typedef _Atomic uint32_t word;

/* A word that threads wait on for a change, and the number of those that sleep. */
typedef struct {
    _Alignas(FN_LINE) word value;
    word sleepers;
} gate;

struct fn_team {
    gate call[FN_MAX_THREADS]; /* counts the calls to work of each worker, which waits for the next one */
    gate left;                 /* the number of workers that have not returned; the caller waits for 0 */
    gate phase;                /* of the barrier */
    _Alignas(FN_LINE) word arrived;
    _Atomic int16_t core[FN_MAX_THREADS]; /* 1 + the core where each member was last seen; 0: unknown */
    fn_work *work;
    void *argument;
    _Atomic int64_t members;
    struct {
        _Alignas(FN_LINE) _Atomic int64_t taken; /* so much of the loop's range */
    } loop[LOOPS];
};

static struct fn_team team;
static atomic_flag at_work = ATOMIC_FLAG_INIT;
static int workers; /* the number started; guarded by at_work */
static int fork_safe;

static void pause_a_little(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#else
    __asm__ volatile("yield");
#endif
}

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* How long a member may spin: not at all if another member was last seen on the same core, which may be waiting for it.
 * That happens with fewer cores than members, and where other processes keep cores busy. */
static int64_t spin_of(int64_t number) {
    const int16_t mine = (int16_t)(sched_getcpu() + 1);
    const int64_t members = atomic_load_explicit(&team.members, memory_order_relaxed);
    atomic_store_explicit(&team.core[number], mine, memory_order_relaxed);
    for (int64_t i = 0; i < members && mine; i++)
        if (i != number && atomic_load_explicit(&team.core[i], memory_order_relaxed) == mine)
            return 0;
    return SPIN_NANOSECONDS;
}

/* Wait until the gate's value is no longer `old`; return it. */
static uint32_t wait_beyond(gate *g, uint32_t old, int64_t spin) {
    uint32_t value;
    for (const int64_t begun = now(); now() - begun < spin;)
        for (int i = 0; i < 64; i++) {
            if ((value = atomic_load_explicit(&g->value, memory_order_acquire)) != old)
                return value;
            pause_a_little();
        }
    atomic_fetch_add(&g->sleepers, 1);
    while ((value = atomic_load(&g->value)) == old)
        syscall(SYS_futex, &g->value, FUTEX_WAIT_PRIVATE, old, NULL, NULL, 0);
    atomic_fetch_sub(&g->sleepers, 1);
    return value;
}

/* Call after a change of the gate's value. No sleeper is missed: it counts itself before it looks at the value. */
static void wake(gate *g) {
    if (atomic_load(&g->sleepers))
        syscall(SYS_futex, &g->value, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

static void *worker(void *argument) {
    const int64_t number = (int64_t)(intptr_t)argument;
    for (uint32_t calls = 0;;) {
        calls = wait_beyond(&team.call[number], calls, spin_of(number));
        fn_member self = {&team, number, 0};
        team.work(&self, team.argument);
        if (atomic_fetch_sub(&team.left.value, 1) == 1)
            wake(&team.left);
    }
    return NULL;
}

/* Of all threads, a fork's child has only the one that forked. */
static void forget_workers(void) {
    workers = 0;
    memset(&team, 0, sizeof team);
    atomic_flag_clear(&at_work);
}

/* At load time, before any team: a fork may come at any time after the first one. */
__attribute__((constructor)) static void prepare_for_forks(void) {
    fork_safe = pthread_atfork(NULL, NULL, forget_workers) == 0;
}

static void start_workers(int wanted) {
    if (workers >= wanted || !fork_safe)
        return;
    pthread_attr_t attributes;
    sigset_t all, before;
    sigfillset(&all);
    if (pthread_attr_init(&attributes))
        return;
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, STACK);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* workers take no signals: those are for the program's own threads */
    while (workers < wanted) {
        pthread_t thread;
        if (pthread_create(&thread, &attributes, worker, (void *)(intptr_t)(workers + 1)))
            break;
        pthread_setname_np(thread, "fastnet");
        workers++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
}

void fn_run_team(int64_t threads, fn_work *work, void *argument) {
    if (threads > FN_MAX_THREADS)
        threads = FN_MAX_THREADS;
    if (threads < 2 || atomic_flag_test_and_set_explicit(&at_work, memory_order_acquire)) {
        work(NULL, argument);
        return;
    }
    start_workers((int)threads - 1);
    const int64_t members = threads < workers + 1 ? threads : workers + 1;
    if (members < 2) {
        atomic_flag_clear_explicit(&at_work, memory_order_release);
        work(NULL, argument);
        return;
    }
    team.work = work;
    team.argument = argument;
    atomic_store_explicit(&team.members, members, memory_order_relaxed);
    atomic_store_explicit(&team.left.value, (uint32_t)members - 1, memory_order_relaxed);
    for (int64_t i = 1; i < members; i++) {
        atomic_fetch_add(&team.call[i].value, 1);
        wake(&team.call[i]);
    }
    fn_member self = {&team, 0, 0};
    work(&self, argument);
    for (uint32_t left; (left = atomic_load(&team.left.value));)
        wait_beyond(&team.left, left, spin_of(0));
    for (int i = 0; i < LOOPS; i++)
        atomic_store_explicit(&team.loop[i].taken, 0, memory_order_relaxed);
    atomic_flag_clear_explicit(&at_work, memory_order_release);
}

void fn_barrier(fn_member *member) {
    fn_team *t = member->team;
    const uint32_t phase = atomic_load_explicit(&t->phase.value, memory_order_relaxed);
    const int64_t spin = spin_of(member->number);
    if (atomic_fetch_add(&t->arrived, 1) + 1 == t->members) {
        for (int i = 0; i < LOOPS && i < member->loops; i++)
            atomic_store_explicit(&t->loop[i].taken, 0, memory_order_relaxed);
        atomic_store_explicit(&t->arrived, 0, memory_order_relaxed);
        atomic_store(&t->phase.value, phase + 1);
        wake(&t->phase);
    } else {
        wait_beyond(&t->phase, phase, spin);
    }
    member->loops = 0;
}

/* Guided self-scheduling: take half of a member's share of what is left. Ranges shrink towards the end, so all members
 * finish together, even if one starts late or is preempted. */
static fn_range take(const fn_member *member, int64_t n, int64_t grain) {
    _Atomic int64_t *const taken = &member->team->loop[member->loops - 1].taken;
    const int64_t shares = 2 * member->team->members;
    int64_t begin = atomic_load_explicit(taken, memory_order_relaxed), end;
    do {
        if (begin >= n)
            return (fn_range){n, n};
        const int64_t part = (n - begin + shares - 1) / shares;
        end = begin + (part + grain - 1) / grain * grain;
    } while (!atomic_compare_exchange_weak_explicit(taken, &begin, end, memory_order_relaxed,
                                                    memory_order_relaxed));
    return (fn_range){begin, end < n ? end : n};
}

fn_range fn_first_range(fn_member *member, int64_t n, int64_t grain) {
    if (++member->loops <= LOOPS)
        return take(member, n, grain);
    /* No counter is left until the next barrier: each member takes one fixed range. */
    const int64_t grains = (n + grain - 1) / grain, members = member->team->members;
    const int64_t begin = grains * member->number / members * grain;
    const int64_t end = grains * (member->number + 1) / members * grain;
    return (fn_range){begin < n ? begin : n, end < n ? end : n};
}

fn_range fn_next_range(fn_member *member, int64_t n, int64_t grain) {
    return member->loops <= LOOPS ? take(member, n, grain) : (fn_range){n, n};
}
