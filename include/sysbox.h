/*
 * sysbox.h - system containers: containers that run Docker, systemd or Kubernetes inside, as root inside and as nobody outside.
 *
 * Made by cbindgen from sysbox-ffi/src; do not edit. `make header` makes it anew.
 *
 * Rules for all functions
 *
 * Needs root on the host, and Linux 5.12; supported from 6.1.
 *
 * Success and failure. A function that can fail returns a sysbox_status_t: SYSBOX_OK, or one of SYSBOX_ERR_*. Results go through
 * pointers marked [out], and are written on success only. The last parameter is `err`: if it is not NULL, *err becomes a new
 * sysbox_error_t on failure, that the caller frees; on success it is left alone, so set it to NULL before. There is no last error
 * of a thread or of the process, and errno means nothing. If the call runs out of memory, the process is aborted.
 *
 * Handles. The types without a definition here are handles. What makes one says how it is freed; freeing NULL does nothing.
 * A NULL handle is SYSBOX_ERR_INVALID_ARGUMENT. Handles do not need each other: they may be freed in any order.
 *
 * Threads. Every function may be called from any thread, and nothing belongs to a thread. A handle may be used by any number of
 * threads at a time; calls with one handle do not wait for each other. Only what frees a handle must be alone with it: no other call
 * may be using it, or begin to.
 *
 * Memory. What goes in is copied: the caller's memory is not used any more when the call returns. What comes out is a handle
 * or a descriptor, which the caller frees or closes, or it is borrowed from a handle, and then valid until that is freed. Nothing is to
 * be freed with free(3).
 *
 * Strings end with NUL, and have at most 4095 bytes before it. Paths are bytes; other strings, and documents, are UTF-8. Documents
 * come with their size, at most 64 MiB.
 *
 * Options. A structure of options begins with its own size, and all other fields zero are the defaults: use the SYSBOX_*_INIT of each,
 * and pass NULL for all defaults. Structures grow at their end with later versions; an older library refuses an option that is set
 * and that it does not know.
 *
 * Descriptors. Those that go in are duplicated and stay the caller's. Those that come out are new, close-on-exec, and the caller's.
 *
 * Calls that block take a sysbox_cancel_t and a timeout in their options. When either ends them, they return SYSBOX_ERR_CANCELED or
 * SYSBOX_ERR_TIMED_OUT, and each says what has become of the work by then. They may take a moment more: to clean up, at most
 * seconds. A timeout below 0 is over at once: create, start, exec and delete fail, a wait only looks. Other calls have no limit of
 * the caller's. What they do themselves takes moments; sysbox_context_check_host, sysbox_userns_new and the part of
 * sysbox_container_update that is systemd's wait a minute at most for the stage program, and fail with SYSBOX_ERR_BUSY then;
 * sysbox_container_pause waits for the kernel's freezer for seconds; sysbox_container_nodes and sysbox_container_restart_monitor
 * look into file systems that the container may have made hang, within times of their own that hold unless somebody stops (SIGSTOP)
 * the stage program.
 *
 * The process. The library changes nothing of it that lasts: no signal handlers, no working directory, umask, environment,
 * namespaces or credentials of any thread, no threads of its own, no subreaper, no constructor that runs when it is loaded, and no
 * output but for the message of a bug (SYSBOX_ERR_PANIC) on standard error. It starts a short-lived program for what needs to be
 * done elsewhere, by vfork, never by fork. For a container with live nodes that program leaves a monitor behind, which ends with the
 * container; the process has it as a child only if it is a subreaper or pid 1. A container's init, and programs run by
 * sysbox_container_exec, are children of the process: it gets a SIGCHLD when they end. Where it ignores SIGCHLD (SIG_IGN, or
 * SA_NOCLDWAIT), the kernel reaps them itself, and how they ended is lost before Linux 6.15.
 *
 * fork(2). A child process that was made by fork may call exec. It must not use the library; the handles are its parent's.
 */


#ifndef SYSBOX_H
#define SYSBOX_H

#include <stddef.h>
#include <stdint.h>

/** Of the header, as numbers; `sysbox_version()` is the library's. */
#define SYSBOX_VERSION_MAJOR 0
#define SYSBOX_VERSION_MINOR 1
#define SYSBOX_VERSION_PATCH 0
#define SYSBOX_VERSION "0.1.0"

/** Options with everything at its default: sysbox_create_options_t o = SYSBOX_CREATE_OPTIONS_INIT; */
#define SYSBOX_CONTEXT_OPTIONS_INIT {sizeof(sysbox_context_options_t), NULL, NULL, NULL, NULL, NULL, 0, 0}
#define SYSBOX_CREATE_OPTIONS_INIT {sizeof(sysbox_create_options_t), 0, 0, 0, 0, NULL, 0, NULL, 0}
#define SYSBOX_EXEC_OPTIONS_INIT {sizeof(sysbox_exec_options_t), 0, 0, 0, 0, NULL, 0, NULL, 0}
#define SYSBOX_START_OPTIONS_INIT {sizeof(sysbox_start_options_t), NULL, 0}
#define SYSBOX_WAIT_OPTIONS_INIT {sizeof(sysbox_wait_options_t), NULL, 0}
#define SYSBOX_DELETE_OPTIONS_INIT {sizeof(sysbox_delete_options_t), 0, 0, NULL, 0}
#define SYSBOX_MOUNT_OPTIONS_INIT {sizeof(sysbox_mount_options_t), 0, 0, 0}


/**
 * It happened in the process that called the library.
 */
#define SYSBOX_STAGE_CALLER 0

/**
 * It happened in the stage program, the privileged short-lived helper.
 */
#define SYSBOX_STAGE_STAGE 1

/**
 * It happened in the container's init, or an exec'd process, before it executed the user's program.
 */
#define SYSBOX_STAGE_INIT 2

/**
 * Nothing has happened.
 */
#define SYSBOX_EVENT_NONE 0

/**
 * Its program was started.
 */
