package capi

// #include <sysbox.h>
import "C"

import (
	"runtime"
	"unsafe"
)

// Container is a sysbox_container_t.
type Container struct{ c *C.sysbox_container_t }

// Streams are the descriptors for a program in a container: numbers of this process, [FDNull], or 0 as in sysbox.h.
type Streams struct {
	Stdin, Stdout, Stderr, Console int32
	FDs                            []FD
}

// FD is a sysbox_fd_t.
type FD struct{ FD, Number int32 }

// pinned is the array of sysbox_fd_t, which C reads by a pointer in another structure.
func (s Streams) pinned(pin *runtime.Pinner) (*C.sysbox_fd_t, C.size_t) {
	if len(s.FDs) == 0 {
		return nil, 0
	}
	fds := make([]C.sysbox_fd_t, len(s.FDs))
	for i, f := range s.FDs {
		fds[i] = C.sysbox_fd_t{fd: C.int32_t(f.FD), number: C.int32_t(f.Number)}
	}
	p := unsafe.SliceData(fds)
	pin.Pin(p)
	return p, C.size_t(len(fds))
}

// ContainerCreate makes a container. The handle is to be freed with [ContainerFree].
func ContainerCreate(c Context, id string, config []byte, bundle string, s Streams, cancel Cancel) (Container, *Error) {
	var t texts
	var pin runtime.Pinner
	defer pin.Unpin()
	fds, count := s.pinned(&pin)
	options := C.sysbox_create_options_t{
		size:       C.sizeof_sysbox_create_options_t,
		stdin_fd:   C.int32_t(s.Stdin),
		stdout_fd:  C.int32_t(s.Stdout),
		stderr_fd:  C.int32_t(s.Stderr),
		console_fd: C.int32_t(s.Console),
		fds:        fds,
		fd_count:   count,
		cancel:     cancel.c,
	}
	cid, cbundle := t.of("id", id), t.maybe("bundle", bundle)
	doc, size := document(config)
	var out *C.sysbox_container_t
	e := t.call(func(err **C.sysbox_error_t) C.sysbox_status_t {
		return C.sysbox_container_create(c.c, cid, doc, size, cbundle, &options, &out, err)
	})
	return Container{out}, e
}

// ContainerOpen finds a container. The handle is to be freed with [ContainerFree].
func ContainerOpen(c Context, id string) (Container, *Error) {
	var t texts
	cid := t.of("id", id)
	var out *C.sysbox_container_t
	e := t.call(func(err **C.sysbox_error_t) C.sysbox_status_t { return C.sysbox_container_open(c.c, cid, &out, err) })
	return Container{out}, e
}

// ContainerFree frees a handle.
func ContainerFree(c Container) { C.sysbox_container_free(c.c) }

// ContainerID is its name.
func ContainerID(c Container) string { return C.GoString(C.sysbox_container_id(c.c)) }

// ContainerStart lets its program run.
func ContainerStart(c Container, cancel Cancel) *Error {
	options := C.sysbox_start_options_t{size: C.sizeof_sysbox_start_options_t, cancel: cancel.c}
	return call(func(err **C.sysbox_error_t) C.sysbox_status_t { return C.sysbox_container_start(c.c, &options, err) })
}

// ContainerWait waits for its end. timeout is in milliseconds; 0 is none, below 0 only looks.
func ContainerWait(c Container, cancel Cancel, timeout int64) (code, signal int32, e *Error) {
	options := C.sysbox_wait_options_t{size: C.sizeof_sysbox_wait_options_t, cancel: cancel.c, timeout_ms: C.int64_t(timeout)}
	var exitCode, exitSignal C.int32_t
	e = call(func(err **C.sysbox_error_t) C.sysbox_status_t {
		return C.sysbox_container_wait(c.c, &options, &exitCode, &exitSignal, err)
	})
	return int32(exitCode), int32(exitSignal), e
}

// ContainerKill sends a signal to its init.
func ContainerKill(c Container, signal int32) *Error {
	return call(func(err **C.sysbox_error_t) C.sysbox_status_t {
		return C.sysbox_container_kill(c.c, C.int32_t(signal), err)
	})
}

// ContainerKillAll sends a signal to every process of it.
func ContainerKillAll(c Container, signal int32) *Error {
	return call(func(err **C.sysbox_error_t) C.sysbox_status_t {
		return C.sysbox_container_kill_all(c.c, C.int32_t(signal), err)
	})
}

// ContainerPause freezes its processes.
func ContainerPause(c Container) *Error {
	return call(func(err **C.sysbox_error_t) C.sysbox_status_t { return C.sysbox_container_pause(c.c, err) })
}

// ContainerResume lets frozen processes go on.
func ContainerResume(c Container) *Error {
	return call(func(err **C.sysbox_error_t) C.sysbox_status_t { return C.sysbox_container_resume(c.c, err) })
}

// ContainerUpdate changes its limits.
func ContainerUpdate(c Container, resources []byte) *Error {
	doc, size := document(resources)
	return call(func(err **C.sysbox_error_t) C.sysbox_status_t {
		return C.sysbox_container_update(c.c, doc, size, err)
	})
}

// ContainerState is its state just now.
func ContainerState(c Container) ([]byte, *Error) {
	var t texts
	return t.buffer(func(out **C.sysbox_buf_t, err **C.sysbox_error_t) C.sysbox_status_t {
		return C.sysbox_container_state(c.c, out, err)
	})
}

// ContainerStats is what it uses just now.
func ContainerStats(c Container) ([]byte, *Error) {
	var t texts
	return t.buffer(func(out **C.sysbox_buf_t, err **C.sysbox_error_t) C.sysbox_status_t {
		return C.sysbox_container_stats(c.c, out, err)
	})
}

// ContainerProcesses are its pids.
func ContainerProcesses(c Container) ([]byte, *Error) {
	var t texts
	return t.buffer(func(out **C.sysbox_buf_t, err **C.sysbox_error_t) C.sysbox_status_t {
		return C.sysbox_container_processes(c.c, out, err)
	})
}

// ContainerConfig is the configuration that it was made from.
func ContainerConfig(c Container) ([]byte, *Error) {
	var t texts
	return t.buffer(func(out **C.sysbox_buf_t, err **C.sysbox_error_t) C.sysbox_status_t {
		return C.sysbox_container_config(c.c, out, err)
	})
}

// ContainerDelete takes it away.
func ContainerDelete(c Container, force bool, cancel Cancel) *Error {
	options := C.sysbox_delete_options_t{size: C.sizeof_sysbox_delete_options_t, cancel: cancel.c}
	if force {
		options.force = 1
	}
	return call(func(err **C.sysbox_error_t) C.sysbox_status_t { return C.sysbox_container_delete(c.c, &options, err) })
}

// ContainerPid is the pid of its init.
func ContainerPid(c Container) (int32, *Error) {
	var pid C.int32_t
	e := call(func(err **C.sysbox_error_t) C.sysbox_status_t { return C.sysbox_container_pid(c.c, &pid, err) })
	return int32(pid), e
}

// ContainerPidfd is a new descriptor of its init.
func ContainerPidfd(c Container) (int32, *Error) {
	var fd C.int32_t
	e := call(func(err **C.sysbox_error_t) C.sysbox_status_t { return C.sysbox_container_pidfd(c.c, &fd, err) })
	return int32(fd), e
}
