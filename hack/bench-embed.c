/* bench-embed STATE BUNDLE RUNS - create, start, wait and delete through the C library, over and over. Prints milliseconds, a line a run. */
#include <stdio.h>
#include <stdlib.h>
#include <sysbox.h>
#include <time.h>
#include <unistd.h>

static sysbox_error_t *err;

static void check(sysbox_status_t status) {
  if (status == SYSBOX_OK) return;
  fprintf(stderr, "bench-embed: %s\n", sysbox_error_message(err));
  exit(1);
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

int main(int argc, char **argv) {
  if (argc != 4) return 2;
  sysbox_context_options_t options = SYSBOX_CONTEXT_OPTIONS_INIT;
  options.state_dir = argv[1];
  sysbox_context_t *context;
  check(sysbox_context_new(&options, &context, &err));
  char id[64];
  snprintf(id, sizeof id, "bench-%d-c", (int)getpid());
  for (int i = -2; i < atoi(argv[3]); i++) { /* two to warm up */
    double begin = now();
    sysbox_create_options_t streams = SYSBOX_CREATE_OPTIONS_INIT;
    streams.stdin_fd = streams.stdout_fd = streams.stderr_fd = SYSBOX_FD_NULL;
    sysbox_container_t *container;
    check(sysbox_container_create(context, id, NULL, 0, argv[2], &streams, &container, &err));
    check(sysbox_container_start(container, NULL, &err));
    int32_t code;
    check(sysbox_container_wait(container, NULL, &code, NULL, &err));
    check(sysbox_container_delete(container, NULL, &err));
    sysbox_container_free(container);
    if (code != 0) return 1;
    if (i >= 0) printf("%.3f\n", now() - begin);
  }
  sysbox_context_free(context);
  return 0;
}
