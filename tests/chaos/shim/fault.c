/* Makes the disk of one process fail, while it runs: put before the C library with LD_PRELOAD.
 *
 * CHAOS_DISK_PATH names the directory whose files are concerned, CHAOS_DISK_FAULT a file that says
 * what happens to them, read anew each time:
 *
 *     sync-fails      a sync of a file says EIO, and nothing is synced
 *     sync-slow MS    it takes so much longer
 *     write-full      a write says ENOSPC
 *     (empty, or no such file: nothing)
 *
 * After it acted it makes the file's name with ".hit" added, so that a fault is seen to take effect. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

enum kind { NOTHING, SYNC_FAILS, SYNC_SLOW, WRITE_FULL };

static int concerned(int fd) {
    const char *dir = getenv("CHAOS_DISK_PATH");
    char link[64], path[4096];
    if (!dir) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0) return 0;
    path[n] = 0;
    return strncmp(path, dir, strlen(dir)) == 0;
}

static enum kind fault(long *ms) {
    const char *name = getenv("CHAOS_DISK_FAULT");
    char word[32] = "";
    FILE *file = name ? fopen(name, "r") : NULL;
    if (!file) return NOTHING;
    *ms = 0;
    int n = fscanf(file, "%31s %ld", word, ms);
    fclose(file);
    if (n < 1) return NOTHING;
    if (!strcmp(word, "sync-fails")) return SYNC_FAILS;
    if (!strcmp(word, "sync-slow")) return SYNC_SLOW;
    if (!strcmp(word, "write-full")) return WRITE_FULL;
    return NOTHING;
}

static void hit(void) {
    char name[4096];
    snprintf(name, sizeof name, "%s.hit", getenv("CHAOS_DISK_FAULT"));
    int fd = open(name, O_CREAT | O_WRONLY, 0600);
    if (fd >= 0) close(fd);
}

/* 0: go on; -1: fail, errno is set. */
static int before_sync(int fd) {
    long ms;
    if (!concerned(fd)) return 0;
    switch (fault(&ms)) {
    case SYNC_FAILS:
        hit();
        errno = EIO;
        return -1;
    case SYNC_SLOW: {
        struct timespec wait = {ms / 1000, ms % 1000 * 1000000};
        hit();
        nanosleep(&wait, NULL);
        return 0;
    }
    default:
        return 0;
    }
}

static int before_write(int fd) {
    long ms;
    if (!concerned(fd) || fault(&ms) != WRITE_FULL) return 0;
    hit();
    errno = ENOSPC;
    return -1;
}

#define NEXT(result, name, ...)                                    \
    static result (*next)(__VA_ARGS__);                            \
    if (!next) next = (result (*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

int fsync(int fd) {
    NEXT(int, fsync, int);
    return before_sync(fd) ? -1 : next(fd);
}

int fdatasync(int fd) {
    NEXT(int, fdatasync, int);
    return before_sync(fd) ? -1 : next(fd);
}

ssize_t write(int fd, const void *bytes, size_t n) {
    NEXT(ssize_t, write, int, const void *, size_t);
    return before_write(fd) ? -1 : next(fd, bytes, n);
}

ssize_t pwrite(int fd, const void *bytes, size_t n, off_t at) {
    NEXT(ssize_t, pwrite, int, const void *, size_t, off_t);
    return before_write(fd) ? -1 : next(fd, bytes, n, at);
}

ssize_t pwrite64(int fd, const void *bytes, size_t n, off64_t at) {
    NEXT(ssize_t, pwrite64, int, const void *, size_t, off64_t);
    return before_write(fd) ? -1 : next(fd, bytes, n, at);
}
