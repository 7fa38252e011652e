/* Preloaded into a process under test: counts what is asked of the allocator, and of the kernel for pages. */
#define _GNU_SOURCE
#include <stdatomic.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);

static _Atomic long calls, bytes, largest;
static _Atomic int armed;

static void count(size_t size) {
    if (!armed) return;
    calls++;
    bytes += (long)size;
    if ((long)size > largest) largest = (long)size;
}

void *malloc(size_t size) { return count(size), __libc_malloc(size); }
void *calloc(size_t n, size_t size) { return count(n * size), __libc_calloc(n, size); }
void *realloc(void *p, size_t size) { return count(size), __libc_realloc(p, size); }
void *memalign(size_t to, size_t size) { return count(size), __libc_memalign(to, size); }
void *aligned_alloc(size_t to, size_t size) { return memalign(to, size); }
int posix_memalign(void **out, size_t to, size_t size) { return !(*out = memalign(to, size)) * 12; }
void *mmap(void *at, size_t size, int protection, int flags, int file, off_t offset) {
    count(size);
    return (void *)syscall(SYS_mmap, at, size, protection, flags, file, offset);
}

void counting_start(void) { calls = bytes = largest = 0, armed = 1; }
void counting_stop(long out[3]) { armed = 0, out[0] = calls, out[1] = bytes, out[2] = largest; }
