package sysbox

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"sysbox.example/sysbox/internal/capi"
)

// Code says what kind of failure an error is. It is an error itself, for [errors.Is]:
//
//	if errors.Is(err, sysbox.ErrNotFound) { ... }
//
// [ErrNotFound] is also [fs.ErrNotExist], and [ErrExists] is [fs.ErrExist]. Others may come with later versions of the library.
type Code int32

// Why calls fail.
const (
	ErrInvalidArgument      Code = 1  // an argument cannot be
	ErrInvalidConfig        Code = 2  // a document is malformed or contradicts itself
	ErrRefused              Code = 3  // a configuration asks for something that would break isolation
	ErrNotFound             Code = 4  // there is no container, file, user or ID of that name
	ErrExists               Code = 5  // a container of that name exists already
	ErrWrongState           Code = 6  // the container is not in a state that allows this
	ErrDamaged              Code = 7  // what is known of the container cannot be read; it can only be deleted, with force
	ErrUnsupported          Code = 8  // the host, or this build of the library, lacks something
	ErrExhausted            Code = 9  // the pool of subordinate IDs is empty
	ErrBusy                 Code = 10 // somebody else is using it, or something that should have ended has not
	ErrProgramNotFound      Code = 11 // the program to run does not exist in the container; shells exit with 127
	ErrProgramNotExecutable Code = 12 // the program to run cannot be executed; shells exit with 126
	ErrSystem               Code = 13 // a system call failed: see Error.Errno
	ErrProtocol             Code = 14 // the stage program or the container's init spoke nonsense or died
	ErrOtherBuild           Code = 15 // the stage program is of another build than the library
	ErrTimedOut             Code = 16 // the context's deadline has passed
	ErrCanceled             Code = 17 // the context was canceled
	ErrPanic                Code = 18 // the library has a bug; the handle answers ErrPoisoned from now on
	ErrPoisoned             Code = 19 // the handle was in use when the library had ErrPanic; it can only be closed
)

// Error is the name that C programs know it by.
func (c Code) Error() string { return capi.StatusName(int32(c)) }

// Is makes [errors.Is] know it by the names of package fs.
func (c Code) Is(target error) bool {
	return c == ErrNotFound && target == fs.ErrNotExist || c == ErrExists && target == fs.ErrExist
}

// Stage is the process in which something went wrong.
type Stage int32

// Where things go wrong.
const (
	InCaller Stage = 0 // this process
	InStage  Stage = 1 // the stage program, a short-lived privileged helper
	InInit   Stage = 2 // the container's init, or an exec'd process, before it executed the user's program
)

func (s Stage) String() string {
	switch s {
	case InCaller:
		return "caller"
	case InStage:
		return "stage"
	case InInit:
		return "init"
	}
	return fmt.Sprintf("stage %d", int32(s))
}

// Error is what the library says of a failure. [errors.Is] compares it with a [Code], with the [syscall.Errno], and, if the call's context
// ended it, with [context.Canceled] or [context.DeadlineExceeded].
type Error struct {
	Code    Code
	Errno   syscall.Errno // of the system call that failed; 0 if none did
	Stage   Stage         // where
	Op      string        // the outermost operation that failed, in a few words
	Path    string        // what it was applied to; may be empty
	Message string        // operation, causes and advice, for people
	Advice  string        // what can be done about it; may be empty

	ended error // of the context
}

func (e *Error) Error() string { return "sysbox: " + e.Message }

// Unwrap is the context's error or the errno.
func (e *Error) Unwrap() error {
	switch {
	case e.ended != nil:
		return e.ended
	case e.Errno != 0:
		return e.Errno
	}
	return nil
}

// Is compares with a [Code].
func (e *Error) Is(target error) bool {
	return target == error(e.Code) || e.Code.Is(target)
}

// failure is nil for nil.
func failure(e *capi.Error) error {
	if e == nil {
		return nil
	}
	return &Error{
		Code:    Code(e.Code),
		Errno:   syscall.Errno(e.Errno),
		Stage:   Stage(e.Stage),
		Op:      e.Operation,
		Path:    e.Path,
		Message: e.Message,
		Advice:  e.Advice,
	}
}

// ended is what a call says that its context has ended.
func ended(ctx context.Context, op, message string) error {
	e := &Error{Code: ErrCanceled, Op: op, ended: ctx.Err()}
	if e.ended == context.DeadlineExceeded {
		e.Code = ErrTimedOut
	}
	if message == "" {
		message = op + ": " + e.ended.Error()
	}
	e.Message = message
	return e
}

// closedError is of a call with a handle after its Close.
func closedError(op string) error { return fmt.Errorf("sysbox: %s: %w", op, os.ErrClosed) }

// malformed is of a document of the library's, which is a bug of one of the two.
func malformed(what string, err error) error {
	return &Error{Code: ErrProtocol, Op: "read " + what, Message: fmt.Sprintf("the library's %s makes no sense: %v", what, err)}
}