#define SYSBOX_EVENT_STARTED 1

/**
 * It was frozen.
 */
#define SYSBOX_EVENT_PAUSED 2

/**
 * It goes on.
 */
#define SYSBOX_EVENT_RESUMED 3

/**
 * It ran out of memory, and something in it may have been killed.
 */
#define SYSBOX_EVENT_OOM 4

/**
 * Its init has ended.
 */
#define SYSBOX_EVENT_STOPPED 5

/**
 * It was deleted. There is no later event.
 */
#define SYSBOX_EVENT_DELETED 6

/**
 * Something went wrong.
 */
#define SYSBOX_LOG_ERROR 1

/**
 * Something is not as it should be, and the library goes on.
 */
#define SYSBOX_LOG_WARN 2

/**
 * What is done.
 */
#define SYSBOX_LOG_INFO 3

/**
 * Why it is done so: among others, all that a configuration was changed by.
 */
#define SYSBOX_LOG_DEBUG 4

/**
 * Everything.
 */
#define SYSBOX_LOG_TRACE 5

/**
 * The library makes the control groups itself. `linux.cgroupsPath` is a path.
 */
#define SYSBOX_CGROUP_DIRECT 0

/**
 * systemd makes the control groups, as a scope unit for each container. `linux.cgroupsPath` is `slice:prefix:name`.
 */
#define SYSBOX_CGROUP_SYSTEMD 1

/**
 * As a standard stream: /dev/null.
 */
#define SYSBOX_FD_NULL -1

/**
 * Done.
 */
#define SYSBOX_OK 0

/**
 * An argument cannot be: NULL where that is not allowed, a string that is too long or not UTF-8, an unknown number, an option
 * structure of a size that this library does not know.
 */
#define SYSBOX_ERR_INVALID_ARGUMENT 1

/**
 * A document is malformed or contradicts itself.
 */
#define SYSBOX_ERR_INVALID_CONFIG 2

/**
 * A configuration asks for something that would break isolation.
 */
#define SYSBOX_ERR_REFUSED 3

/**
 * There is no container, file, user or ID of that name.
 */
#define SYSBOX_ERR_NOT_FOUND 4

/**
 * A container of that name exists already.
 */
#define SYSBOX_ERR_EXISTS 5

/**
 * The container is not in a state that allows this.
 */
#define SYSBOX_ERR_WRONG_STATE 6

/**
 * What is known of the container cannot be read; it can only be deleted, with force.
 */
#define SYSBOX_ERR_DAMAGED 7

/**
 * The host, or this build of the library, lacks something that is needed.
 */
#define SYSBOX_ERR_UNSUPPORTED 8

/**
 * The pool of subordinate IDs is empty.
 */
#define SYSBOX_ERR_EXHAUSTED 9

/**
 * Somebody else is using it, or something that should have ended has not.
 */
#define SYSBOX_ERR_BUSY 10

/**
 * The program to run does not exist in the container. Shells exit with 127.
 */
#define SYSBOX_ERR_PROGRAM_NOT_FOUND 11

/**
 * The program to run exists and cannot be executed. Shells exit with 126.
 */
#define SYSBOX_ERR_PROGRAM_NOT_EXECUTABLE 12

/**
 * A system call failed: see `sysbox_error_errno`.
 */
#define SYSBOX_ERR_SYSTEM 13

/**
 * The stage program or the container's init spoke nonsense or died.
 */
#define SYSBOX_ERR_PROTOCOL 14

/**
 * The stage program is of another build than this library.
 */
#define SYSBOX_ERR_OTHER_BUILD 15

/**
 * The call's time was over.
 */
#define SYSBOX_ERR_TIMED_OUT 16

/**
 * The call's `sysbox_cancel_t` was triggered.
 */
#define SYSBOX_ERR_CANCELED 17

/**
 * The library has a bug and caught itself. The handle that was used answers `SYSBOX_ERR_POISONED` from now on.
 */
#define SYSBOX_ERR_PANIC 18

/**
 * The handle was in use when the library caught itself at a bug. It can only be freed; the container is not affected, and can
 * be opened again.
 */
#define SYSBOX_ERR_POISONED 19

/**
 * Of the header. A library whose `sysbox_abi_version()` is another number must not be used with it.
 */
#define SYSBOX_ABI_VERSION 1

/**
 * Bytes from the library: a document or a text. Never changes; any thread may read it. Free it with `sysbox_buf_free`, never with
 * free(3).
 */
typedef struct sysbox_buf_t sysbox_buf_t;

/**
 * Ends calls that block, once and for all: it cannot be reset. One may be given to any number of calls, at the same time and one
 * after the other. Free it with `sysbox_cancel_free` when none of them runs any more.
 */
typedef struct sysbox_cancel_t sysbox_cancel_t;

/**
 * A program that runs in a container beside its init, and is a child of this process: it must be waited for, since while it is a
 * zombie the container's init cannot end. Any number of threads may use it at a time.
 */
typedef struct sysbox_child_t sysbox_child_t;

/**
 * One container. Any number of threads may use it at a time, and kill it while others wait for it. It says what the container is when
 * it is asked: other handles and other processes may start, pause and delete it. Freeing it does nothing to the container.
 */
typedef struct sysbox_container_t sysbox_container_t;

/**
 * A state directory with its containers, and how new ones are made. Never changes; any number of threads may use it at a time, and
 * any number of contexts, in any processes, may be on one state directory. Containers do not need the context that they come
 * from: it may be freed before them.
 */
typedef struct sysbox_context_t sysbox_context_t;

/**
 * What went wrong. Never changes; may be handed from thread to thread and read by several at a time. Free it with
 * `sysbox_error_free`.
 */
typedef struct sysbox_error_t sysbox_error_t;

/**
 * A watch on a container. Any number of threads may use it at a time; each event goes to one of them.
 */
typedef struct sysbox_events_t sysbox_events_t;

