/*
 * features BUNDLE STATE_DIR CGROUP - what goes into a container and comes out of it: a bundle, streams, further descriptors, a terminal, events, and
 * the parts on their own. BUNDLE has a config.json, with a relative root.path, of a container that reads lines and echoes them.
 */
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sysbox.h>
#include <unistd.h>

static sysbox_error_t *err;

static void fail(int line, const char *what) {
  printf("%d: %s: %s\n", line, what, sysbox_error_message(err));
  exit(1);
}

#define OK(call) ((call) == SYSBOX_OK ? (void)0 : fail(__LINE__, #call))
#define SO(what) ((what) ? (void)0 : fail(__LINE__, #what))

/* Reads until the text is there, for some seconds. */
static void await(int fd, const char *text) {
  char seen[4096] = "";
  size_t n = 0;
  while (strstr(seen, text) == NULL) {
    struct pollfd p = {fd, POLLIN, 0};
    SO(poll(&p, 1, 20000) == 1);
    ssize_t got = read(fd, seen + n, sizeof seen - 1 - n);
    if (got <= 0) printf("instead of %s: %s\n", text, seen);
    SO(got > 0);
    n += (size_t)got;
    seen[n] = 0;
  }
}

static int readable(int fd, int ms) {
  struct pollfd p = {fd, POLLIN, 0};
  return poll(&p, 1, ms) == 1;
}

/* The next event, once the descriptor says that there is one; then the descriptor is quiet until the one after. */
static int32_t next(const sysbox_events_t *events) {
  int32_t event = -1, none = -1;
  for (;;) {
    SO(readable(sysbox_events_fd(events), 20000));
    OK(sysbox_events_next(events, &event, &err));
    if (event != SYSBOX_EVENT_NONE) break;
  }
  if (event != SYSBOX_EVENT_DELETED && event != SYSBOX_EVENT_STOPPED) {
    OK(sysbox_events_next(events, &none, &err));
    SO(none == SYSBOX_EVENT_NONE);
  }
  return event;
}

static void streams(const sysbox_container_t *c) {
  const char *script =
      "{\"cwd\": \"/\", \"user\": {\"uid\": 0, \"gid\": 0}, \"args\": [\"sh\", \"-c\", \"read x; echo $x on out; echo $x on err >&2;"
      " echo $x on seven >&7; exit 4\"]}";
  int in[2], out[2], more[2];
  SO(pipe(in) == 0 && pipe(out) == 0 && pipe(more) == 0);
  sysbox_fd_t fd = {more[1], 7};
  sysbox_exec_options_t o = SYSBOX_EXEC_OPTIONS_INIT;
  o.stdin_fd = in[0];
  o.stdout_fd = o.stderr_fd = out[1];
  o.fds = &fd;
  o.fd_count = 1;
  sysbox_child_t *child = NULL;
  OK(sysbox_container_exec(c, (const uint8_t *)script, strlen(script), &o, &child, &err));
  /* They are still ours, and no longer needed. */
  SO(close(in[0]) == 0 && close(out[1]) == 0 && close(more[1]) == 0);
  SO(write(in[1], "word\n", 5) == 5);
  await(out[0], "word on out\nword on err\n");
  await(more[0], "word on seven\n");
  int32_t pidfd = -1, code = -1, sig = -1;
  OK(sysbox_child_pidfd(child, &pidfd, &err));
  SO(fcntl(pidfd, F_GETFD) == FD_CLOEXEC && readable(pidfd, 20000));
  OK(sysbox_child_wait(child, NULL, &code, &sig, &err));
  SO(code == 4 && sig == 0);
  sysbox_child_free(child);
  close(pidfd), close(in[1]), close(out[0]), close(more[0]);
}

