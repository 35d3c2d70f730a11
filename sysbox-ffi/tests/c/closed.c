/*
 * closed STATE_DIR TREE - containers from a program that has closed its standard streams: what the library keeps open must not get their
 * numbers, or it would be given to containers as the caller's own streams. Says what is wrong by its exit status.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sysbox.h>
#include <unistd.h>

static int out;

/* To where the test can read it. */
static int fail(const char *what, sysbox_error_t *err) {
  dprintf(out, "%s: %s\n", what, sysbox_error_message(err));
  return 1;
}

static int is_closed(const char *when) {
  for (int fd = 0; fd < 3; fd++) {
    if (fcntl(fd, F_GETFD) >= 0 || errno != EBADF) {
      char path[32], to[256] = "";
      snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
      if (readlink(path, to, sizeof to - 1) < 0) to[0] = 0;
      dprintf(out, "%s: %d is %s\n", when, fd, to);
      return 0;
    }
  }
  return 1;
}

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  if ((out = fcntl(1, F_DUPFD_CLOEXEC, 10)) < 0) return 3;
  for (int fd = 0; fd < 3; fd++) close(fd);

  char id[32], config[4096];
  snprintf(id, sizeof id, "closed-%d", (int)getpid());
  /* It sees /dev/null three times. */
  snprintf(config, sizeof config,
           "{\"ociVersion\": \"1.2.0\", \"root\": {\"path\": \"%s\"}, \"process\": {\"cwd\": \"/\", \"user\": {\"uid\": 0, \"gid\": 0},"
           " \"args\": [\"/bin/sh\", \"-c\", \"for i in 0 1 2; do /bin/busybox readlink /proc/$$/fd/$i; done | /bin/busybox grep -vx /dev/null && exit 1; exit 7\"]},"
           " \"linux\": {\"namespaces\": [{\"type\": \"user\"}, {\"type\": \"pid\"},"
           " {\"type\": \"network\"}, {\"type\": \"ipc\"}, {\"type\": \"uts\"}, {\"type\": \"mount\"}, {\"type\": \"cgroup\"}]}}",
           argv[2]);
  sysbox_error_t *err = NULL;
  sysbox_context_t *context = NULL;
  sysbox_container_t *c = NULL, *other = NULL;
  sysbox_cancel_t *cancel = NULL;
  sysbox_events_t *events = NULL;
  sysbox_child_t *child = NULL;
  sysbox_context_options_t o = SYSBOX_CONTEXT_OPTIONS_INIT;
  o.state_dir = argv[1];
  int32_t code = 0;
  if (sysbox_context_new(&o, &context, &err)) return fail("context", err);
  if (!is_closed("context")) return 1;
  if (sysbox_cancel_new(&cancel, &err)) return fail("cancel", err);
  if (!is_closed("cancel")) return 1;
  if (sysbox_container_create(context, id, (const uint8_t *)config, strlen(config), NULL, NULL, &c, &err)) return fail("create", err);
  if (!is_closed("create")) return 1;
  if (sysbox_container_open(context, id, &other, &err)) return fail("open", err);
  if (!is_closed("open")) return 1;
  if (sysbox_container_watch(c, &events, &err)) return fail("watch", err);
  if (!is_closed("watch")) return 1;
  static const char process[] = "{\"cwd\": \"/\", \"user\": {\"uid\": 0, \"gid\": 0}, \"args\": [\"/bin/sh\", \"-c\", \"exit 5\"]}";
  if (sysbox_container_exec(c, (const uint8_t *)process, strlen(process), NULL, &child, &err)) return fail("exec", err);
  if (!is_closed("exec")) return 1;
  sysbox_wait_options_t w = SYSBOX_WAIT_OPTIONS_INIT;
  w.cancel = cancel;
  if (sysbox_child_wait(child, &w, &code, NULL, &err)) return fail("wait for a program", err);
  int failed = code != 5;
  if (sysbox_container_start(c, NULL, &err)) return fail("start", err);
  if (sysbox_container_wait(c, &w, &code, NULL, &err)) return fail("wait", err);
  failed |= code != 7;
  if (failed) dprintf(out, "exit code %d\n", (int)code);
  if (sysbox_container_delete(c, NULL, &err)) return fail("delete", err);
  sysbox_child_free(child);
  sysbox_events_free(events);
  sysbox_cancel_free(cancel);
  sysbox_container_free(other);
  sysbox_container_free(c);
  sysbox_context_free(context);
  if (!is_closed("the end")) return 1;
  dprintf(out, "%s\n", failed ? "failed" : "all well");
  return failed;
}