/**
 * A map that the kernel accepts as /proc/PID/uid_map or gid_map. Never changes; any thread may read it.
 */
typedef struct sysbox_idmap_t sysbox_idmap_t;

/**
 * Result of a function that can fail: `SYSBOX_OK` or one of `SYSBOX_ERR_*`. New codes may come; treat one that you do not know as
 * a failure.
 */
typedef int32_t sysbox_status_t;

/**
 * A descriptor for a program in a container.
 */
typedef struct {
  /**
   * The caller's descriptor. It is duplicated; the caller keeps it.
   */
  int32_t fd;
  /**
   * The number that it gets in the container, from 3 on.
   */
  int32_t number;
} sysbox_fd_t;

/**
 * How a program is run in a container: as in `sysbox_create_options_t`.
 */
typedef struct {
  /**
   * sizeof(sysbox_exec_options_t).
   */
  size_t size;
  /**
   * Standard input. 0: the caller's own. `SYSBOX_FD_NULL`: /dev/null.
   */
  int32_t stdin_fd;
  /**
   * Standard output. 0: the caller's own. `SYSBOX_FD_NULL`: /dev/null.
   */
  int32_t stdout_fd;
  /**
   * Standard error. 0: the caller's own. `SYSBOX_FD_NULL`: /dev/null.
   */
  int32_t stderr_fd;
  /**
   * A connected Unix socket that is sent the terminal's master, if `terminal` is set in the process. 0: none.
   */
  int32_t console_fd;
  /**
   * `fd_count` further descriptors. May be NULL if there are none. Copied.
   */
  const sysbox_fd_t *fds;
  /**
   * How many; at most 240.
   */
  size_t fd_count;
  /**
   * Ends the call early. NULL: nothing does. Must live until the call returns.
   */
  const sysbox_cancel_t *cancel;
  /**
   * Milliseconds after which the call gives up. 0: it has no limit of its own. Below 0: it fails at once.
   */
  int64_t timeout_ms;
} sysbox_exec_options_t;

/**
 * How long to wait. All zero, but for `size`, is the default.
 */
typedef struct {
  /**
   * sizeof(sysbox_wait_options_t).
   */
  size_t size;
  /**
   * Ends the call early. NULL: nothing does. Must live until the call returns.
   */
  const sysbox_cancel_t *cancel;
  /**
   * Milliseconds after which the call gives up. 0: it has no limit of its own. Below 0: it only looks.
   */
  int64_t timeout_ms;
} sysbox_wait_options_t;

/**
 * How a container is made. All zero, but for `size`, is the default. The descriptors are duplicated: the caller keeps its own and
 * may close them as soon as the call returns.
 *
 * A standard stream that is a pipe is given to the container's root (fchown(2)), so that software inside can open it by /dev/stdout.
 */
typedef struct {
  /**
   * sizeof(sysbox_create_options_t).
   */
  size_t size;
  /**
   * Standard input. 0: the caller's own. `SYSBOX_FD_NULL`: /dev/null.
   */
  int32_t stdin_fd;
  /**
   * Standard output. 0: the caller's own. `SYSBOX_FD_NULL`: /dev/null.
   */
  int32_t stdout_fd;
  /**
   * Standard error. 0: the caller's own. `SYSBOX_FD_NULL`: /dev/null.
   */
  int32_t stderr_fd;
  /**
   * A connected Unix socket that is sent the terminal's master (SCM_RIGHTS). Goes with `process.terminal`, and only with it; the
   * terminal takes the place of the three streams. 0: none.
   */
  int32_t console_fd;
  /**
   * `fd_count` further descriptors. May be NULL if there are none. Copied.
   */
  const sysbox_fd_t *fds;
  /**
   * How many; at most 240.
   */
  size_t fd_count;
  /**
   * Ends the call early. NULL: nothing does. Must live until the call returns.
   */
  const sysbox_cancel_t *cancel;
  /**
   * Milliseconds after which the call gives up. 0: it has no limit of its own. Below 0: it fails at once.
   */
  int64_t timeout_ms;
} sysbox_create_options_t;

/**
 * How long a start may take. All zero, but for `size`, is the default.
 */
typedef struct {
  /**
   * sizeof(sysbox_start_options_t).
   */
  size_t size;
  /**
   * Ends the call early. NULL: nothing does. Must live until the call returns.
   */
  const sysbox_cancel_t *cancel;
  /**
   * Milliseconds after which the call gives up. 0: it has no limit of its own. Below 0: it fails at once.
   */
  int64_t timeout_ms;
} sysbox_start_options_t;

/**
 * How a container is deleted. All zero, but for `size`, is the default.
 */
typedef struct {
  /**
   * sizeof(sysbox_delete_options_t).
   */
  size_t size;
  /**
   * Not 0: also if it is running, paused or damaged.
   */
  int32_t force;
  /**
   * Must be 0.
   */
  int32_t reserved;
  /**
   * Ends the call early. NULL: nothing does. Must live until the call returns.
   */
  const sysbox_cancel_t *cancel;
  /**
   * Milliseconds after which the call gives up. 0: it has no limit of its own. Below 0: it fails at once.
   */
  int64_t timeout_ms;
} sysbox_delete_options_t;

/**
 * How a context works. All zero, but for `size`, is the default. Strings are copied.
 */
typedef struct {
  /**
   * sizeof(sysbox_context_options_t).
   */
  size_t size;
  /**
   * Directory with the state of the containers; made when needed, mode 0711. NULL: /run/sysbox.
   */
  const char *state_dir;
  /**
   * The program sysbox-stage of this very build. NULL: the one carried in the library, if there is one
   * (`sysbox_features_json`).
   */
  const char *stage_path;
  /**
   * User whose entries in the two files below are ranges for containers, by name or number; needs no account. NULL: "sysbox".
   */
  const char *subid_user;
  /**
   * See subuid(5). Without an entry for the user a range is used that the file gives to nobody. NULL: /etc/subuid.
   */
  const char *subuid_file;
  /**
   * See subgid(5). NULL: /etc/subgid.
   */
  const char *subgid_file;
  /**
   * IDs that a container gets, of users and of groups each. 0: 65536.
   */
  uint32_t subid_size;
  /**
   * Who makes the control groups: `SYSBOX_CGROUP_*`.
   */
  int32_t cgroup_manager;
} sysbox_context_options_t;

