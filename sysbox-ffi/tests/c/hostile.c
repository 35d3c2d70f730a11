/*
 * hostile STATE_DIR TREE [no-pidfds] - every export of the library with arguments that cannot be. Each gives a status, and what is made
 * meanwhile is freed: this runs under sanitizers, which find what is not. With a third argument nothing is done that needs system calls
 * that valgrind may not know.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysbox.h>
#include <unistd.h>

static int failures;

static void expect(int line, const char *call, sysbox_status_t status, sysbox_status_t wanted, sysbox_error_t **err) {
  if (status != wanted) {
    printf("%d: %s: %s instead of %s: %s\n", line, call, sysbox_status_name(status), sysbox_status_name(wanted),
           sysbox_error_message(*err));
    failures++;
  } else if (status != SYSBOX_OK && (*err == NULL || sysbox_error_code(*err) != status || !*sysbox_error_message(*err))) {
    printf("%d: %s: no error that fits\n", line, call);
    failures++;
  } else if (status == SYSBOX_OK && *err != NULL) {
    printf("%d: %s: an error without a failure\n", line, call);
    failures++;
  }
  sysbox_error_free(*err);
  *err = NULL;
}

/* A call whose last argument is &err. */
#define EXPECT(wanted, call) expect(__LINE__, #call, call, wanted, &err)
#define BAD(call) EXPECT(SYSBOX_ERR_INVALID_ARGUMENT, call)
#define GOOD(call) EXPECT(SYSBOX_OK, call)
#define SAY(so) ((so) ? (void)0 : (void)(failures++, printf("%d: not so: %s\n", __LINE__, #so)))

/* An address that is no pointer to anything bigger than a byte. */
static char unaligned_space[64];
#define UNALIGNED(type) ((type *)(void *)(unaligned_space + 1))

static char long_text[8192];
static const char *const not_utf8 = "\xff\xfe";
static const uint8_t *bytes(const char *text) { return (const uint8_t *)text; }

