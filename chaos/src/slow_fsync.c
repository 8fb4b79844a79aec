/* Loaded before the C library. While the file that CHAOS_FSYNC names holds a number, every flush to disk takes so many
 * milliseconds longer; a negative number makes flushes fail, as a disk that is dying does. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static long told(void) {
    const char *path = getenv("CHAOS_FSYNC");
    char text[16] = {0};
    if (!path) return 0;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return 0;
    ssize_t length = read(file, text, sizeof text - 1);
    close(file);
    return length > 0 ? strtol(text, NULL, 10) : 0;
}

static int flush(const char *name, int file) {
    int saved = errno;
    long millis = told();
    errno = saved;
    if (millis < 0) {
        errno = EIO;
        return -1;
    }
    struct timespec pause = {millis / 1000, millis % 1000 * 1000000};
    nanosleep(&pause, NULL);
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    return real(file);
}

int fsync(int file) { return flush("fsync", file); }
int fdatasync(int file) { return flush("fdatasync", file); }