/**
 * Consecutive IDs and what they are outside: one line of /proc/PID/uid_map.
 */
typedef struct {
  /**
   * First ID in the user namespace.
   */
  uint32_t inside;
  /**
   * What it is outside.
   */
  uint32_t outside;
  /**
   * How many.
   */
  uint32_t count;
} sysbox_id_range_t;

/**
 * Takes a message. `target` is the part of the library that it comes from; `message` is text without a newline at its end. Both are
 * UTF-8 and valid during the call only. Comes from any thread that is in a function of the library, and from several at a time. It
 * must not call the library, and must return: no longjmp, no exception.
 */
typedef void (*sysbox_log_fn)(void *user, int32_t level, const char *target, const char *message);

/**
 * How an ID-mapped mount is made. All zero, but for `size`, is the default.
 */
typedef struct {
  /**
   * sizeof(sysbox_mount_options_t).
   */
  size_t size;
  /**
   * `MOUNT_ATTR_*` of <linux/mount.h> to set, such as MOUNT_ATTR_RDONLY. Not MOUNT_ATTR_IDMAP, which goes without saying.
   */
  uint64_t attributes;
  /**
   * Not 0: with all mounts below. Every one of them must be of a file system that can be ID-mapped.
   */
  int32_t recursive;
  /**
   * Must be 0.
   */
  int32_t reserved;
} sysbox_mount_options_t;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The bytes. UTF-8, with a NUL after the last one, so that they are a C string as well. Borrowed until the buffer is freed;
 * empty if `buf` is NULL.
 */
const char *sysbox_buf_data(const sysbox_buf_t *buf);

/**
 * How many bytes there are, without the NUL; 0 if `buf` is NULL.
 */
size_t sysbox_buf_size(const sysbox_buf_t *buf);

/**
 * Frees a buffer. NULL is fine.
 */
void sysbox_buf_free(sysbox_buf_t *buf);

/**
 * Makes one that is not triggered.
 *
 * @param[out] cancel the new handle, to be freed with `sysbox_cancel_free`
 */
sysbox_status_t sysbox_cancel_new(sysbox_cancel_t **cancel, sysbox_error_t **err);

/**
 * Ends the calls that it was given to, those of the future included, with `SYSBOX_ERR_CANCELED`. Again: does nothing. Does not wait
 * until they have returned.
 *
 * Async-signal-safe, and leaves errno as it is. Fails only for NULL.
 */
sysbox_status_t sysbox_cancel_trigger(const sysbox_cancel_t *cancel);

/**
 * Frees it. No call that it was given to may be running. NULL is fine.
 */
void sysbox_cancel_free(sysbox_cancel_t *cancel);

/**
 * Runs a program in a container. Blocks until it has been executed. It gets the namespaces, the capabilities, the seccomp profile and
 * the control group of a process of the container.
 *
 * If it fails, is canceled, or takes too long, the program does not run, or runs no more.
 *
 * @param process a JSON object as `process` of an OCI config.json. Copied
 * @param process_size its size in bytes
 * @param options NULL: all defaults; in particular, the program has the caller's standard streams
 * @param[out] child the new handle, to be freed with `sysbox_child_free`
 * @return `SYSBOX_ERR_WRONG_STATE` unless the container is created or running; `SYSBOX_ERR_PROGRAM_NOT_FOUND`,
 * `SYSBOX_ERR_PROGRAM_NOT_EXECUTABLE`; `SYSBOX_ERR_BUSY` if it does not get to run because its control group is frozen
 */
sysbox_status_t sysbox_container_exec(const sysbox_container_t *container,
                                      const uint8_t *process,
                                      size_t process_size,
                                      const sysbox_exec_options_t *options,
                                      sysbox_child_t **child,
                                      sysbox_error_t **err);

/**
 * Its pid, as the host numbers processes; 0 if `child` is NULL.
 */
int32_t sysbox_child_pid(const sysbox_child_t *child);

/**
 * A descriptor that becomes readable when it ends (pidfd_open(2)), for any event loop.
 *
 * @param[out] pidfd a new descriptor, close-on-exec, that the caller closes
 */
sysbox_status_t sysbox_child_pidfd(const sysbox_child_t *child, int32_t *pidfd, sysbox_error_t **err);

/**
 * Sends it a signal.
 *
 * @param signal a SIG* number
 * @return `SYSBOX_ERR_SYSTEM` with ESRCH if it has ended
 */
sysbox_status_t sysbox_child_kill(const sysbox_child_t *child, int32_t signal, sysbox_error_t **err);

/**
 * Waits until it has ended, says how, and reaps it. As `sysbox_container_wait`.
 *
 * @param options NULL: waits without a limit
 * @param[out] exit_code the exit code; 128 plus the number if a signal ended it. May be NULL
 * @param[out] exit_signal the number of that signal, 0 if it was none. May be NULL
 */
sysbox_status_t sysbox_child_wait(const sysbox_child_t *child,
                                  const sysbox_wait_options_t *options,
                                  int32_t *exit_code,
                                  int32_t *exit_signal,
                                  sysbox_error_t **err);

/**
 * Frees a handle, and reaps the program if it has ended. One that runs goes on running. NULL is fine.
 */
void sysbox_child_free(sysbox_child_t *child);

