package sysbox

import (
	"context"
	"encoding/json"
	"os"
	"runtime"
	"syscall"

	"sysbox.example/sysbox/internal/capi"
)

// Container is one container. Any number of goroutines may use it, and kill it while others wait for it. It says what the container is when
// it is asked: others may start, pause and delete it.
type Container struct {
	h  *handle[capi.Container]
	id string
}

func newContainer(p capi.Container) *Container {
	c := &Container{newHandle(p, capi.ContainerFree), capi.ContainerID(p)}
	guard(c, c.h, "Container "+c.id)
	return c
}

// Close frees what this process holds of the container: some descriptors. Nothing happens to the container. Calls that run go on, but for
// Wait, which ends; later ones fail with [os.ErrClosed]. Closing it again does nothing.
func (c *Container) Close() error {
	c.h.close()
	return nil
}

// ID is its name.
func (c *Container) ID() string { return c.id }

// Start lets its program run. It returns when that has been executed and the poststart hooks are done.
//
// If the context ends, the container is left created if the start had not begun, and otherwise stopped. It is still to be deleted.
func (c *Container) Start(ctx context.Context) error {
	return c.h.within(ctx, "start "+c.id, capi.ContainerStart)
}

// Wait waits until its init has ended, and says how. Any number of goroutines may wait; no thread does meanwhile. If init is a child of this
// process, it is reaped. If somebody else has reaped it (as the kernel does where SIGCHLD is ignored), or it is no child of this process, the
// kernel is asked, which can tell from Linux 6.15 on; the error is [ErrUnsupported] if the exit status is lost. Of another process's child it
// tells when that process has reaped it, which is waited for, and not before.
//
// A container that powers off ends by SIGINT, one that reboots by SIGHUP.
func (c *Container) Wait(ctx context.Context) (Exit, error) {
	op := "wait for " + c.id
	if !c.h.hold() {
		return Exit{}, closedError(op)
	}
	defer c.h.drop()
	// As in Child.Wait.
	defer runtime.KeepAlive(c)
	return waitExit(ctx, c.h.closing, op,
		func(cancel capi.Cancel, timeout int64) (int32, int32, *capi.Error) {
			return capi.ContainerWait(c.h.p, cancel, timeout)
		},
		func() (int32, *capi.Error) { return capi.ContainerPid(c.h.p) })
}

// Kill sends a signal to its init. pid 1 gets only signals that it handles, SIGKILL and SIGSTOP. 0 only looks whether it could be sent.
func (c *Container) Kill(s syscall.Signal) error {
	return c.h.do("kill "+c.id, func(p capi.Container) *capi.Error { return capi.ContainerKill(p, int32(s)) })
}

// KillAll sends a signal to every process of it, those of containers inside included.
func (c *Container) KillAll(s syscall.Signal) error {
	return c.h.do("kill all of "+c.id, func(p capi.Container) *capi.Error { return capi.ContainerKillAll(p, int32(s)) })
}

// Pause freezes all its processes, and waits, for seconds at most, until they are frozen.
func (c *Container) Pause() error { return c.h.do("pause "+c.id, capi.ContainerPause) }

// Resume lets frozen processes go on.
func (c *Container) Resume() error { return c.h.do("resume "+c.id, capi.ContainerResume) }

// Update changes its limits: those that are given; the others stay. They are a JSON object as linux.resources of an OCI config.json.
func (c *Container) Update(resources []byte) error {
	return c.h.do("update "+c.id, func(p capi.Container) *capi.Error { return capi.ContainerUpdate(p, nonNil(resources)) })
}

// State is its state just now.
func (c *Container) State() (State, error) {
	return document[State](c.h, "state of "+c.id, capi.ContainerState)
}

// Stats is what it uses just now.
func (c *Container) Stats() (Stats, error) {
	return document[Stats](c.h, "stats of "+c.id, capi.ContainerStats)
}

// Processes are the pids of all its processes, as the host numbers them, those of containers inside included.
func (c *Container) Processes() ([]int, error) {
	return document[[]int](c.h, "processes of "+c.id, capi.ContainerProcesses)
}

// Config is the configuration that it was made from, whole: an OCI config.json.
func (c *Container) Config() (json.RawMessage, error) {
	return do1(c.h, "configuration of "+c.id, func(p capi.Container) (json.RawMessage, *capi.Error) {
		doc, e := capi.ContainerConfig(p)
		return doc, e
	})
}

// DeleteOptions are how a container is deleted.
type DeleteOptions struct {
	// Force: also if it is running, paused or damaged.
	Force bool
}

// Delete takes it away: processes, control groups, IDs, state. Its exit status is lost unless it was waited for. The Container is still to
// be closed.
//
// If the context ends, nothing has changed if the deletion had not begun; otherwise it goes on where it was when it is called again.
func (c *Container) Delete(ctx context.Context, o DeleteOptions) error {
	return c.h.within(ctx, "delete "+c.id, func(p capi.Container, cancel capi.Cancel) *capi.Error {
		return capi.ContainerDelete(p, o.Force, cancel)
	})
}

// Pid is the pid of its init, as the host numbers processes.
func (c *Container) Pid() (int, error) {
	pid, err := do1(c.h, "pid of "+c.id, capi.ContainerPid)
	return int(pid), err
}

// Pidfd is a new descriptor of its init (pidfd_open(2)), to be closed by the caller.
func (c *Container) Pidfd() (*os.File, error) {
	fd, err := do1(c.h, "pidfd of "+c.id, capi.ContainerPidfd)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "pidfd of "+c.id), nil
}

// nonNil: no document is a document without content, not the absence of an argument.
func nonNil(doc []byte) []byte {
	if doc == nil {
		return []byte{}
	}
	return doc
}