static void without_handles(void) {
  sysbox_error_t *err = NULL;
  sysbox_buf_t *buf = NULL;
  int32_t n = 7, m = 7;
  uint32_t id = 7;

  BAD(sysbox_context_check_host(NULL, &buf, &err));
  BAD(sysbox_context_list(NULL, &buf, &err));
  BAD(sysbox_context_plan(NULL, "x", bytes("{}"), 2, NULL, &buf, &err));
  BAD(sysbox_context_plan_text(NULL, "x", bytes("{}"), 2, NULL, &buf, &err));
  sysbox_container_t *container = NULL;
  BAD(sysbox_container_create(NULL, "x", bytes("{}"), 2, NULL, NULL, &container, &err));
  BAD(sysbox_container_open(NULL, "x", &container, &err));
  BAD(sysbox_container_start(NULL, NULL, &err));
  sysbox_child_t *child = NULL;
  BAD(sysbox_container_exec(NULL, bytes("{}"), 2, NULL, &child, &err));
  BAD(sysbox_container_wait(NULL, NULL, &n, &m, &err));
  BAD(sysbox_container_kill(NULL, SIGKILL, &err));
  BAD(sysbox_container_kill_all(NULL, SIGKILL, &err));
  BAD(sysbox_container_pause(NULL, &err));
  BAD(sysbox_container_resume(NULL, &err));
  BAD(sysbox_container_update(NULL, bytes("{}"), 2, &err));
  BAD(sysbox_container_state(NULL, &buf, &err));
  BAD(sysbox_container_stats(NULL, &buf, &err));
  BAD(sysbox_container_processes(NULL, &buf, &err));
  BAD(sysbox_container_config(NULL, &buf, &err));
  BAD(sysbox_container_delete(NULL, NULL, &err));
  BAD(sysbox_container_pid(NULL, &n, &err));
  BAD(sysbox_container_pidfd(NULL, &n, &err));
  sysbox_events_t *events = NULL;
  BAD(sysbox_container_watch(NULL, &events, &err));
  BAD(sysbox_container_nodes(NULL, &buf, &err));
  BAD(sysbox_container_restart_monitor(NULL, &err));
  BAD(sysbox_events_next(NULL, &n, &err));
  BAD(sysbox_child_pidfd(NULL, &n, &err));
  BAD(sysbox_child_kill(NULL, SIGKILL, &err));
  BAD(sysbox_child_wait(NULL, NULL, &n, &m, &err));
  BAD(sysbox_idmap_text(NULL, &buf, &err));
  BAD(sysbox_idmap_to_outside(NULL, 0, &id, &err));
  BAD(sysbox_idmap_to_inside(NULL, 0, &id, &err));
  sysbox_idmap_t *uid = NULL, *gid = NULL;
  BAD(sysbox_subid_allocate(NULL, "/tmp", &uid, &gid, &err));
  BAD(sysbox_subid_release(NULL, "/tmp", &err));
  BAD(sysbox_subid_list(NULL, &buf, &err));
  BAD(sysbox_userns_new(NULL, uid, gid, &n, &err));
  /* Nobody wants the error. */
  SAY(sysbox_container_start(NULL, NULL, NULL) == SYSBOX_ERR_INVALID_ARGUMENT);
  SAY(sysbox_container_start(UNALIGNED(sysbox_container_t), NULL, NULL) == SYSBOX_ERR_INVALID_ARGUMENT);
  SAY(sysbox_cancel_trigger(NULL) == SYSBOX_ERR_INVALID_ARGUMENT);
  BAD(sysbox_cancel_new(NULL, &err));
  /* Results were not touched. */
  SAY(n == 7 && m == 7 && id == 7 && !buf && !container && !child && !events && !uid && !gid);

  SAY(strcmp(sysbox_container_id(NULL), "") == 0);
  SAY(sysbox_child_pid(NULL) == 0);
  SAY(sysbox_events_fd(NULL) == -1);
  SAY(strcmp(sysbox_buf_data(NULL), "") == 0 && sysbox_buf_size(NULL) == 0);
  SAY(sysbox_error_code(NULL) == SYSBOX_OK && sysbox_error_errno(NULL) == 0);
  SAY(sysbox_error_stage(NULL) == SYSBOX_STAGE_CALLER && sysbox_error_path(NULL) == NULL);
  SAY(strcmp(sysbox_error_message(NULL), "") == 0 && strcmp(sysbox_error_operation(NULL), "") == 0);
  SAY(sysbox_error_advice(NULL) == NULL);
  sysbox_context_free(NULL);
  sysbox_container_free(NULL);
  sysbox_child_free(NULL);
  sysbox_events_free(NULL);
  sysbox_cancel_free(NULL);
  sysbox_idmap_free(NULL);
  sysbox_buf_free(NULL);
  sysbox_error_free(NULL);

  SAY(strcmp(sysbox_version(), SYSBOX_VERSION) == 0);
  SAY(sysbox_abi_version() == SYSBOX_ABI_VERSION);
  SAY(strstr(sysbox_features_json(), "\"stage\":\"carried\"") != NULL);
  SAY(strcmp(sysbox_status_name(4711), "unknown status") == 0);
  for (sysbox_status_t s = SYSBOX_OK; s <= SYSBOX_ERR_POISONED; s++) SAY(strncmp(sysbox_status_name(s), "SYSBOX_", 7) == 0);
  BAD(sysbox_config_new(NULL, &buf, &err));
  BAD(sysbox_config_new("", &buf, &err));
  BAD(sysbox_config_new(not_utf8, &buf, &err));
  BAD(sysbox_config_new(long_text, &buf, &err));
  BAD(sysbox_config_new("/", NULL, &err));
}

