package capi

// #include <sysbox.h>
import "C"

import "runtime"

// Child is a sysbox_child_t.
type Child struct{ c *C.sysbox_child_t }

// ContainerExec runs a program in a container. The handle is to be freed with [ChildFree].
func ContainerExec(c Container, process []byte, s Streams, cancel Cancel) (Child, *Error) {
	var pin runtime.Pinner
	defer pin.Unpin()
	fds, count := s.pinned(&pin)
	options := C.sysbox_exec_options_t{
		size:       C.sizeof_sysbox_exec_options_t,
		stdin_fd:   C.int32_t(s.Stdin),
		stdout_fd:  C.int32_t(s.Stdout),
		stderr_fd:  C.int32_t(s.Stderr),
		console_fd: C.int32_t(s.Console),
		fds:        fds,
		fd_count:   count,
		cancel:     cancel.c,
	}
	doc, size := document(process)
	var out *C.sysbox_child_t
	e := call(func(err **C.sysbox_error_t) C.sysbox_status_t {
		return C.sysbox_container_exec(c.c, doc, size, &options, &out, err)
	})
	return Child{out}, e
}

// ChildPid is its pid.
func ChildPid(c Child) int32 { return int32(C.sysbox_child_pid(c.c)) }

// ChildPidfd is a new descriptor of it.
func ChildPidfd(c Child) (int32, *Error) {
	var fd C.int32_t
	e := call(func(err **C.sysbox_error_t) C.sysbox_status_t { return C.sysbox_child_pidfd(c.c, &fd, err) })
	return int32(fd), e
}

// ChildKill sends it a signal.
func ChildKill(c Child, signal int32) *Error {
	return call(func(err **C.sysbox_error_t) C.sysbox_status_t {
		return C.sysbox_child_kill(c.c, C.int32_t(signal), err)
	})
}

// ChildWait waits for its end and reaps it. timeout is as for [ContainerWait].
func ChildWait(c Child, cancel Cancel, timeout int64) (code, signal int32, e *Error) {
	options := C.sysbox_wait_options_t{size: C.sizeof_sysbox_wait_options_t, cancel: cancel.c, timeout_ms: C.int64_t(timeout)}
	var exitCode, exitSignal C.int32_t
	e = call(func(err **C.sysbox_error_t) C.sysbox_status_t {
		return C.sysbox_child_wait(c.c, &options, &exitCode, &exitSignal, err)
	})
	return int32(exitCode), int32(exitSignal), e
}

// ChildFree frees a handle, and reaps the program if it has ended.
func ChildFree(c Child) { C.sysbox_child_free(c.c) }
