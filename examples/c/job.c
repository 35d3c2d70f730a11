/*
 * job ROOTFS SCRIPT - runs a shell script in a fresh system container on a root file system, and exits as the script does.
 *
 *   cc -o job job.c $(pkg-config --cflags --libs sysbox)
 *
 * The script is root inside and nobody outside, and may start dockerd, say. Needs root. What it writes stays in ROOTFS.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysbox.h>
#include <unistd.h>

/* The document's own program does nothing: the script is run beside it, and the container ends when we say so. */
static const char *const CONFIG =
    "{\"ociVersion\": \"1.2.0\", \"root\": {\"path\": \"%s\"}, \"process\": {\"cwd\": \"/\", \"user\": {\"uid\": 0, \"gid\": 0},"
    " \"env\": [\"PATH=/usr/sbin:/usr/bin:/sbin:/bin\"], \"args\": [\"sh\", \"-c\", \"while :; do sleep 1000; done\"]},"
    " \"linux\": {\"namespaces\": [{\"type\": \"user\"}, {\"type\": \"pid\"}, {\"type\": \"network\"}, {\"type\": \"ipc\"},"
    " {\"type\": \"uts\"}, {\"type\": \"mount\"}, {\"type\": \"cgroup\"}]}}";

/* sh reads the script from its standard input, so that it need not be in the container. */
static const char *const PROCESS =
    "{\"cwd\": \"/\", \"user\": {\"uid\": 0, \"gid\": 0}, \"args\": [\"sh\", \"-s\"],"
    " \"env\": [\"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\"]}";

static int failed(const char *what, sysbox_error_t *err) {
  fprintf(stderr, "job: %s: %s\n", what, sysbox_error_message(err));
  sysbox_error_free(err);
  return 125;
}

static int run(const sysbox_container_t *container, int script, int *code) {
  sysbox_error_t *err = NULL;
  sysbox_child_t *child = NULL;
  sysbox_exec_options_t options = SYSBOX_EXEC_OPTIONS_INIT;
  options.stdin_fd = script;
  if (sysbox_container_start(container, NULL, &err) != SYSBOX_OK) return failed("start", err);
  if (sysbox_container_exec(container, (const uint8_t *)PROCESS, strlen(PROCESS), &options, &child, &err) != SYSBOX_OK)
    return failed("exec", err);
  int bad = sysbox_child_wait(child, NULL, code, NULL, &err) != SYSBOX_OK ? failed("wait", err) : 0;
  sysbox_child_free(child);
  return bad;
}

int main(int argc, char **argv) {
  if (argc != 3) return fprintf(stderr, "usage: job ROOTFS SCRIPT\n"), 2;
  int script = open(argv[2], O_RDONLY | O_CLOEXEC);
  if (script < 0) return perror(argv[2]), 2;

  /* CONFIG has it between quotes as it is. sysbox_config_new writes any path, with much else. */
  char config[8192], id[64];
  if (strpbrk(argv[1], "\"\\\n") || strlen(argv[1]) > 4095) return fprintf(stderr, "job: ROOTFS has a name that JSON would need changed\n"), 2;
  snprintf(config, sizeof config, CONFIG, argv[1]);
  snprintf(id, sizeof id, "job-%d", (int)getpid());

  sysbox_error_t *err = NULL;
  sysbox_context_t *context = NULL;
  sysbox_container_t *container = NULL;
  sysbox_context_options_t options = SYSBOX_CONTEXT_OPTIONS_INIT;
  options.state_dir = getenv("JOB_STATE"); /* NULL: the library's default */
  if (sysbox_context_new(&options, &context, &err) != SYSBOX_OK) return failed("context", err);
  /* The program that does nothing has no use for our standard input. */
  sysbox_create_options_t streams = SYSBOX_CREATE_OPTIONS_INIT;
  streams.stdin_fd = SYSBOX_FD_NULL;
  if (sysbox_container_create(context, id, (const uint8_t *)config, strlen(config), NULL, &streams, &container, &err) != SYSBOX_OK) {
    sysbox_context_free(context);
    return failed("create", err);
  }

  int code = 0, bad = run(container, script, &code);

  sysbox_delete_options_t force = SYSBOX_DELETE_OPTIONS_INIT;
  force.force = 1;
  if (sysbox_container_delete(container, &force, &err) != SYSBOX_OK) bad = failed("delete", err);
  sysbox_container_free(container);
  sysbox_context_free(context);
  close(script);
  return bad ? bad : code;
}