static void contexts(const char *state) {
  sysbox_error_t *err = NULL;
  sysbox_context_t *context = NULL;
  union {
    sysbox_context_options_t o;
    unsigned char space[8192];
  } u;
  BAD(sysbox_context_new(NULL, NULL, &err));
  memset(&u, 0, sizeof u);
  BAD(sysbox_context_new(&u.o, &context, &err)); /* size 0 */
  u.o.size = sizeof(size_t);
  BAD(sysbox_context_new(&u.o, &context, &err));
  u.o.size = sizeof u.o - 1;
  BAD(sysbox_context_new(&u.o, &context, &err));
  u.o.size = 4097;
  BAD(sysbox_context_new(&u.o, &context, &err));
  u.o.size = (size_t)-1;
  BAD(sysbox_context_new(&u.o, &context, &err));
  u.o.size = 4096;
  u.o.state_dir = state;
  GOOD(sysbox_context_new(&u.o, &context, &err)); /* of a later version, with nothing new in use */
  sysbox_context_free(context);
  context = NULL;
  u.space[4095] = 1;
  BAD(sysbox_context_new(&u.o, &context, &err));
  u.o.size = sizeof u.o;
  u.o.cgroup_manager = 2;
  BAD(sysbox_context_new(&u.o, &context, &err));
  u.o.cgroup_manager = -1;
  BAD(sysbox_context_new(&u.o, &context, &err));
  u.o.cgroup_manager = 0;
  u.o.state_dir = "";
  BAD(sysbox_context_new(&u.o, &context, &err));
  u.o.state_dir = long_text;
  BAD(sysbox_context_new(&u.o, &context, &err));
  u.o.state_dir = state;
  u.o.subid_user = not_utf8;
  BAD(sysbox_context_new(&u.o, &context, &err));
  BAD(sysbox_context_new(UNALIGNED(sysbox_context_options_t), &context, &err));
  SAY(context == NULL);

  /* Nonsense that shows only when it is used. */
  memset(&u, 0, sizeof u);
  u.o.size = sizeof u.o;
  u.o.state_dir = state;
  u.o.stage_path = "/no/such/stage";
  u.o.subid_user = "a:b";
  GOOD(sysbox_context_new(&u.o, &context, &err));
  sysbox_buf_t *buf = NULL;
  EXPECT(SYSBOX_ERR_SYSTEM, sysbox_context_check_host(context, &buf, &err));
  EXPECT(SYSBOX_ERR_INVALID_CONFIG, sysbox_subid_list(context, &buf, &err));
  sysbox_context_free(context);
}

