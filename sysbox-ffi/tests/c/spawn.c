/*
 * spawn STATE_DIR TREE - containers from a program with busy threads, in which fork(2) is not to be called: the library's call of it would
 * come here, since a program's own functions come before those of libraries.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysbox.h>
#include <unistd.h>

pid_t fork(void) {
  static const char said[] = "fork was called\n";
  if (write(2, said, sizeof said - 1) < 0) abort();
  abort();
}

static atomic_int done;

static void *churn(void *unused) {
  while (!atomic_load(&done)) free(malloc(1 + (size_t)rand() % 5000));
  return unused;
}

static sysbox_context_t *context;
static const char *tree;

static int fail(const char *what, sysbox_error_t *err) {
  fprintf(stderr, "%s: %s\n", what, sysbox_error_message(err));
  return 1;
}

static int one(int n) {
  char id[32], config[4096];
  /* The control group is named after it, and must be nobody else's. */
  snprintf(id, sizeof id, "spawn-%d-%d", (int)getpid(), n);
  snprintf(config, sizeof config,
           "{\"ociVersion\": \"1.2.0\", \"root\": {\"path\": \"%s\"}, \"process\": {\"cwd\": \"/\", \"user\": {\"uid\": 0, \"gid\": 0},"
           " \"args\": [\"/bin/sh\", \"-c\", \"exit %d\"]}, \"linux\": {\"namespaces\": [{\"type\": \"user\"}, {\"type\": \"pid\"},"
           " {\"type\": \"network\"}, {\"type\": \"ipc\"}, {\"type\": \"uts\"}, {\"type\": \"mount\"}, {\"type\": \"cgroup\"}]}}",
           tree, 10 + n % 100);
  sysbox_error_t *err = NULL;
  sysbox_container_t *c = NULL;
  sysbox_create_options_t o = SYSBOX_CREATE_OPTIONS_INIT;
  o.stdin_fd = SYSBOX_FD_NULL;
  int32_t code = 0;
  if (sysbox_container_create(context, id, (const uint8_t *)config, strlen(config), NULL, &o, &c, &err)) return fail("create", err);
  if (sysbox_container_start(c, NULL, &err)) return fail("start", err);
  if (sysbox_container_wait(c, NULL, &code, NULL, &err)) return fail("wait", err);
  if (sysbox_container_delete(c, NULL, &err)) return fail("delete", err);
  sysbox_container_free(c);
  return code != 10 + n % 100;
}

static void *several(void *first) {
  long failures = 0;
  for (int i = 0; i < 5; i++) failures += one((int)(long)first * 5 + i);
  return (void *)failures;
}

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  tree = argv[2];
  sysbox_error_t *err = NULL;
  sysbox_context_options_t o = SYSBOX_CONTEXT_OPTIONS_INIT;
  o.state_dir = argv[1];
  if (sysbox_context_new(&o, &context, &err)) return fail("context", err);
  pthread_t noise[2], work[4];
  for (int i = 0; i < 2; i++) pthread_create(&noise[i], NULL, churn, NULL);
  for (long i = 0; i < 4; i++) pthread_create(&work[i], NULL, several, (void *)i);
  long failures = 0;
  for (int i = 0; i < 4; i++) {
    void *result;
    pthread_join(work[i], &result);
    failures += (long)result;
  }
  sysbox_buf_t *host = NULL;
  if (sysbox_context_check_host(context, &host, &err)) return fail("check", err);
  /* That it was tried by a process with one thread. */
  if (strstr(sysbox_buf_data(host), "\"fit\":true") == NULL) failures++, puts(sysbox_buf_data(host));
  sysbox_buf_free(host);
  atomic_store(&done, 1);
  for (int i = 0; i < 2; i++) pthread_join(noise[i], NULL);
  sysbox_context_free(context);
  printf("%ld failures\n", failures);
  return failures != 0;
}
