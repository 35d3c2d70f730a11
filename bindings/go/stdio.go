package sysbox

import (
	"fmt"
	"os"
	"syscall"

	"sysbox.example/sysbox/internal/capi"
)

// CreateOptions are how a container is made. The zero value is the default. Files stay the caller's, who may close them when the call has
// returned. As in os/exec, those that are given as streams and extra files go into blocking mode.
type CreateOptions struct {
	// Bundle is what relative paths in the configuration are relative to. Default: /.
	Bundle string
	// Stdin, Stdout and Stderr are the program's standard streams; nil is /dev/null. One that is a pipe is given to the container's root
	// (fchown(2)), so that software inside can open it by /dev/stdout.
	Stdin, Stdout, Stderr *os.File
	// Console is a connected Unix socket that is sent the terminal's master, if process.terminal is set; see [Console].
	Console *os.File
	// ExtraFiles are further descriptors: entry i becomes 3+i; nil entries are left out.
	ExtraFiles []*os.File
}

// ExecOptions are how a program is run in a container: as in [CreateOptions].
type ExecOptions struct {
	Stdin, Stdout, Stderr *os.File
	Console               *os.File
	ExtraFiles            []*os.File
}

type stdio struct {
	streams3 [3]*os.File
	console  *os.File
	extra    []*os.File
}

func (o CreateOptions) stdio() stdio {
	return stdio{[3]*os.File{o.Stdin, o.Stdout, o.Stderr}, o.Console, o.ExtraFiles}
}

func (o ExecOptions) stdio() stdio {
	return stdio{[3]*os.File{o.Stdin, o.Stdout, o.Stderr}, o.Console, o.ExtraFiles}
}

// streams duplicates the descriptors, so that nobody closes them during the call, and none is 0, which means something else to the
// library. done closes them.
func (s stdio) streams() (out capi.Streams, done func(), e *capi.Error) {
	var open []int
	done = func() {
		for _, fd := range open {
			syscall.Close(fd)
		}
	}
	dup := func(f *os.File, what string) int32 {
		fd, err := duplicateFile(f)
		if err != nil {
			if e == nil {
				e = &capi.Error{Code: capi.InvalidArgument, Operation: what, Message: fmt.Sprintf("%s: %v", what, err)}
			}
			return capi.FDNull
		}
		open = append(open, fd)
		return int32(fd)
	}
	given := func(f *os.File, what string) int32 {
		if f == nil {
			return capi.FDNull
		}
		// What the program inside reads and writes must not be in non-blocking mode. Fd sees to it.
		f.Fd()
		return dup(f, what)
	}
	out.Stdin, out.Stdout, out.Stderr = given(s.streams3[0], "Stdin"), given(s.streams3[1], "Stdout"), given(s.streams3[2], "Stderr")
	if s.console != nil {
		out.Console = dup(s.console, "Console")
	}
	for i, f := range s.extra {
		if f != nil {
			out.FDs = append(out.FDs, capi.FD{FD: given(f, "ExtraFiles"), Number: int32(3 + i)})
		}
	}
	if e != nil {
		done()
		return capi.Streams{}, nil, e
	}
	return out, done, nil
}

// duplicateFile leaves the file's mode as it is.
func duplicateFile(f *os.File) (fd int, err error) {
	conn, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	if closed := conn.Control(func(of uintptr) { fd, err = duplicate(of) }); closed != nil {
		return -1, closed
	}
	return fd, err
}