static void configurations(const sysbox_context_t *context, const char *good) {
  sysbox_error_t *err = NULL;
  sysbox_container_t *c = NULL;
  sysbox_buf_t *buf = NULL;
  size_t size = strlen(good);
#define CREATE(id, config, n, bundle, options) sysbox_container_create(context, id, config, n, bundle, options, &c, &err)
  BAD(sysbox_container_create(context, "x", bytes(good), size, NULL, NULL, NULL, &err));
  BAD(CREATE(NULL, bytes(good), size, NULL, NULL));
  BAD(CREATE(not_utf8, bytes(good), size, NULL, NULL));
  BAD(CREATE(long_text, bytes(good), size, NULL, NULL));
  EXPECT(SYSBOX_ERR_INVALID_CONFIG, CREATE("", bytes(good), size, NULL, NULL));
  EXPECT(SYSBOX_ERR_INVALID_CONFIG, CREATE("..", bytes(good), size, NULL, NULL));
  EXPECT(SYSBOX_ERR_INVALID_CONFIG, CREATE("a/b", bytes(good), size, NULL, NULL));
  EXPECT(SYSBOX_ERR_INVALID_CONFIG, CREATE(long_text + sizeof long_text - 300, bytes(good), size, NULL, NULL));
  BAD(CREATE("x", NULL, 0, NULL, NULL));
  BAD(CREATE("x", NULL, 5, NULL, NULL));
  BAD(CREATE("x", bytes(good), (size_t)-1, NULL, NULL));
  BAD(CREATE("x", bytes(good), (size_t)64 * 1024 * 1024 + 1, NULL, NULL));
  EXPECT(SYSBOX_ERR_INVALID_CONFIG, CREATE("x", bytes(good), 0, NULL, NULL));
  EXPECT(SYSBOX_ERR_INVALID_CONFIG, CREATE("x", bytes(good), size - 1, NULL, NULL));
  EXPECT(SYSBOX_ERR_INVALID_CONFIG, CREATE("x", bytes("{}\0{}"), 5, NULL, NULL));
  EXPECT(SYSBOX_ERR_INVALID_CONFIG, CREATE("x", bytes(not_utf8), 2, NULL, NULL));
  EXPECT(SYSBOX_ERR_INVALID_CONFIG, CREATE("x", bytes("[]"), 2, NULL, NULL));
  char *deep = malloc(1 << 20);
  memset(deep, '[', 1 << 20);
  EXPECT(SYSBOX_ERR_INVALID_CONFIG, CREATE("x", bytes(deep), 1 << 20, NULL, NULL));
  free(deep);
  BAD(CREATE("x", bytes(good), size, "", NULL));
  BAD(CREATE("x", bytes(good), size, long_text, NULL));
  EXPECT(SYSBOX_ERR_SYSTEM, CREATE("x", bytes(good), size, "/no/such/bundle", NULL));
  EXPECT(SYSBOX_ERR_SYSTEM, CREATE("x", NULL, 0, "/no/such/bundle", NULL));

  sysbox_create_options_t o = SYSBOX_CREATE_OPTIONS_INIT;
  sysbox_fd_t fds[2] = {{0, 3}, {0, 3}};
  o.stdout_fd = 9999;
  BAD(CREATE("x", bytes(good), size, NULL, &o));
  o.stdout_fd = -2;
  BAD(CREATE("x", bytes(good), size, NULL, &o));
  o.stdout_fd = 0;
  o.console_fd = 9999;
  BAD(CREATE("x", bytes(good), size, NULL, &o));
  o.console_fd = 1;
  EXPECT(SYSBOX_ERR_INVALID_CONFIG, CREATE("x", bytes(good), size, NULL, &o)); /* without a terminal */
  o.console_fd = 0;
  o.fd_count = 1;
  BAD(CREATE("x", bytes(good), size, NULL, &o));
  o.fds = fds;
  o.fd_count = (size_t)-1;
  BAD(CREATE("x", bytes(good), size, NULL, &o));
  o.fd_count = 241;
  BAD(CREATE("x", bytes(good), size, NULL, &o));
  o.fd_count = 2;
  EXPECT(SYSBOX_ERR_INVALID_CONFIG, CREATE("x", bytes(good), size, NULL, &o)); /* one number twice */
  fds[1].number = -5;
  EXPECT(SYSBOX_ERR_INVALID_CONFIG, CREATE("x", bytes(good), size, NULL, &o));
  fds[1].fd = -1;
  BAD(CREATE("x", bytes(good), size, NULL, &o));
  o.fd_count = 0;
  o.cancel = UNALIGNED(sysbox_cancel_t);
  BAD(CREATE("x", bytes(good), size, NULL, &o));
  o.cancel = NULL;
  o.timeout_ms = INT64_MIN;
  EXPECT(SYSBOX_ERR_TIMED_OUT, CREATE("x", bytes(good), size, NULL, &o));
  o.size = 1;
  BAD(CREATE("x", bytes(good), size, NULL, &o));
  SAY(c == NULL);

  BAD(sysbox_context_plan(context, "x", bytes(good), size, NULL, NULL, &err));
  BAD(sysbox_context_plan(context, NULL, bytes(good), size, NULL, &buf, &err));
  EXPECT(SYSBOX_ERR_INVALID_CONFIG, sysbox_context_plan(context, "x", bytes("{"), 1, NULL, &buf, &err));
  BAD(sysbox_context_plan_text(context, "x", bytes(good), size, NULL, NULL, &err));
  BAD(sysbox_context_plan_text(context, not_utf8, bytes(good), size, NULL, &buf, &err));
  BAD(sysbox_context_check_host(context, NULL, &err));
  BAD(sysbox_context_list(context, NULL, &err));
  BAD(sysbox_container_open(context, NULL, &c, &err));
  BAD(sysbox_container_open(context, "x", NULL, &err));
  BAD(sysbox_container_open(context, not_utf8, &c, &err));
  EXPECT(SYSBOX_ERR_NOT_FOUND, sysbox_container_open(context, "x", &c, &err));
  EXPECT(SYSBOX_ERR_NOT_FOUND, sysbox_container_open(context, "../..", &c, &err));
  SAY(c == NULL && buf == NULL);
}

