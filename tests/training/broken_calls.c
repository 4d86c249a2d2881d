// A disk that breaks, below every library: the calls that change a folder are counted, and the n-th fails.
// Preloaded into the process that tests fork from, and idle until a fork calls break_call.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static char folder[PATH_MAX];
static size_t length; // of `folder`; 0: idle
static long failing;
static int error, lasting, calls = -1;
static atomic_long count;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

// From now on: every call below `path` (absolute) is written to the descriptor `log` (-1: none) as "NAME PATH", and call
// `number` (from 1; 0: none) fails with `code`, with `stays` all later ones as well.
void break_call(const char *path, long number, int code, int stays, int log) {
  strncpy(folder, path, PATH_MAX - 1);
  failing = number, error = code, lasting = stays, calls = log;
  count = 0;
  length = strlen(folder);
}

static int broken(const char *name, int at, const char *path) {
  char link[64], place[2 * PATH_MAX];
  place[0] = 0;
  if (!length) return 0;
  if (!path || (path[0] != '/' && at != AT_FDCWD)) { // a descriptor, or a name in the folder that one stands for
    snprintf(link, sizeof link, "/proc/self/fd/%d", at);
    ssize_t read = readlink(link, place, PATH_MAX - 1);
    place[read < 0 ? 0 : read] = 0;
    if (path) strcat(place, "/");
  } else if (path[0] != '/' && getcwd(place, PATH_MAX)) {
    strcat(place, "/");
  }
  if (path) strncat(place, path, PATH_MAX - 1);
  if (strncmp(place, folder, length) || place[length] != '/') return 0;
  long number = ++count;
  if (calls >= 0) {
    char line[2 * PATH_MAX + 64];
    int size = snprintf(line, sizeof line, "%s %s\n", name, place + length + 1);
    REAL(write)(calls, line, size);
  }
  if (!failing || (lasting ? number < failing : number != failing)) return 0;
  errno = error;
  return 1;
}

#define ON_FILE(type, name, parameters, ...) \
  type name parameters { return broken(#name, file, 0) ? -1 : REAL(name)(__VA_ARGS__); }
ON_FILE(ssize_t, write, (int file, const void *from, size_t size), file, from, size)
ON_FILE(ssize_t, pwrite, (int file, const void *from, size_t size, off_t at), file, from, size, at)
ON_FILE(ssize_t, pwrite64, (int file, const void *from, size_t size, off64_t at), file, from, size, at)
ON_FILE(ssize_t, writev, (int file, const struct iovec *from, int number), file, from, number)
ON_FILE(ssize_t, sendfile, (int file, int from, off_t *at, size_t size), file, from, at, size)
ON_FILE(ssize_t, sendfile64, (int file, int from, off64_t *at, size_t size), file, from, at, size)
ON_FILE(ssize_t, copy_file_range, (int from, off64_t *start, int file, off64_t *at, size_t size, unsigned flags),
        from, start, file, at, size, flags)
ON_FILE(int, fsync, (int file), file)
ON_FILE(int, fdatasync, (int file), file)
ON_FILE(int, ftruncate, (int file, off_t size), file, size)
ON_FILE(int, ftruncate64, (int file, off64_t size), file, size)
ON_FILE(int, fallocate, (int file, int mode, off_t at, off_t size), file, mode, at, size)

#define ON_PATH(name, called, parameters, at, path, ...) \
  int name parameters { return broken(called, at, path) ? -1 : REAL(name)(__VA_ARGS__); }
ON_PATH(rename, "rename", (const char *from, const char *to), AT_FDCWD, from, from, to)
ON_PATH(renameat, "rename", (int at, const char *from, int there, const char *to), at, from, at, from, there, to)
ON_PATH(renameat2, "rename", (int at, const char *from, int there, const char *to, unsigned flags), at, from, at, from, there, to, flags)
ON_PATH(link, "link", (const char *from, const char *to), AT_FDCWD, to, from, to)
ON_PATH(symlink, "symlink", (const char *from, const char *to), AT_FDCWD, to, from, to)
ON_PATH(mkdir, "mkdir", (const char *path, mode_t mode), AT_FDCWD, path, path, mode)
ON_PATH(mkdirat, "mkdir", (int at, const char *path, mode_t mode), at, path, at, path, mode)
ON_PATH(rmdir, "rmdir", (const char *path), AT_FDCWD, path, path)
ON_PATH(unlink, "unlink", (const char *path), AT_FDCWD, path, path)
ON_PATH(unlinkat, "unlink", (int at, const char *path, int flags), at, path, at, path, flags)

// Opening counts where it is for writing.
#define OPENS(name, at, parameters, ...)                                       \
  int name parameters {                                                        \
    va_list more;                                                              \
    va_start(more, flags);                                                     \
    mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(more, mode_t) : 0;  \
    va_end(more);                                                              \
    int writes = flags & (O_CREAT | O_WRONLY | O_RDWR | O_TRUNC);              \
    return writes && broken("open", at, path) ? -1 : REAL(name)(__VA_ARGS__, mode); \
  }
OPENS(open, AT_FDCWD, (const char *path, int flags, ...), path, flags)
OPENS(open64, AT_FDCWD, (const char *path, int flags, ...), path, flags)
OPENS(openat, at, (int at, const char *path, int flags, ...), at, path, flags)
OPENS(openat64, at, (int at, const char *path, int flags, ...), at, path, flags)

#define FOPENS(name) \
  FILE *name(const char *path, const char *mode) { \
    return strpbrk(mode, "wa+") && broken("open", AT_FDCWD, path) ? NULL : REAL(name)(path, mode); \
  }
FOPENS(fopen)
FOPENS(fopen64)
