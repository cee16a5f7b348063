/* Stands between a process and its files: writes down, in one order, everything that is written,
 * fsynced, made and removed below one directory, and fails an operation when asked. Loaded with
 * LD_PRELOAD into the child of power_loss.rs, which takes the record apart again; SQLite and the
 * standard library reach the system through these functions of the C library.
 *
 * PALISADE_RECORD      the file that gets the record
 * PALISADE_DIRECTORY   the directory that is watched
 * PALISADE_FAIL        "s<n>": the n-th fsync fails with EIO; "e<n>": the n-th write fails with EIO;
 *                      "n<n>": from the n-th write on there is no space
 *
 * A record is: kind (1 byte), inode, offset, length (8 bytes each, as the machine has them), and
 * length bytes. Kinds: C made (bytes: name), U removed (bytes: name), W written, T cut to offset,
 * S synced, F sync failed, D directory synced, M a line written to the file "marks".
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int record = -1;
static const char *directory;
static size_t directory_length;
static char fail_kind;
static long fail_at, writes, syncs;

static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_pwrite64)(int, const void *, size_t, off64_t);
static int (*real_ftruncate64)(int, off64_t);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);
static int (*real_open64)(const char *, int, ...);
static int (*real_openat64)(int, const char *, int, ...);
static int (*real_unlink)(const char *);

__attribute__((constructor)) static void begin(void) {
  real_write = (ssize_t (*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
  real_pwrite64 = (ssize_t (*)(int, const void *, size_t, off64_t))dlsym(RTLD_NEXT, "pwrite64");
  real_ftruncate64 = (int (*)(int, off64_t))dlsym(RTLD_NEXT, "ftruncate64");
  real_fsync = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
  real_fdatasync = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
  real_open64 = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open64");
  real_openat64 = (int (*)(int, const char *, int, ...))dlsym(RTLD_NEXT, "openat64");
  real_unlink = (int (*)(const char *))dlsym(RTLD_NEXT, "unlink");
  const char *path = getenv("PALISADE_RECORD");
  directory = getenv("PALISADE_DIRECTORY");
  const char *fail = getenv("PALISADE_FAIL");
  if (fail && *fail) {
    fail_kind = *fail;
    fail_at = atol(fail + 1);
  }
  if (path && directory) {
    directory_length = strlen(directory);
    record = real_open64(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  }
}

static void note(char kind, uint64_t inode, uint64_t offset, const void *bytes, uint64_t length) {
  char head[25];
  head[0] = kind;
  memcpy(head + 1, &inode, 8);
  memcpy(head + 9, &offset, 8);
  memcpy(head + 17, &length, 8);
  if (real_write(record, head, sizeof head) != (ssize_t)sizeof head) abort();
  while (length > 0) {
    ssize_t done = real_write(record, bytes, length);
    if (done <= 0) abort();
    bytes = (const char *)bytes + done;
    length -= (uint64_t)done;
  }
}

/* The name below the directory ("" for itself) of a path; null when it is elsewhere. */
static const char *below(const char *path) {
  if (record < 0 || strncmp(path, directory, directory_length) != 0) return NULL;
  if (path[directory_length] == 0) return path + directory_length;
  return path[directory_length] == '/' ? path + directory_length + 1 : NULL;
}

/* The name of an open file and its inode. */
static int watched(int fd, char *name, uint64_t *inode) {
  char link[64], path[4096];
  struct stat64 stat;
  if (record < 0 || fd == record) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length <= 0) return 0;
  path[length] = 0;
  const char *found = below(path);
  /* The shared memory of a WAL is made anew after a crash. */
  if (!found || strstr(found, "-shm") || fstat64(fd, &stat) != 0) return 0;
  strcpy(name, found);
  *inode = stat.st_ino;
  return 1;
}

static int fails_write(void) {
  writes++;
  if (fail_kind == 'e' && writes == fail_at) return EIO;
  if (fail_kind == 'n' && writes >= fail_at) return ENOSPC;
  return 0;
}