static void one_container(const sysbox_context_t *context, const char *good) {
  sysbox_error_t *err = NULL;
  sysbox_container_t *c = NULL;
  sysbox_child_t *child = NULL;
  sysbox_events_t *events = NULL;
  sysbox_cancel_t *cancel = NULL;
  sysbox_buf_t *buf = NULL;
  int32_t n = 7;
  char id[32];
  snprintf(id, sizeof id, "hostile-%d", (int)getpid());
  sysbox_create_options_t o = SYSBOX_CREATE_OPTIONS_INIT;
  o.stdin_fd = SYSBOX_FD_NULL;
  o.timeout_ms = INT64_MAX;
  GOOD(sysbox_cancel_new(&cancel, &err));
  o.cancel = cancel;
  GOOD(sysbox_container_create(context, id, bytes(good), strlen(good), NULL, &o, &c, &err));
  if (c == NULL) return;
  EXPECT(SYSBOX_ERR_EXISTS, sysbox_container_create(context, id, bytes(good), strlen(good), NULL, NULL, &c, &err));
  BAD(sysbox_container_watch(c, NULL, &err));
  GOOD(sysbox_container_watch(c, &events, &err));
  BAD(sysbox_events_next(events, NULL, &err));
  GOOD(sysbox_events_next(events, &n, &err));
  SAY(n == SYSBOX_EVENT_NONE && sysbox_events_fd(events) >= 0);
  EXPECT(SYSBOX_ERR_WRONG_STATE, sysbox_container_resume(c, &err));
  sysbox_start_options_t so = SYSBOX_START_OPTIONS_INIT;
  so.size = 3;
  BAD(sysbox_container_start(c, &so, &err));
  GOOD(sysbox_container_start(c, NULL, &err));
  EXPECT(SYSBOX_ERR_WRONG_STATE, sysbox_container_start(c, NULL, &err));
  GOOD(sysbox_events_next(events, &n, &err));
  SAY(n == SYSBOX_EVENT_STARTED);

  BAD(sysbox_container_state(c, NULL, &err));
  BAD(sysbox_container_stats(c, NULL, &err));
  BAD(sysbox_container_processes(c, NULL, &err));
  BAD(sysbox_container_config(c, NULL, &err));
  BAD(sysbox_container_nodes(c, NULL, &err));
  GOOD(sysbox_container_restart_monitor(c, &err));
  BAD(sysbox_container_pid(c, NULL, &err));
  BAD(sysbox_container_pidfd(c, NULL, &err));
  BAD(sysbox_container_pid(c, UNALIGNED(int32_t), &err));
  EXPECT(SYSBOX_ERR_SYSTEM, sysbox_container_kill(c, 9999, &err));
  EXPECT(SYSBOX_ERR_SYSTEM, sysbox_container_kill(c, -1, &err));
  GOOD(sysbox_container_kill(c, 0, &err));
  sysbox_container_kill_all(c, -1, &err);
  sysbox_error_free(err);
  err = NULL;
  BAD(sysbox_container_update(c, NULL, 0, &err));
  BAD(sysbox_container_update(c, NULL, 2, &err));
  BAD(sysbox_container_update(c, bytes("{}"), (size_t)-1, &err));
  EXPECT(SYSBOX_ERR_INVALID_CONFIG, sysbox_container_update(c, bytes("[3]"), 3, &err));
  EXPECT(SYSBOX_ERR_INVALID_CONFIG, sysbox_container_update(c, bytes(not_utf8), 2, &err));
  GOOD(sysbox_container_update(c, bytes("{}"), 2, &err));

  const char *sleep = "{\"cwd\": \"/\", \"user\": {\"uid\": 0, \"gid\": 0}, \"args\": [\"sleep\", \"1000\"]}";
  const char *nothing = "{\"cwd\": \"/\", \"user\": {\"uid\": 0, \"gid\": 0}, \"args\": [\"/no/such\"]}";
  sysbox_exec_options_t eo = SYSBOX_EXEC_OPTIONS_INIT;
  BAD(sysbox_container_exec(c, bytes(sleep), strlen(sleep), NULL, NULL, &err));
  BAD(sysbox_container_exec(c, NULL, 0, NULL, &child, &err));
  BAD(sysbox_container_exec(c, bytes(sleep), (size_t)-1, NULL, &child, &err));
  EXPECT(SYSBOX_ERR_INVALID_CONFIG, sysbox_container_exec(c, bytes("{}"), 2, NULL, &child, &err));
  EXPECT(SYSBOX_ERR_INVALID_CONFIG, sysbox_container_exec(c, bytes("x"), 1, NULL, &child, &err));
  EXPECT(SYSBOX_ERR_PROGRAM_NOT_FOUND, sysbox_container_exec(c, bytes(nothing), strlen(nothing), NULL, &child, &err));
  eo.stdin_fd = 9999;
  BAD(sysbox_container_exec(c, bytes(sleep), strlen(sleep), &eo, &child, &err));
  eo.stdin_fd = SYSBOX_FD_NULL;
  eo.size = sizeof eo + 8 > 4096 ? 0 : 5000;
  BAD(sysbox_container_exec(c, bytes(sleep), strlen(sleep), &eo, &child, &err));
  eo.size = sizeof eo;
  GOOD(sysbox_container_exec(c, bytes(sleep), strlen(sleep), &eo, &child, &err));
  if (child != NULL) {
    sysbox_wait_options_t wo = SYSBOX_WAIT_OPTIONS_INIT;
    wo.timeout_ms = -1;
    EXPECT(SYSBOX_ERR_TIMED_OUT, sysbox_child_wait(child, &wo, &n, NULL, &err));
    wo.size = 0;
    BAD(sysbox_child_wait(child, &wo, NULL, NULL, &err));
    BAD(sysbox_child_wait(child, NULL, UNALIGNED(int32_t), NULL, &err));
    BAD(sysbox_child_pidfd(child, NULL, &err));
    EXPECT(SYSBOX_ERR_SYSTEM, sysbox_child_kill(child, 9999, &err));
    SAY(sysbox_child_pid(child) > 1);
    GOOD(sysbox_child_kill(child, SIGKILL, &err));
    GOOD(sysbox_child_wait(child, NULL, NULL, NULL, &err));
    sysbox_child_free(child);
  }

  sysbox_wait_options_t wo = SYSBOX_WAIT_OPTIONS_INIT;
  wo.timeout_ms = 1;
  n = 7;
  EXPECT(SYSBOX_ERR_TIMED_OUT, sysbox_container_wait(c, &wo, &n, NULL, &err));
  SAY(n == 7);
  BAD(sysbox_container_wait(c, NULL, NULL, UNALIGNED(int32_t), &err));
  errno = 4711;
  SAY(sysbox_cancel_trigger(cancel) == SYSBOX_OK && sysbox_cancel_trigger(cancel) == SYSBOX_OK && errno == 4711);
  wo.cancel = cancel;
  EXPECT(SYSBOX_ERR_CANCELED, sysbox_container_wait(c, &wo, NULL, NULL, &err));
  sysbox_cancel_free(cancel);

  sysbox_delete_options_t d = SYSBOX_DELETE_OPTIONS_INIT;
  EXPECT(SYSBOX_ERR_WRONG_STATE, sysbox_container_delete(c, NULL, &err));
  d.reserved = 1;
  BAD(sysbox_container_delete(c, &d, &err));
  d.reserved = 0;
  d.force = -1;
  GOOD(sysbox_container_delete(c, &d, &err));
  EXPECT(SYSBOX_ERR_NOT_FOUND, sysbox_container_delete(c, &d, &err));
  /* Nothing is there any more, and every call says so in its way. */
  EXPECT(SYSBOX_ERR_WRONG_STATE, sysbox_container_kill(c, SIGKILL, &err));
  EXPECT(SYSBOX_ERR_WRONG_STATE, sysbox_container_pid(c, &n, &err));
  EXPECT(SYSBOX_ERR_WRONG_STATE, sysbox_container_stats(c, &buf, &err));
  EXPECT(SYSBOX_ERR_WRONG_STATE, sysbox_container_pause(c, &err));
  EXPECT(SYSBOX_ERR_WRONG_STATE, sysbox_container_nodes(c, &buf, &err));
  EXPECT(SYSBOX_ERR_WRONG_STATE, sysbox_container_exec(c, bytes(sleep), strlen(sleep), NULL, &child, &err));
  GOOD(sysbox_events_next(events, &n, &err));
  SAY(n == SYSBOX_EVENT_STOPPED);
  GOOD(sysbox_events_next(events, &n, &err));
  SAY(n == SYSBOX_EVENT_DELETED);
  GOOD(sysbox_events_next(events, &n, &err));
  SAY(n == SYSBOX_EVENT_NONE);
  sysbox_events_free(events);
  SAY(strcmp(sysbox_container_id(c), id) == 0);
  sysbox_container_free(c);
}