/**
 * Makes a container whose program waits for `sysbox_container_start`. Blocks until its namespaces, control groups and mounts exist
 * and its `createRuntime` and `createContainer` hooks are done.
 *
 * Its init is a child of this process. `sysbox_container_wait` does not need the SIGCHLD; a process that reaps all its children
 * may do so (see there).
 *
 * If it fails, is canceled, or takes too long, nothing is left behind. If this process is killed meanwhile, `sysbox_container_open`
 * and `sysbox_container_delete` with force, from any process, clean up.
 *
 * @param id its name: 1 to 240 ASCII letters, digits and _ + - . Its control group is /sysbox-NAME unless `linux.cgroupsPath` says
 * otherwise, so that it should be the host's only container of that name
 * @param config an OCI config.json, 1.0 to 1.3. Copied. NULL, with size 0: the one in `bundle`
 * @param config_size its size in bytes
 * @param bundle what relative paths in the configuration are relative to. NULL, if `config` is given: /
 * @param options NULL: all defaults; in particular, the container has the caller's standard streams
 * @param[out] container the new handle, to be freed with `sysbox_container_free`
 * @return `SYSBOX_ERR_EXISTS` for an id in use; `SYSBOX_ERR_INVALID_CONFIG` and `SYSBOX_ERR_REFUSED` for the configuration;
 * `SYSBOX_ERR_PROGRAM_NOT_FOUND`, `SYSBOX_ERR_PROGRAM_NOT_EXECUTABLE`; `SYSBOX_ERR_EXHAUSTED` if there are no IDs; and others
 */
sysbox_status_t sysbox_container_create(const sysbox_context_t *context,
                                        const char *id,
                                        const uint8_t *config,
                                        size_t config_size,
                                        const char *bundle,
                                        const sysbox_create_options_t *options,
                                        sysbox_container_t **container,
                                        sysbox_error_t **err);

/**
 * Finds a container by its name, whoever made it: also one whose making was cut short, and one whose state is damaged.
 *
 * @param[out] container the new handle, to be freed with `sysbox_container_free`
 * @return `SYSBOX_ERR_NOT_FOUND` if there is none
 */
sysbox_status_t sysbox_container_open(const sysbox_context_t *context,
                                      const char *id,
                                      sysbox_container_t **container,
                                      sysbox_error_t **err);

/**
 * Frees a handle. Nothing happens to the container. NULL is fine.
 */
void sysbox_container_free(sysbox_container_t *container);

/**
 * Its name, borrowed until the handle is freed; empty if `container` is NULL.
 */
const char *sysbox_container_id(const sysbox_container_t *container);

/**
 * Lets its program run. Blocks until it has been executed and the `poststart` hooks are done. Any process may do it, not only
 * the creator.
 *
 * One that is canceled, or takes too long, leaves the container created if it had not begun, and otherwise stopped: its init is
 * killed. It is still to be deleted.
 *
 * @param options NULL: all defaults
 * @return `SYSBOX_ERR_WRONG_STATE` unless it is created; `SYSBOX_ERR_PROGRAM_NOT_FOUND`, `SYSBOX_ERR_PROGRAM_NOT_EXECUTABLE`, and
 * those of a `startContainer` hook: the container is stopped then; those of a `poststart` hook: the program runs nevertheless
 */
sysbox_status_t sysbox_container_start(const sysbox_container_t *container,
                                       const sysbox_start_options_t *options,
                                       sysbox_error_t **err);

/**
 * Waits until its init has ended, and says how. If init is a child of this process, it is reaped.
 *
 * Any number of threads may wait with one handle, and again afterwards. Where somebody else has reaped it (a program that calls
 * wait4(-1), or ignores SIGCHLD, say), and where it is no child of this process, the kernel is asked, which can tell from Linux 6.15
 * on. Of another process's child it tells when that process has reaped it, which is waited for, and not before.
 *
 * @param options NULL: waits without a limit
 * @param[out] exit_code the exit code; 128 plus the number if a signal ended it. May be NULL
 * @param[out] exit_signal the number of that signal, 0 if it was none. A container that powers off ends by SIGINT, one that reboots
 * by SIGHUP. May be NULL
 * @return `SYSBOX_ERR_TIMED_OUT` and `SYSBOX_ERR_CANCELED` change nothing; `SYSBOX_ERR_WRONG_STATE` if it had ended before the
 * handle was made; `SYSBOX_ERR_UNSUPPORTED` if its exit status is lost
 */
sysbox_status_t sysbox_container_wait(const sysbox_container_t *container,
                                      const sysbox_wait_options_t *options,
                                      int32_t *exit_code,
                                      int32_t *exit_signal,
                                      sysbox_error_t **err);

/**
 * Sends a signal to its init. As everywhere, pid 1 gets only signals that it handles, SIGKILL and SIGSTOP. Does not wait for the
 * effect.
 *
 * @param signal a SIG* number; 0 only looks whether it could be sent
 * @return `SYSBOX_ERR_WRONG_STATE` if init has ended
 */
sysbox_status_t sysbox_container_kill(const sysbox_container_t *container,
                                      int32_t signal,
                                      sysbox_error_t **err);

/**
 * Sends a signal to every process of it, those of containers inside included. That one of them ends meanwhile is no failure.
 *
 * @param signal a SIG* number
 */
sysbox_status_t sysbox_container_kill_all(const sysbox_container_t *container,
                                          int32_t signal,
                                          sysbox_error_t **err);

/**
 * Freezes all its processes, and waits until they are frozen.
 *
 * @return `SYSBOX_ERR_WRONG_STATE` unless it is created or running
 */
sysbox_status_t sysbox_container_pause(const sysbox_container_t *container, sysbox_error_t **err);

/**
 * Lets frozen processes go on.
 *
 * @return `SYSBOX_ERR_WRONG_STATE` unless it is paused
 */
sysbox_status_t sysbox_container_resume(const sysbox_container_t *container, sysbox_error_t **err);

/**
 * Changes its limits: those that are given; the others stay.
 *
 * @param resources a JSON object as `linux.resources` of an OCI config.json. Devices are not looked at. Copied
 * @param resources_size its size in bytes
 * @return `SYSBOX_ERR_WRONG_STATE` unless it is created, running or paused
 */