static void terminal(const sysbox_container_t *c) {
  const char *script =
      "{\"terminal\": true, \"cwd\": \"/\", \"user\": {\"uid\": 0, \"gid\": 0}, \"args\": [\"sh\", \"-c\", \"tty; read x; echo got $x\"]}";
  int socket[2];
  SO(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, socket) == 0);
  sysbox_exec_options_t o = SYSBOX_EXEC_OPTIONS_INIT;
  o.console_fd = socket[1];
  sysbox_child_t *child = NULL;
  OK(sysbox_container_exec(c, (const uint8_t *)script, strlen(script), &o, &child, &err));
  char name[64];
  union {
    struct cmsghdr header;
    char space[CMSG_SPACE(sizeof(int))];
  } control;
  struct iovec iov = {name, sizeof name};
  struct msghdr message = {NULL, 0, &iov, 1, &control, sizeof control, 0};
  SO(recvmsg(socket[0], &message, 0) > 0);
  SO(CMSG_FIRSTHDR(&message) != NULL && CMSG_FIRSTHDR(&message)->cmsg_type == SCM_RIGHTS);
  int master;
  memcpy(&master, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof master);
  SO(write(master, "typed\n", 6) == 6);
  await(master, "got typed");
  OK(sysbox_child_wait(child, NULL, NULL, NULL, &err));
  sysbox_child_free(child);
  close(master), close(socket[0]), close(socket[1]);
}

/* As the container's root reads it, and as the library renders it on its own: the limit of its memory. */
static void nodes(const sysbox_container_t *c, const char *cgroup) {
  sysbox_buf_t *buf = NULL;
  OK(sysbox_container_nodes(c, &buf, &err));
  SO(strstr(sysbox_buf_data(buf), "\"path\":\"/proc/meminfo\"") != NULL);
  int lives = strstr(sysbox_buf_data(buf), "\"status\":\"serves\"") != NULL;
  SO(!lives || strstr(sysbox_buf_data(buf), "MemTotal:          65536 kB") != NULL);
  if (!lives) printf("SKIP live nodes: %.60s\n", sysbox_buf_data(buf));
  sysbox_buf_free(buf);
  OK(sysbox_container_restart_monitor(c, &err));
  OK(sysbox_node_render(cgroup, "/proc/meminfo", &buf, &err));
  SO(strncmp(sysbox_buf_data(buf), "MemTotal:          65536 kB\n", 28) == 0);
  sysbox_buf_free(buf);
}

/* A file over the kernel's, seen by this process alone. */
static void own_node(void) {
  char seen[64] = "";
  SO(unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0);
  OK(sysbox_node_attach("/proc/sys/kernel/panic", (const uint8_t *)"4711\n", 5, 0444, &err));
  OK(sysbox_node_attach("/proc/sys/kernel/no_such", (const uint8_t *)"4711\n", 5, 0444, &err));
  int fd = open("/proc/sys/kernel/panic", O_RDONLY);
  SO(fd >= 0 && read(fd, seen, sizeof seen - 1) == 5 && strcmp(seen, "4711\n") == 0);
  close(fd);
  SO(umount("/proc/sys/kernel/panic") == 0);
}

static void parts(const sysbox_context_t *context, const char *bundle, const char *state) {
  sysbox_idmap_t *uid = NULL, *gid = NULL;
  int32_t userns = -1, mount = -1;
  uint32_t root = 0;
  OK(sysbox_subid_allocate(context, state, &uid, &gid, &err));
  OK(sysbox_idmap_to_outside(uid, 0, &root, &err));
  SO(root >= 65536);
  sysbox_buf_t *text = NULL;
  char line[64];
  OK(sysbox_idmap_text(uid, &text, &err));
  snprintf(line, sizeof line, "0 %u 4096\n", root); /* the context's size */
  SO(strcmp(sysbox_buf_data(text), line) == 0);
  sysbox_buf_free(text);
  OK(sysbox_userns_new(context, uid, gid, &userns, &err));
  sysbox_mount_options_t o = SYSBOX_MOUNT_OPTIONS_INIT;
  o.attributes = 1; /* MOUNT_ATTR_RDONLY */
  OK(sysbox_mount_idmapped(bundle, userns, &o, &mount, &err));
  struct stat st;
  SO(fstatat(mount, "config.json", &st, 0) == 0 && st.st_uid == root);
  SO(openat(mount, "new", O_CREAT | O_WRONLY, 0600) < 0);
  SO(fcntl(mount, F_GETFD) == FD_CLOEXEC && fcntl(userns, F_GETFD) == FD_CLOEXEC);
  close(mount), close(userns);
  OK(sysbox_subid_release(context, state, &err));
  sysbox_idmap_free(uid);
  sysbox_idmap_free(gid);
}

