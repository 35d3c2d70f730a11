package sysbox

import (
	"context"
	"encoding/json"
	"os"
	"runtime"
	"syscall"

	"sysbox.example/sysbox/internal/capi"
)

// Child is a program that runs in a container beside its init. It is a child of this process. Any number of goroutines may use it.
type Child struct{ h *handle[capi.Child] }

// Exec runs a program in a container, which must be created or running. It returns when the program has been executed. It gets the
// namespaces, the capabilities, the seccomp profile and the control group of a process of the container.
//
// If it fails or the context ends, the program does not run, or runs no more.
func (c *Container) Exec(ctx context.Context, p Process, o ExecOptions) (*Child, error) {
	doc, err := p.document()
	if err != nil {
		return nil, err
	}
	return c.ExecJSON(ctx, doc, o)
}

// ExecJSON is [Container.Exec] for a JSON object as process of an OCI config.json.
func (c *Container) ExecJSON(ctx context.Context, process []byte, o ExecOptions) (*Child, error) {
	var child capi.Child
	err := c.h.within(ctx, "exec in "+c.id, func(p capi.Container, cancel capi.Cancel) (e *capi.Error) {
		streams, done, e := o.stdio().streams()
		if e != nil {
			return e
		}
		defer done()
		child, e = capi.ContainerExec(p, nonNil(process), streams, cancel)
		return e
	})
	if err != nil {
		return nil, err
	}
	ch := &Child{newHandle(child, freeChild)}
	guard(ch, ch.h, "Child in "+c.id)
	return ch, nil
}

// freeChild sees to it that a program that still runs is reaped when it ends: until then its container's init could not end.
func freeChild(p capi.Child) {
	if _, _, e := capi.ChildWait(p, capi.Cancel{}, -1); e == nil || e.Code != capi.TimedOut {
		capi.ChildFree(p)
		return
	}
	go func() {
		waitChild(context.Background(), context.Background(), p)
		capi.ChildFree(p)
	}()
}

func waitChild(ctx, closing context.Context, p capi.Child) (Exit, error) {
	return waitExit(ctx, closing, "wait for a program",
		func(cancel capi.Cancel, timeout int64) (int32, int32, *capi.Error) {
			return capi.ChildWait(p, cancel, timeout)
		},
		func() (int32, *capi.Error) { return capi.ChildPid(p), nil })
}

// Close frees it. A program that runs goes on running, and is reaped by a goroutine when it ends. Closing it again does nothing.
func (c *Child) Close() error {
	c.h.close()
	return nil
}

// Wait waits until the program has ended, says how, and reaps it, as [Container.Wait] does.
func (c *Child) Wait(ctx context.Context) (Exit, error) {
	if !c.h.hold() {
		return Exit{}, closedError("wait for a program")
	}
	defer c.h.drop()
	// Or the last use of it would be before the wait, and the garbage collector close it.
	defer runtime.KeepAlive(c)
	return waitChild(ctx, c.h.closing, c.h.p)
}

// Kill sends it a signal. The errno is ESRCH if it has ended.
func (c *Child) Kill(s syscall.Signal) error {
	return c.h.do("kill a program", func(p capi.Child) *capi.Error { return capi.ChildKill(p, int32(s)) })
}

// Pid is its pid, as the host numbers processes; 0 after Close.
func (c *Child) Pid() int {
	pid, _ := do1(c.h, "pid of a program", func(p capi.Child) (int, *capi.Error) { return int(capi.ChildPid(p)), nil })
	return pid
}

// Pidfd is a new descriptor of it (pidfd_open(2)), to be closed by the caller.
func (c *Child) Pidfd() (*os.File, error) {
	fd, err := do1(c.h, "pidfd of a program", capi.ChildPidfd)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "pidfd"), nil
}

// DefaultPath is the PATH of a [Process] that is given no environment.
const DefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Process is a program to run in a container: the commoner parts of process of an OCI config.json.
type Process struct {
	// Args are the program and its arguments.
	Args []string `json:"args"`
	// Env is the environment, as NAME=value. nil: PATH, as [DefaultPath]. HOME comes from /etc/passwd inside.
	Env []string `json:"env,omitempty"`
	// Cwd is the working directory. Default: /.
	Cwd string `json:"cwd"`
	// User is who it runs as. Default: root.
	User User `json:"user"`
	// Terminal: on a terminal of its own. Goes with ExecOptions.Console.
	Terminal bool `json:"terminal,omitempty"`
	// NoNewPrivileges: programs that it executes gain nothing by set-user-ID bits.
	NoNewPrivileges bool `json:"noNewPrivileges,omitempty"`
	// Rlimits are resource limits, as in getrlimit(2).
	Rlimits []Rlimit `json:"rlimits,omitempty"`
}

// User is who a program runs as, as numbered inside. Only root has capabilities.
type User struct {
	UID            uint32   `json:"uid"`
	GID            uint32   `json:"gid"`
	Umask          *uint32  `json:"umask,omitempty"`
	AdditionalGIDs []uint32 `json:"additionalGids,omitempty"`
}

// Rlimit is one resource limit.
type Rlimit struct {
	Type string `json:"type"` // RLIMIT_NOFILE and so on
	Soft uint64 `json:"soft"`
	Hard uint64 `json:"hard"`
}

func (p Process) document() ([]byte, error) {
	if p.Cwd == "" {
		p.Cwd = "/"
	}
	if p.Env == nil {
		p.Env = []string{"PATH=" + DefaultPath}
	}
	if p.Args == nil {
		p.Args = []string{}
	}
	return json.Marshal(p)
}