sysbox_status_t sysbox_container_update(const sysbox_container_t *container,
                                        const uint8_t *resources,
                                        size_t resources_size,
                                        sysbox_error_t **err);

/**
 * Its state just now.
 *
 * @param[out] json an object as the OCI runtime specification has it ("ociVersion", "id", "status", "pid", "bundle", "annotations"),
 * with "rootfs" and "created" (nanoseconds since 1970, where known). "status" is "creating", "created", "running", "paused",
 * "stopped", or "damaged"; "pid" is there while init lives
 */
sysbox_status_t sysbox_container_state(const sysbox_container_t *container,
                                       sysbox_buf_t **json,
                                       sysbox_error_t **err);

/**
 * What it uses just now, all its processes together, those of containers inside included. Sizes are in bytes, times in
 * nanoseconds.
 *
 * @param[out] json an object with "cpu", "memory", "pids", "io" (each null if its controller is not there) and "hugetlb"
 * @return `SYSBOX_ERR_WRONG_STATE` unless it is created, running or paused
 */
sysbox_status_t sysbox_container_stats(const sysbox_container_t *container,
                                       sysbox_buf_t **json,
                                       sysbox_error_t **err);

/**
 * Its processes, those of containers inside included.
 *
 * @param[out] json an array of pids, as the host numbers processes
 */
sysbox_status_t sysbox_container_processes(const sysbox_container_t *container,
                                           sysbox_buf_t **json,
                                           sysbox_error_t **err);

/**
 * The configuration that it was made from, whole.
 *
 * @param[out] json an OCI config.json
 */
sysbox_status_t sysbox_container_config(const sysbox_container_t *container,
                                        sysbox_buf_t **json,
                                        sysbox_error_t **err);

/**
 * Takes it away: processes, control groups, IDs, state. Its exit status is lost unless it was waited for. The handle stays, to be
 * freed.
 *
 * One that is canceled, or takes too long, has changed nothing if it had not begun; otherwise it goes on where it was when it is
 * called again. `poststop` hooks are cut short, and are no reason for it to fail.
 *
 * @param options NULL: all defaults
 * @return `SYSBOX_ERR_WRONG_STATE` for a running or paused container, `SYSBOX_ERR_DAMAGED` for a damaged one, without force;
 * `SYSBOX_ERR_NOT_FOUND` if it has been deleted; `SYSBOX_ERR_BUSY` while it is being made, or if a process does not die
 */
sysbox_status_t sysbox_container_delete(const sysbox_container_t *container,
                                        const sysbox_delete_options_t *options,
                                        sysbox_error_t **err);

/**
 * The pid of its init, as the host numbers processes.
 *
 * @param[out] pid the number
 * @return `SYSBOX_ERR_WRONG_STATE` if init has ended
 */
sysbox_status_t sysbox_container_pid(const sysbox_container_t *container, int32_t *pid, sysbox_error_t **err);

/**
 * A descriptor of its init that becomes readable when it ends (pidfd_open(2)), for any event loop.
 *
 * @param[out] pidfd a new descriptor, close-on-exec, that the caller closes
 * @return `SYSBOX_ERR_WRONG_STATE` if init had ended when the handle was made, or is not made yet
 */
sysbox_status_t sysbox_container_pidfd(const sysbox_container_t *container,
                                       int32_t *pidfd,
                                       sysbox_error_t **err);

/**
 * Makes a context. Touches nothing but, if the stage program is carried in the library, a memory file that holds a copy of it: one
 * descriptor, close-on-exec, for as long as the context or a container that comes from it lives.
 *
 * @param options NULL: all defaults
 * @param[out] context the new handle, to be freed with `sysbox_context_free`
 * @return `SYSBOX_ERR_UNSUPPORTED` if the library carries no stage program and no path is given, or the host lets no copy of it be
 * executed
 */
sysbox_status_t sysbox_context_new(const sysbox_context_options_t *options,
                                   sysbox_context_t **context,
                                   sysbox_error_t **err);

/**
 * Frees a context. Nothing happens to the containers. NULL is fine.
 */
void sysbox_context_free(sysbox_context_t *context);

/**
 * Tries what containers need of this host, which takes some milliseconds. Leaves nothing behind.
 *
 * @param[out] json an object: "fit" (true if containers can be made) and "probes", an array of objects with "name", "verdict"
 * ("works", "limited" or "missing"), "detail", and, unless it works, "cost": what it means for containers
 */
sysbox_status_t sysbox_context_check_host(const sysbox_context_t *context,
                                          sysbox_buf_t **json,
                                          sysbox_error_t **err);

/**
 * Lists the containers of the state directory, half-made and ended ones too.
 *
 * @param[out] json an array of objects as `sysbox_container_state` gives, sorted by "id"
 */
sysbox_status_t sysbox_context_list(const sysbox_context_t *context,
                                    sysbox_buf_t **json,
                                    sysbox_error_t **err);

/**
 * The plan of a container, as `sysbox_container_create` would carry it out just now: all that would be done, in order. Changes
 * nothing.
 *
 * @param id, config, config_size, bundle as for `sysbox_container_create`
 * @param[out] json an object. Its fields are those of this version of the library
 */
sysbox_status_t sysbox_context_plan(const sysbox_context_t *context,
                                    const char *id,
                                    const uint8_t *config,
                                    size_t config_size,
                                    const char *bundle,
                                    sysbox_buf_t **json,
                                    sysbox_error_t **err);

/**
 * As `sysbox_context_plan`, for people.
 *
 * @param[out] text several lines
 */
sysbox_status_t sysbox_context_plan_text(const sysbox_context_t *context,
                                         const char *id,
                                         const uint8_t *config,
                                         size_t config_size,
                                         const char *bundle,
                                         sysbox_buf_t **text,
                                         sysbox_error_t **err);

