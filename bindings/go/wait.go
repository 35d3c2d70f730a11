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
// it says true. It takes the descriptor over, and changes its mode, which is that of all its duplicates.
func poll(ctx, closing context.Context, fd int, look func() bool) error {
	if err := syscall.SetNonblock(fd, true); err != nil {
		syscall.Close(fd)
		return err
	}
	f := os.NewFile(uintptr(fd), "poll")
	defer f.Close()
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

// pidfdOpen is pidfd_open(2): a descriptor of a process that shares nothing with others of it.
func pidfdOpen(pid int) (int, error) {
	const sysPidfdOpen = 434 // on all architectures
	fd, _, errno := syscall.RawSyscall(sysPidfdOpen, uintptr(pid), 0, 0)
	if errno != 0 {
		return -1, os.NewSyscallError("pidfd_open", errno)
	}
	if fd > 2 {
		return int(fd), nil
	}
	defer syscall.Close(int(fd))
	return duplicate(fd)
}

// waitExit waits for an end: wait is of the library, pid of what is waited for.
func waitExit(
	ctx, closing context.Context, op string,
	wait func(c capi.Cancel, timeout int64) (code, signal int32, e *capi.Error), pid func() (int32, *capi.Error),
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
	// The library's own descriptor is for others to read from as well, in the mode that it has.
	if n, none := pid(); none == nil {
		if fd, err := pidfdOpen(int(n)); err == nil {
			// poll looks before it waits: what has not ended then has kept its number till now.
			err := poll(ctx, closing, fd, look)
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
	}
	// It has ended, and its parent, another process, has not reaped it. Or the runtime cannot wait for descriptors of this kind.
	within, stop := context.WithCancel(ctx)
	defer stop()
	defer context.AfterFunc(closing, stop)()
	err := cancelable(within, op, func(c capi.Cancel) *capi.Error {
		code, signal, e = wait(c, 0)
		return e
	})
	switch {
	case err == nil || within.Err() == nil:
	case ctx.Err() != nil:
		return Exit{}, ended(ctx, op, "")
	default:
		return Exit{}, closedError(op)
	}
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
