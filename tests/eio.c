/* A disk that is broken, for a daemon that is run with this preloaded: calls on the segments of its spool fail with EIO
 * as long as the file that EIO_FLAG names exists, and names them (read, write, sync). */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int fails(int fd, const char *call) {
    const char *flag = getenv("EIO_FLAG");
    char link[64], path[512], calls[64];
    ssize_t len;
    int file;
    if (flag == NULL || (file = open(flag, O_RDONLY | O_CLOEXEC)) < 0)
        return 0;
    /* Not by read(), which is ours. */
    len = syscall(SYS_read, file, calls, sizeof calls - 1);
    close(file);
    if (len < 0)
        return 0;
    calls[len] = 0;
    if (strstr(calls, call) == NULL)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    len = readlink(link, path, sizeof path - 1);
    if (len < 4 || strncmp(path + len - 4, ".seg", 4) != 0)
        return 0;
    errno = EIO;
    return 1;
}

ssize_t read(int fd, void *bytes, size_t len) {
    if (fails(fd, "read"))
        return -1;
    return syscall(SYS_read, fd, bytes, len);
}

ssize_t write(int fd, const void *bytes, size_t len) {
    if (fails(fd, "write"))
        return -1;
    return syscall(SYS_write, fd, bytes, len);
}

ssize_t pwrite64(int fd, const void *bytes, size_t len, off64_t at) {
    if (fails(fd, "write"))
        return -1;
    return syscall(SYS_pwrite64, fd, bytes, len, at);
}

int fdatasync(int fd) {
    if (fails(fd, "sync"))
        return -1;
    return syscall(SYS_fdatasync, fd);
}