/**
 * Writes a configuration for a container: a config.json with all that a system container needs, to change and to give to
 * `sysbox_container_create`. Looks at nothing.
 *
 * @param rootfs directory of the root file system; must be UTF-8
 * @param[out] json the document; `process.args` is ["/sbin/init"]
 */
sysbox_status_t sysbox_config_new(const char *rootfs,
                                  sysbox_buf_t **json,
                                  sysbox_error_t **err);

/**
 * The status that the failed call returned. `SYSBOX_OK` if `error` is NULL.
 */
sysbox_status_t sysbox_error_code(const sysbox_error_t *error);

/**
 * The errno of the system call that failed; 0 if none did, or if `error` is NULL.
 */
int32_t sysbox_error_errno(const sysbox_error_t *error);

/**
 * The process in which it happened: `SYSBOX_STAGE_*`.
 */
int32_t sysbox_error_stage(const sysbox_error_t *error);

/**
 * What was being done, in a few words: the outermost operation that failed. UTF-8, borrowed until the error is freed; empty if
 * `error` is NULL.
 */
const char *sysbox_error_operation(const sysbox_error_t *error);

/**
 * The path that the failed operation was applied to, as bytes; NULL if there was none. Borrowed until the error is freed.
 */
const char *sysbox_error_path(const sysbox_error_t *error);

/**
 * All that is known, for people: the operation, its causes joined with ": ", and the advice in parentheses. UTF-8, borrowed until
 * the error is freed; empty if `error` is NULL.
 */
const char *sysbox_error_message(const sysbox_error_t *error);

/**
 * What can be done about it; NULL if the library does not know. UTF-8, borrowed until the error is freed.
 */
const char *sysbox_error_advice(const sysbox_error_t *error);

/**
 * Frees an error and all that was borrowed from it. NULL is fine.
 */
void sysbox_error_free(sysbox_error_t *error);

/**
 * The name of a status code, as in "SYSBOX_ERR_BUSY"; "unknown status" for a number that is none. Static.
 */
const char *sysbox_status_name(sysbox_status_t status);

/**
 * Watches a container from now on. What this library does to it is seen, from whatever process, and what the kernel does;
 * not what others do to its control groups.
 *
 * @param[out] events the new handle, to be freed with `sysbox_events_free`. It does not need the container's handle
 */
sysbox_status_t sysbox_container_watch(const sysbox_container_t *container,
                                       sysbox_events_t **events,
                                       sysbox_error_t **err);

/**
 * A descriptor that is readable when `sysbox_events_next` should be called, for poll(2), epoll(7) and the like. Borrowed until the
 * handle is freed: not to be read from, and not to be closed. -1 if `events` is NULL.
 */
int32_t sysbox_events_fd(const sysbox_events_t *events);

/**
 * The next event, without waiting for it. To be called until it says `SYSBOX_EVENT_NONE`; only then is the descriptor quiet. Things that
 * come and go between two calls may not be seen.
 *
 * @param[out] event `SYSBOX_EVENT_*`; others may come with later versions
 */
sysbox_status_t sysbox_events_next(const sysbox_events_t *events,
                                   int32_t *event,
                                   sysbox_error_t **err);

/**
 * Ends a watch. NULL is fine.
 */
void sysbox_events_free(sysbox_events_t *events);

/**
 * Makes a map.
 *
 * @param ranges in any order. Copied
 * @param count how many: 1 to 340
 * @param[out] map the new handle, to be freed with `sysbox_idmap_free`
 * @return `SYSBOX_ERR_INVALID_CONFIG` if the kernel would not take it
 */
sysbox_status_t sysbox_idmap_new(const sysbox_id_range_t *ranges,
                                 size_t count,
                                 sysbox_idmap_t **map,
                                 sysbox_error_t **err);

/**
 * Reads a map from text as /proc/PID/uid_map has it.
 *
 * @param[out] map the new handle, to be freed with `sysbox_idmap_free`
 * @return `SYSBOX_ERR_INVALID_CONFIG` if the kernel would not take it
 */
sysbox_status_t sysbox_idmap_parse(const char *text, sysbox_idmap_t **map, sysbox_error_t **err);

/**
 * The text of a map, to be written to /proc/PID/uid_map in one write: sorted, adjoining ranges joined.
 *
 * @param[out] text a line a range
 */
sysbox_status_t sysbox_idmap_text(const sysbox_idmap_t *map, sysbox_buf_t **text, sysbox_error_t **err);

/**
 * What an ID of the user namespace is outside.
 *
 * @param[out] outside the ID
 * @return `SYSBOX_ERR_NOT_FOUND` if it is not mapped
 */
sysbox_status_t sysbox_idmap_to_outside(const sysbox_idmap_t *map,
                                        uint32_t inside,
                                        uint32_t *outside,
                                        sysbox_error_t **err);

/**
 * What an ID from outside is in the user namespace.
 *
 * @param[out] inside the ID
 * @return `SYSBOX_ERR_NOT_FOUND` if it is not mapped
 */
sysbox_status_t sysbox_idmap_to_inside(const sysbox_idmap_t *map,
                                       uint32_t outside,
                                       uint32_t *inside,
                                       sysbox_error_t **err);

/**
 * Frees a map. NULL is fine.
 */
void sysbox_idmap_free(sysbox_idmap_t *map);

/**
 * Has `callback` called with messages of `level` (`SYSBOX_LOG_*`) and of more important ones, instead of what was called before.
 * NULL: nothing is called any more, which is how the library begins. `user` is handed to it.
 *
 * When this returns, the previous callback is not running and will not be called again. Concerns the whole process: it is the only
 * thing in this library that does.
 */
sysbox_status_t sysbox_log_set(int32_t level,
                               sysbox_log_fn callback,
                               void *user,
                               sysbox_error_t **err);

/**
 * Makes a user namespace with these maps, in which there is no process. It lives as long as something refers to it, such as the
 * descriptor, or a mount that was mapped by it. This process stays where it is.
 *
 * @param uid the map of user IDs
 * @param gid the map of group IDs
 * @param[out] userns_fd a new descriptor, close-on-exec, that the caller closes
 */
