"""threads.py LIBRARY STATE_DIR TREE - dlopen from a program with running threads; containers from several of them."""
import ctypes
import json
import os
import sys
import threading

library, state, tree = sys.argv[1:]
stop = threading.Event()
noise = [threading.Thread(target=lambda: [None for _ in iter(stop.is_set, True)]) for _ in range(2)]
for thread in noise:
    thread.start()

sysbox = ctypes.CDLL(library)
pointer, size, text = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p
sysbox.sysbox_error_message.restype = sysbox.sysbox_buf_data.restype = text
sysbox.sysbox_error_message.argtypes = sysbox.sysbox_buf_data.argtypes = [pointer]


class ContextOptions(ctypes.Structure):
    _fields_ = [("size", size), ("state_dir", text), ("stage_path", text), ("subid_user", text), ("subuid_file", text),
                ("subgid_file", text), ("subid_size", ctypes.c_uint32), ("cgroup_manager", ctypes.c_int32)]


class CreateOptions(ctypes.Structure):
    _fields_ = [("size", size)] + [(n, ctypes.c_int32) for n in ("stdin", "stdout", "stderr", "console")] + [
        ("fds", pointer), ("fd_count", size), ("cancel", pointer), ("timeout_ms", ctypes.c_int64)]


def call(name, *arguments):
    err = pointer()
    status = getattr(sysbox, name)(*arguments, ctypes.byref(err))
    if status:
        raise RuntimeError(f"{name}: {status}: {sysbox.sysbox_error_message(err).decode()}")


def new(name, *arguments):
    made = pointer()
    call(name, *arguments, ctypes.byref(made))
    return made


options = ContextOptions(ctypes.sizeof(ContextOptions), state.encode())
context = new("sysbox_context_new", ctypes.byref(options))
config = json.loads(sysbox.sysbox_buf_data(new("sysbox_config_new", tree.encode())))
failures = []


def container(name):
    document = dict(config, process=dict(config["process"], args=["sh", "-c", "exit 9"]))
    body = json.dumps(document).encode()
    streams = CreateOptions(ctypes.sizeof(CreateOptions), -1, -1, -1)
    made = new("sysbox_container_create", context, name.encode(), body, size(len(body)), None, ctypes.byref(streams))
    code = ctypes.c_int32()
    call("sysbox_container_start", made, None)
    call("sysbox_container_wait", made, None, ctypes.byref(code), None)
    call("sysbox_container_delete", made, None)
    sysbox.sysbox_container_free(made)
    if code.value != 9:
        raise RuntimeError(f"{name} ended with {code.value}")


def several(prefix):
    try:
        for n in range(3):
            container(f"{prefix}-{n}")
    except Exception as e:  # A thread's end is silent.
        failures.append(e)


workers = [threading.Thread(target=several, args=(f"threads-{os.getpid()}-{n}",)) for n in range(4)]
for thread in workers:
    thread.start()
for thread in workers:
    thread.join()
stop.set()
sysbox.sysbox_context_free(context)
print(failures or "all well")
sys.exit(bool(failures))