static ssize_t written(int fd, const void *bytes, size_t length, off64_t at, int positioned) {
  char name[4096];
  uint64_t inode;
  if (!watched(fd, name, &inode)) {
    return positioned ? real_pwrite64(fd, bytes, length, at) : real_write(fd, bytes, length);
  }
  pthread_mutex_lock(&lock);
  ssize_t result;
  int mark = strcmp(name, "marks") == 0;
  int error = mark ? 0 : fails_write();
  if (error) {
    result = -1;
    errno = error;
  } else {
    off64_t offset = positioned ? at : lseek64(fd, 0, SEEK_CUR);
    result = positioned ? real_pwrite64(fd, bytes, length, at) : real_write(fd, bytes, length);
    if (result > 0) note(mark ? 'M' : 'W', inode, (uint64_t)offset, bytes, (uint64_t)result);
  }
  int keep = errno;
  pthread_mutex_unlock(&lock);
  errno = keep;
  return result;
}

ssize_t write(int fd, const void *bytes, size_t length) { return written(fd, bytes, length, 0, 0); }
ssize_t pwrite(int fd, const void *bytes, size_t length, off_t at) {
  return written(fd, bytes, length, at, 1);
}
ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t at) {
  return written(fd, bytes, length, at, 1);
}

static int cut(int fd, off64_t length) {
  char name[4096];
  uint64_t inode;
  if (!watched(fd, name, &inode)) return real_ftruncate64(fd, length);
  pthread_mutex_lock(&lock);
  int result = real_ftruncate64(fd, length);
  if (result == 0) note('T', inode, (uint64_t)length, NULL, 0);
  int keep = errno;
  pthread_mutex_unlock(&lock);
  errno = keep;
  return result;
}

int ftruncate(int fd, off_t length) { return cut(fd, length); }
int ftruncate64(int fd, off64_t length) { return cut(fd, length); }

static int synced(int fd, int (*real)(int)) {
  char name[4096];
  uint64_t inode;
  if (!watched(fd, name, &inode)) return real(fd);
  pthread_mutex_lock(&lock);
  int result = 0;
  if (*name == 0) {
    note('D', inode, 0, NULL, 0);
  } else if (fail_kind == 's' && ++syncs == fail_at) {
    note('F', inode, 0, NULL, 0);
    result = -1;
    errno = EIO;
  } else {
    /* The record says what would be durable; no need to wait for a real disk. */
    note('S', inode, 0, NULL, 0);
  }
  int keep = errno;
  pthread_mutex_unlock(&lock);
  errno = keep;
  return result;
}

int fsync(int fd) { return synced(fd, real_fsync); }
int fdatasync(int fd) { return synced(fd, real_fdatasync); }

static void made(int fd, const char *path, int existed) {
  struct stat64 stat;
  const char *name = below(path);
  if (fd < 0 || existed || !name || strstr(name, "-shm") || fstat64(fd, &stat) != 0) return;
  pthread_mutex_lock(&lock);
  note('C', stat.st_ino, 0, name, strlen(name));
  pthread_mutex_unlock(&lock);
}

static int opened(const char *path, int flags, mode_t mode) {
  if (!(flags & O_CREAT) || !below(path)) return real_open64(path, flags, mode);
  int existed = access(path, F_OK) == 0;
  int fd = real_open64(path, flags, mode);
  int keep = errno;
  made(fd, path, existed);
  errno = keep;
  return fd;
}

#define MODE                                                                                       \
  mode_t mode = 0;                                                                                 \
  if (flags & O_CREAT) {                                                                           \
    va_list list;                                                                                  \
    va_start(list, flags);                                                                         \
    mode = va_arg(list, mode_t);                                                                   \
    va_end(list);                                                                                  \
  }

int open(const char *path, int flags, ...) { MODE return opened(path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE return opened(path, flags, mode); }

static int opened_at(int at, const char *path, int flags, mode_t mode) {
  if (!(flags & O_CREAT) || *path != '/' || !below(path)) {
    return real_openat64(at, path, flags, mode);
  }
  return opened(path, flags, mode);
}

int openat(int at, const char *path, int flags, ...) { MODE return opened_at(at, path, flags, mode); }
int openat64(int at, const char *path, int flags, ...) {
  MODE return opened_at(at, path, flags, mode);
}

int unlink(const char *path) {
  const char *name = below(path);
  if (!name || strstr(name, "-shm")) return real_unlink(path);
  pthread_mutex_lock(&lock);
  int result = real_unlink(path);
  if (result == 0) note('U', 0, 0, name, strlen(name));
  int keep = errno;
  pthread_mutex_unlock(&lock);
  errno = keep;
  return result;
}
