package sysbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"sysbox.example/sysbox/internal/capi"
)

// Exit is how a program ended.
type Exit struct {
	// Code is the exit code; 128 plus the number if a signal ended it.
	Code int
	// Signal is what ended it; 0 if it was none.
	Signal syscall.Signal
}

func (e Exit) String() string {
	if e.Signal != 0 {
		return "signal: " + e.Signal.String()
	}
	return fmt.Sprintf("exit status %d", e.Code)
}

// poll has the Go runtime wait, with no thread, and calls look whenever the descriptor has become readable or hung up, and once before, until
// it says true.
func poll(ctx, closing context.Context, fd int, look func() bool) error {
	// The runtime waits for descriptors in non-blocking mode only, and the mode of this one is that of all its copies, other people's too.
	set, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("epoll_create1", err)
	}
	if err := syscall.SetNonblock(set, true); err != nil {
		syscall.Close(set)
		return os.NewSyscallError("fcntl", err)
	}
	f := os.NewFile(uintptr(set), "poll")
	defer f.Close()
	if err := syscall.EpollCtl(set, syscall.EPOLL_CTL_ADD, fd, &syscall.EpollEvent{Events: syscall.EPOLLIN}); err != nil {
		return os.NewSyscallError("epoll_ctl", err)
	}
	// Says whether the runtime can wait for it.
	if err := f.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	wake := func() { f.SetReadDeadline(time.Unix(1, 0)) }
	defer context.AfterFunc(ctx, wake)()
	defer context.AfterFunc(closing, wake)()
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	return conn.Read(func(uintptr) bool { return look() })
}

// waitExit waits for an end: wait is of the library, pidfd a new descriptor.
func waitExit(
	ctx, closing context.Context, op string,
	wait func(c capi.Cancel, timeout int64) (code, signal int32, e *capi.Error), pidfd func() (int32, *capi.Error),
) (Exit, error) {
	var code, signal int32
	var e *capi.Error
	look := func() bool {
		code, signal, e = wait(capi.Cancel{}, -1)
		return e == nil || e.Code != capi.TimedOut
	}
	outcome := func() (Exit, error) { return Exit{int(code), syscall.Signal(signal)}, failure(e) }
	if look() {
		return outcome()
	}
	if ctx.Err() != nil {
		return Exit{}, ended(ctx, op, "")
	}
	if fd, none := pidfd(); none == nil {
		err := poll(ctx, closing, int(fd), look)
		syscall.Close(int(fd))
		switch {
		case err == nil:
			return outcome()
		case ctx.Err() != nil:
			return Exit{}, ended(ctx, op, "")
		case closing.Err() != nil:
			return Exit{}, closedError(op)
		case !errors.Is(err, os.ErrNoDeadline):
			return Exit{}, fmt.Errorf("sysbox: %s: %w", op, err)
		}
	}
	// It has ended just now, or the runtime cannot wait for descriptors of this kind.
	err := cancelable(ctx, op, func(c capi.Cancel) (e *capi.Error) {
		code, signal, e = wait(c, 0)
		return e
	})
	return Exit{int(code), syscall.Signal(signal)}, err
}

// duplicate is close-on-exec, and not one of 0, 1 and 2.
func duplicate(fd uintptr) (int, error) {
	n, _, errno := syscall.Syscall(syscall.SYS_FCNTL, fd, syscall.F_DUPFD_CLOEXEC, 3)
	if errno != 0 {
		return -1, os.NewSyscallError("fcntl", errno)
	}
	return int(n), nil
}
