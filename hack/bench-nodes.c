/* What bench-nodes.sh runs in a container: times calls, and prints medians in microseconds.
 *   read N FILE...        open, read to the end, close: N times each, in turns
 *   mount N FSTYPE DIR    mount(2) alone; it is unmounted each time */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

static int ascending(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static void print_median(double *times, int n) {
  qsort(times, (size_t)n, sizeof *times, ascending);
  printf("%.1f\n", times[n / 2]);
}

static double read_all(const char *path) {
  static char buffer[1 << 17];
  const double begin = now();
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  ssize_t got;
  if (fd < 0) {
    perror(path);
    exit(1);
  }
  while ((got = read(fd, buffer, sizeof buffer)) > 0) {
  }
  if (got < 0) {
    perror(path);
    exit(1);
  }
  close(fd);
  return now() - begin;
}

int main(int argc, char **argv) {
  const int n = argc > 3 ? atoi(argv[2]) : 0;
  if (n < 1) return 2;
  if (!strcmp(argv[1], "read")) {
    const int files = argc - 3;
    double *times = malloc(sizeof(double) * (size_t)(n * files));
    if (!times) return 1;
    for (int i = 0; i < n; i++)
      for (int f = 0; f < files; f++) times[f * n + i] = read_all(argv[3 + f]);
    for (int f = 0; f < files; f++) print_median(times + f * n, n);
    return 0;
  }
  if (!strcmp(argv[1], "mount") && argc == 5) {
    double *times = malloc(sizeof(double) * (size_t)n);
    if (!times) return 1;
    for (int i = 0; i < n; i++) {
      const double begin = now();
      if (mount("bench", argv[4], argv[3], 0, NULL)) {
        perror("mount");
        return 1;
      }
      times[i] = now() - begin;
      /* Nodes that were put on it go along. */
      if (umount2(argv[4], MNT_DETACH)) {
        perror("umount");
        return 1;
      }
    }
    print_median(times, n);
    return 0;
  }
  return 2;
}
