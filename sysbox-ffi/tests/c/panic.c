/* panic STATE_DIR TREE - a panic inside comes out as a status, and everything goes on without the handle that it came from. */
#include <stdio.h>
#include <string.h>
#include <sysbox.h>
#include <unistd.h>

sysbox_status_t sysbox_test_panic(const sysbox_container_t *container, sysbox_error_t **err);

#define IS(wanted, call)                                                                                   \
  do {                                                                                                     \
    sysbox_status_t status = call;                                                                         \
    if (status != (wanted)) return printf("%s: %s: %s\n", #call, sysbox_status_name(status), sysbox_error_message(err)), 1; \
    if (status) printf("%s\n", sysbox_error_message(err));                                                 \
    sysbox_error_free(err);                                                                                \
    err = NULL;                                                                                            \
  } while (0)

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  sysbox_error_t *err = NULL;
  sysbox_context_t *context = NULL;
  sysbox_container_t *c = NULL, *again = NULL;
  sysbox_buf_t *buf = NULL;
  int32_t n = 0;
  sysbox_context_options_t o = SYSBOX_CONTEXT_OPTIONS_INIT;
  o.state_dir = argv[1];
  IS(SYSBOX_OK, sysbox_context_new(&o, &context, &err));
  char config[4096], id[32];
  snprintf(id, sizeof id, "panic-%d", (int)getpid());
  snprintf(config, sizeof config,
           "{\"ociVersion\": \"1.2.0\", \"root\": {\"path\": \"%s\"}, \"process\": {\"cwd\": \"/\", \"user\": {\"uid\": 0, \"gid\": 0},"
           " \"args\": [\"/bin/sleep\", \"100\"]}, \"linux\": {\"namespaces\": [{\"type\": \"user\"}, {\"type\": \"pid\"},"
           " {\"type\": \"network\"}, {\"type\": \"ipc\"}, {\"type\": \"uts\"}, {\"type\": \"mount\"}, {\"type\": \"cgroup\"}]}}",
           argv[2]);
  IS(SYSBOX_OK, sysbox_container_create(context, id, (const uint8_t *)config, strlen(config), NULL, NULL, &c, &err));
  IS(SYSBOX_OK, sysbox_container_start(c, NULL, &err));
  if (sysbox_test_panic(c, NULL) != SYSBOX_ERR_PANIC) return 1;
  IS(SYSBOX_ERR_POISONED, sysbox_test_panic(c, &err));
  IS(SYSBOX_ERR_POISONED, sysbox_container_state(c, &buf, &err));
  IS(SYSBOX_ERR_POISONED, sysbox_container_kill(c, 9, &err));
  IS(SYSBOX_ERR_POISONED, sysbox_container_wait(c, NULL, &n, NULL, &err));
  IS(SYSBOX_ERR_POISONED, sysbox_container_delete(c, NULL, &err));
  IS(SYSBOX_OK, sysbox_container_open(context, id, &again, &err));
  IS(SYSBOX_ERR_PANIC, sysbox_test_panic(again, &err));
  sysbox_container_free(again);
  sysbox_container_free(c);
  IS(SYSBOX_OK, sysbox_container_open(context, id, &again, &err));
  sysbox_delete_options_t force = SYSBOX_DELETE_OPTIONS_INIT;
  force.force = 1;
  IS(SYSBOX_OK, sysbox_container_delete(again, &force, &err));
  sysbox_container_free(again);
  sysbox_context_free(context);
  puts("alive");
  return 0;
}