static void parts(const sysbox_context_t *context, const char *state, const char *tree, int all) {
  sysbox_error_t *err = NULL;
  sysbox_idmap_t *uid = NULL, *gid = NULL;
  sysbox_buf_t *buf = NULL;
  uint32_t id = 0;
  int32_t userns = -1, mount = -1;
  sysbox_id_range_t ranges[2] = {{0, 100000, 65536}, {0, 5, 5}};
  BAD(sysbox_idmap_new(ranges, 1, NULL, &err));
  BAD(sysbox_idmap_new(NULL, 1, &uid, &err));
  BAD(sysbox_idmap_new(ranges, (size_t)-1, &uid, &err));
  EXPECT(SYSBOX_ERR_INVALID_CONFIG, sysbox_idmap_new(ranges, 0, &uid, &err));
  EXPECT(SYSBOX_ERR_INVALID_CONFIG, sysbox_idmap_new(ranges, 2, &uid, &err));
  BAD(sysbox_idmap_parse(NULL, &uid, &err));
  BAD(sysbox_idmap_parse("0 1 1", NULL, &err));
  BAD(sysbox_idmap_parse(not_utf8, &uid, &err));
  BAD(sysbox_idmap_parse(long_text, &uid, &err));
  EXPECT(SYSBOX_ERR_INVALID_CONFIG, sysbox_idmap_parse("", &uid, &err));
  EXPECT(SYSBOX_ERR_INVALID_CONFIG, sysbox_idmap_parse("0 1 4294967295", &uid, &err));
  GOOD(sysbox_idmap_new(ranges, 1, &uid, &err));
  BAD(sysbox_idmap_text(uid, NULL, &err));
  BAD(sysbox_idmap_to_outside(uid, 0, NULL, &err));
  EXPECT(SYSBOX_ERR_NOT_FOUND, sysbox_idmap_to_outside(uid, 65536, &id, &err));
  GOOD(sysbox_idmap_to_outside(uid, 65535, &id, &err));
  SAY(id == 165535);
  BAD(sysbox_idmap_to_inside(uid, 0, UNALIGNED(uint32_t), &err));
  EXPECT(SYSBOX_ERR_NOT_FOUND, sysbox_idmap_to_inside(uid, 0, &id, &err));

  BAD(sysbox_userns_new(context, uid, NULL, &userns, &err));
  BAD(sysbox_userns_new(context, NULL, uid, &userns, &err));
  BAD(sysbox_userns_new(context, uid, uid, NULL, &err));
  if (all) GOOD(sysbox_userns_new(context, uid, uid, &userns, &err));
  sysbox_idmap_free(uid);
  uid = NULL;
  sysbox_mount_options_t mo = SYSBOX_MOUNT_OPTIONS_INIT;
  BAD(sysbox_mount_idmapped(NULL, userns, NULL, &mount, &err));
  BAD(sysbox_mount_idmapped("", userns, NULL, &mount, &err));
  BAD(sysbox_mount_idmapped(tree, userns, NULL, NULL, &err));
  BAD(sysbox_mount_idmapped(tree, -1, NULL, &mount, &err));
  BAD(sysbox_mount_idmapped(tree, 9999, NULL, &mount, &err));
  EXPECT(SYSBOX_ERR_SYSTEM, sysbox_mount_idmapped("/no/such", 1, NULL, &mount, &err));
  if (all) {
    EXPECT(SYSBOX_ERR_UNSUPPORTED, sysbox_mount_idmapped(tree, 1, NULL, &mount, &err)); /* no namespace at all */
    EXPECT(SYSBOX_ERR_UNSUPPORTED, sysbox_mount_idmapped("/proc", userns, NULL, &mount, &err));
  }
  mo.attributes = 1u << 31;
  BAD(sysbox_mount_idmapped(tree, userns, &mo, &mount, &err));
  mo.attributes = 0x100000; /* MOUNT_ATTR_IDMAP */
  BAD(sysbox_mount_idmapped(tree, userns, &mo, &mount, &err));
  mo.attributes = 1;
  mo.reserved = 1;
  BAD(sysbox_mount_idmapped(tree, userns, &mo, &mount, &err));
  mo.reserved = 0;
  if (all) {
    GOOD(sysbox_mount_idmapped(tree, userns, &mo, &mount, &err));
    close(mount);
    close(userns);
  }

  BAD(sysbox_node_render(NULL, "/proc/meminfo", &buf, &err));
  BAD(sysbox_node_render("/", NULL, &buf, &err));
  BAD(sysbox_node_render("/", "/proc/meminfo", NULL, &err));
  EXPECT(SYSBOX_ERR_NOT_FOUND, sysbox_node_render("/", "/proc/cmdline", &buf, &err));
  EXPECT(SYSBOX_ERR_NOT_FOUND, sysbox_node_render("/", not_utf8, &buf, &err));
  BAD(sysbox_node_render(long_text, "/proc/meminfo", &buf, &err));
  BAD(sysbox_node_attach(NULL, bytes("x"), 1, 0444, &err));
  BAD(sysbox_node_attach("/proc/sys/kernel/panic", NULL, 1, 0444, &err));
  BAD(sysbox_node_attach("/proc/sys/kernel/panic", bytes("x"), (size_t)-1, 0444, &err));
  BAD(sysbox_node_attach("/proc/sys/kernel/panic", bytes(not_utf8), 2, 0444, &err));
  BAD(sysbox_node_attach("/proc/sys/kernel/panic", bytes("x"), 1, 01777, &err));
  EXPECT(SYSBOX_ERR_INVALID_CONFIG, sysbox_node_attach("/etc/passwd", bytes("x"), 1, 0444, &err));
  EXPECT(SYSBOX_ERR_INVALID_CONFIG, sysbox_node_attach("/proc/../etc/passwd", bytes("x"), 1, 0444, &err));

  BAD(sysbox_subid_allocate(context, NULL, &uid, &gid, &err));
  BAD(sysbox_subid_allocate(context, state, NULL, &gid, &err));
  BAD(sysbox_subid_allocate(context, state, &uid, NULL, &err));
  EXPECT(SYSBOX_ERR_SYSTEM, sysbox_subid_allocate(context, "/no/such", &uid, &gid, &err));
  BAD(sysbox_subid_release(context, NULL, &err));
  EXPECT(SYSBOX_ERR_SYSTEM, sysbox_subid_release(context, "/no/such", &err));
  BAD(sysbox_subid_list(context, NULL, &err));
  GOOD(sysbox_subid_allocate(context, state, &uid, &gid, &err));
  GOOD(sysbox_subid_list(context, &buf, &err));
  SAY(strstr(sysbox_buf_data(buf), state) != NULL && sysbox_buf_size(buf) == strlen(sysbox_buf_data(buf)));
  sysbox_buf_free(buf);
  GOOD(sysbox_subid_release(context, state, &err));
  GOOD(sysbox_subid_release(context, state, &err));
  sysbox_idmap_free(uid);
  sysbox_idmap_free(gid);
}