sysbox_status_t sysbox_userns_new(const sysbox_context_t *context,
                                  const sysbox_idmap_t *uid,
                                  const sysbox_idmap_t *gid,
                                  int32_t *userns_fd,
                                  sysbox_error_t **err);

/**
 * Makes a mount of a directory or file in which IDs on disk appear as those that they are mapped to by a user namespace: 0 as the
 * host's ID of its root. It is attached nowhere: move_mount(2) with MOVE_MOUNT_F_EMPTY_PATH does that, and openat(2) works in it as
 * it is. It goes with its last descriptor, unless it was attached. Needs Linux 5.12 and a file system that supports it.
 *
 * @param path what to mount
 * @param userns_fd a user namespace, not the initial one: from `sysbox_userns_new`, or /proc/PID/ns/user of a container's init
 * @param options NULL: all defaults
 * @param[out] mount_fd a new descriptor, close-on-exec, that the caller closes
 */
sysbox_status_t sysbox_mount_idmapped(const char *path,
                                      int32_t userns_fd,
                                      const sysbox_mount_options_t *options,
                                      int32_t *mount_fd,
                                      sysbox_error_t **err);

/**
 * What a container sees in /proc and /sys where the kernel shows the host, or refuses to be written, and what its root reads there.
 *
 * @param[out] json an object: "monitor" (an object with "status": "none", "serves", "stuck" or "dead", and "pid" if there is one) and
 * "nodes", an array of objects with "path", "kind" ("stored", "live", "empty" or "hidden"), "now" (where what is read comes from:
 * "stored", "monitor", "empty", "kernel", "mounted" or "absent"), "value" (up to 4 KiB, or null), "accepted" (whether the kernel
 * would take the value, or null) and "note"
 * @return `SYSBOX_ERR_WRONG_STATE` if it has ended; `SYSBOX_ERR_BUSY` if a file system of its own hangs
 */
sysbox_status_t sysbox_container_nodes(const sysbox_container_t *container,
                                       sysbox_buf_t **json,
                                       sysbox_error_t **err);

/**
 * Puts another monitor in the place of one that is stuck or dead. Does nothing if it serves, or if the container has no live nodes.
 *
 * @return `SYSBOX_ERR_WRONG_STATE` unless the container is created, running or paused
 */
sysbox_status_t sysbox_container_restart_monitor(const sysbox_container_t *container,
                                                 sysbox_error_t **err);

/**
 * What a live node shows for a control group, whoever reads it: on its own, without a container.
 *
 * @param cgroup its path as /proc/PID/cgroup has it, as in "/system.slice/cron.service"
 * @param path the node, as in "/proc/meminfo"
 * @param[out] text what a reader would see
 * @return `SYSBOX_ERR_NOT_FOUND` if there is no live node of that path
 */
sysbox_status_t sysbox_node_render(const char *cgroup,
                                   const char *path,
                                   sysbox_buf_t **text,
                                   sysbox_error_t **err);

/**
 * Puts a file over one of the kernel's, for those in the mount namespace of the calling thread, which should be one of its own: on its
 * own, without a container. Does nothing where the kernel has no such file, and, if `mode` lets anybody write, where the caller
 * may write the kernel's. It is taken away with umount(2).
 *
 * @param path the kernel's file, below /proc or /sys
 * @param text what it holds. Copied
 * @param text_size how many bytes; at most 4096, UTF-8
 * @param mode permission bits, such as 0444. The file belongs to the caller
 * @return `SYSBOX_ERR_INVALID_CONFIG` for a path that is elsewhere
 */
sysbox_status_t sysbox_node_attach(const char *path,
                                   const uint8_t *text,
                                   size_t text_size,
                                   uint32_t mode,
                                   sysbox_error_t **err);

/**
 * Takes a range of IDs from the host's pool that nobody else has, of the size that the context says: as a container gets them.
 *
 * @param owner a directory that exists for as long as the range is used; it is what the range belongs to. Who has one gets the
 * same again
 * @param[out] uid the map of user IDs, a new handle
 * @param[out] gid the map of group IDs, a new handle
 * @return `SYSBOX_ERR_EXHAUSTED` if there is no room
 */
sysbox_status_t sysbox_subid_allocate(const sysbox_context_t *context,
                                      const char *owner,
                                      sysbox_idmap_t **uid,
                                      sysbox_idmap_t **gid,
                                      sysbox_error_t **err);

/**
 * Gives a range back. That the owner has none is no failure. A range whose owner's directory is gone comes back by itself.
 *
 * @param owner the directory
 */
sysbox_status_t sysbox_subid_release(const sysbox_context_t *context,
                                     const char *owner,
                                     sysbox_error_t **err);

/**
 * All ranges of the host that are taken, containers' and others'.
 *
 * @param[out] json an array of objects with "owner" (its "state_dir", "dev" and "ino"), "maps" ("uid" and "gid", each an array of
 * objects with "inside", "outside" and "count"), and "exclusive": false if a configuration has brought the maps
 */
sysbox_status_t sysbox_subid_list(const sysbox_context_t *context,
                                  sysbox_buf_t **json,
                                  sysbox_error_t **err);

/**
 * The library's version, as in "0.1.0". Static.
 */
const char *sysbox_version(void);

/**
 * The number of the interface: the `SYSBOX_ABI_VERSION` of the header that belongs to the library. It changes when something that
 * exists changes or goes away, not when something is added.
 */
uint32_t sysbox_abi_version(void);

/**
 * What this build of the library can do, as a JSON object: "version", "abi", "build" (which a stage program must have too), "stage"
 * ("carried", or "none" if a path to it must be given), and what an OCI runtime says of itself ("ociVersionMin", "ociVersionMax",
 * "linux"). More may come. Says nothing about the host. Static, UTF-8.
 */
const char *sysbox_features_json(void);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* SYSBOX_H */
