/* LD_PRELOAD: adds the seconds in the file GR2_CLOCK (a double) to the wall clock of a process, read anew at each call.
   The monotonic clock stays, as it does when a machine's clock is set. The kernel's own times (of files) stay too. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static double *jump;

__attribute__((constructor)) static void open_jump(void) {
    const char *name = getenv("GR2_CLOCK");
    int file = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *place = mmap(NULL, sizeof(double), PROT_READ, MAP_SHARED, file, 0);
    if (place != MAP_FAILED) jump = place;
    close(file);
}

static time_t shift(void) { return jump ? (time_t)*jump : 0; }

int clock_gettime(clockid_t id, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int code = real(id, now);
    if (!code && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) now->tv_sec += shift();
    return code;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    static int (*real)(struct timeval *, void *);
    if (!real) real = dlsym(RTLD_NEXT, "gettimeofday");
    int code = real(now, zone);
    if (!code) now->tv_sec += shift();
    return code;
}

time_t time(time_t *now) {
    static time_t (*real)(time_t *);
    if (!real) real = dlsym(RTLD_NEXT, "time");
    time_t found = real(NULL) + shift();
    if (now) *now = found;
    return found;
}