int main(int argc, char **argv) {
  if (argc != 4) return 2;
  setvbuf(stdout, NULL, _IONBF, 0);
  sysbox_context_t *context = NULL, *small = NULL;
  sysbox_container_t *c = NULL;
  sysbox_events_t *events = NULL;
  sysbox_buf_t *buf = NULL;
  sysbox_context_options_t o = SYSBOX_CONTEXT_OPTIONS_INIT;
  o.state_dir = argv[2];
  OK(sysbox_context_new(&o, &context, &err));
  o.subid_size = 4096;
  OK(sysbox_context_new(&o, &small, &err));
  parts(small, argv[1], argv[2]);
  sysbox_context_free(small);

  int in[2], out[2];
  SO(pipe(in) == 0 && pipe(out) == 0);
  sysbox_create_options_t co = SYSBOX_CREATE_OPTIONS_INIT;
  co.stdin_fd = in[0];
  co.stdout_fd = co.stderr_fd = out[1];
  OK(sysbox_container_create(context, "f", NULL, 0, argv[1], &co, &c, &err));
  /* Containers do not need it. */
  sysbox_context_free(context);
  SO(close(in[0]) == 0 && close(out[1]) == 0);
  OK(sysbox_container_watch(c, &events, &err));
  SO(!readable(sysbox_events_fd(events), 0));
  OK(sysbox_container_start(c, NULL, &err));
  SO(next(events) == SYSBOX_EVENT_STARTED && !readable(sysbox_events_fd(events), 0));
  SO(write(in[1], "hello\n", 6) == 6);
  await(out[0], "echo hello");
  nodes(c, argv[3]);
  streams(c);
  terminal(c);
  OK(sysbox_container_pause(c, &err));
  SO(next(events) == SYSBOX_EVENT_PAUSED);
  OK(sysbox_container_resume(c, &err));
  SO(next(events) == SYSBOX_EVENT_RESUMED);
  const char *hungry =
      "{\"cwd\": \"/\", \"user\": {\"uid\": 0, \"gid\": 0}, \"args\": [\"dd\", \"if=/dev/zero\", \"of=/dev/null\", \"bs=200M\","
      " \"count=1\"]}";
  sysbox_child_t *child = NULL;
  int32_t code = 0, sig = 0, pidfd = -1, pid = 0;
  OK(sysbox_container_exec(c, (const uint8_t *)hungry, strlen(hungry), NULL, &child, &err));
  OK(sysbox_child_wait(child, NULL, &code, &sig, &err));
  SO(code == 128 + SIGKILL && sig == SIGKILL);
  sysbox_child_free(child);
  SO(next(events) == SYSBOX_EVENT_OOM);
  OK(sysbox_container_state(c, &buf, &err));
  SO(strstr(sysbox_buf_data(buf), "\"status\":\"running\"") != NULL);
  sysbox_buf_free(buf);
  OK(sysbox_container_pid(c, &pid, &err));
  OK(sysbox_container_pidfd(c, &pidfd, &err));
  SO(pid > 1 && fcntl(pidfd, F_GETFD) == FD_CLOEXEC && !readable(pidfd, 0));
  /* It ends with its input; and somebody else reaps it, as programs do that reap all their children. */
  close(in[1]);
  SO(readable(pidfd, 20000));
  SO(waitpid(pid, NULL, __WALL) == pid);
  SO(next(events) == SYSBOX_EVENT_STOPPED && !readable(sysbox_events_fd(events), 0));
  sysbox_status_t status = sysbox_container_wait(c, NULL, &code, &sig, &err);
  if (status == SYSBOX_ERR_UNSUPPORTED) {
    printf("SKIP a status after reaping: %s\n", sysbox_error_message(err)); /* before Linux 6.15 */
    sysbox_error_free(err);
  } else {
    OK(status);
    SO(code == 9 && sig == 0);
  }
  OK(sysbox_container_delete(c, NULL, &err));
  SO(next(events) == SYSBOX_EVENT_DELETED && !readable(sysbox_events_fd(events), 0));
  sysbox_events_free(events);
  sysbox_container_free(c);
  close(pidfd), close(out[0]);
  own_node();
  puts("all well");
  return 0;
}
