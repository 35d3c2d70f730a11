/* Compiles as C99, C11 and C++17: the header alone, and every *_INIT in it. */
#include <sysbox.h>
#include <string.h>

#define DEFAULT(type, init)                    \
  do {                                         \
    type given = init, zero;                   \
    memset(&zero, 0, sizeof zero);             \
    zero.size = sizeof zero;                   \
    if (memcmp(&given, &zero, sizeof given) != 0) return 1; \
  } while (0)

int main(void) {
  DEFAULT(sysbox_context_options_t, SYSBOX_CONTEXT_OPTIONS_INIT);
  DEFAULT(sysbox_create_options_t, SYSBOX_CREATE_OPTIONS_INIT);
  DEFAULT(sysbox_exec_options_t, SYSBOX_EXEC_OPTIONS_INIT);
  DEFAULT(sysbox_start_options_t, SYSBOX_START_OPTIONS_INIT);
  DEFAULT(sysbox_wait_options_t, SYSBOX_WAIT_OPTIONS_INIT);
  DEFAULT(sysbox_delete_options_t, SYSBOX_DELETE_OPTIONS_INIT);
  DEFAULT(sysbox_mount_options_t, SYSBOX_MOUNT_OPTIONS_INIT);
  return strcmp(sysbox_version(), SYSBOX_VERSION) != 0 || sysbox_abi_version() != SYSBOX_ABI_VERSION;
}