static int heard;
static void hear(void *user, int32_t level, const char *target, const char *message) {
  if (user == &heard && level >= SYSBOX_LOG_ERROR && level <= SYSBOX_LOG_DEBUG && *target && *message) heard++;
  /* Not allowed, and no more than a failure. */
  if (sysbox_log_set(SYSBOX_LOG_ERROR, NULL, NULL, NULL) != SYSBOX_ERR_INVALID_ARGUMENT) failures++;
}

int main(int argc, char **argv) {
  if (argc < 3) return 2;
  int all = argc == 3;
  setvbuf(stdout, NULL, _IONBF, 0);
  memset(long_text, 'a', sizeof long_text - 1);
  sysbox_error_t *err = NULL;
  BAD(sysbox_log_set(0, hear, &heard, &err));
  BAD(sysbox_log_set(6, hear, &heard, &err));
  GOOD(sysbox_log_set(0, NULL, NULL, &err));
  GOOD(sysbox_log_set(SYSBOX_LOG_DEBUG, hear, &heard, &err));
  without_handles();
  contexts(argv[1]);
  sysbox_context_options_t o = SYSBOX_CONTEXT_OPTIONS_INIT;
  o.state_dir = argv[1];
  sysbox_context_t *context = NULL;
  GOOD(sysbox_context_new(&o, &context, &err));
  sysbox_buf_t *config = NULL;
  GOOD(sysbox_config_new(argv[2], &config, &err));
  if (config != NULL && context != NULL) {
    /* An init that is there, and ends by itself if this program dies. */
    char good[8192];
    const char *text = sysbox_buf_data(config), *args = strstr(text, "[\"/sbin/init\"]");
    SAY(args != NULL && strlen(text) < sizeof good - 200);
    snprintf(good, sizeof good, "%.*s[\"sleep\", \"600\"]%s", (int)(args - text), text, args + strlen("[\"/sbin/init\"]"));
    /* A setting that the library changes, and says so. */
    char *linux_section = strstr(good, "\"linux\":{");
    const char *sysctl = "\"sysctl\":{\"net.ipv4.ping_group_range\":\"0 2147483647\"},";
    SAY(linux_section != NULL);
    linux_section += strlen("\"linux\":{");
    memmove(linux_section + strlen(sysctl), linux_section, strlen(linux_section) + 1);
    memcpy(linux_section, sysctl, strlen(sysctl));
    configurations(context, good);
    if (all) one_container(context, good);
    parts(context, argv[1], argv[2], all);
  }
  sysbox_buf_free(config);
  sysbox_context_free(context);
  SAY(heard > 0 || !all);
  GOOD(sysbox_log_set(SYSBOX_LOG_DEBUG, NULL, NULL, &err));
  printf("%d failures\n", failures);
  return failures != 0;
}
