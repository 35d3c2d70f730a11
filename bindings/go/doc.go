// Package sysbox makes system containers: containers that run Docker, systemd or Kubernetes inside, as root inside and as nobody outside.
//
// It is a Go face of the C library libsysbox, which it finds by pkg-config, and it has no other dependency. Programs that are built with the
// tag sysbox_static have the library in them; others load libsysbox.so. It needs cgo, root, and Linux 5.12; supported from 6.1.
//
//	go build                      # libsysbox.so
//	go build -tags sysbox_static  # libsysbox.a
//	PKG_CONFIG_PATH=/opt/sysbox/lib/pkgconfig go build -a  # of an installation below /opt/sysbox
//
// Go does not notice that what it has built before is of another installation: hence -a.
//
// A [Runtime] makes and finds containers. A [Container] is created, started, waited for and deleted; [Container.Exec] runs further programs
// in it.
//
// # Contexts
//
// Calls that may take long take a context. When it ends, the call is told to give up, and returns when it has cleaned up: within moments, or
// up to ten seconds where the kernel does not let a process die. Each says what has become of its work. The error is both a [Code] and the context's error. Calls without a context
// take milliseconds; [Container.Pause] may take seconds.
//
// # Errors
//
// Errors of the library are of type *[Error]. [errors.Is] compares them with a [Code], such as [ErrNotFound], and with a [syscall.Errno].
//
// # Goroutines and threads
//
// Everything may be used by any number of goroutines at a time. No goroutine is locked to its thread. Waiting for the end of a program, and
// for events, takes no thread.
//
// # The process
//
// The library changes nothing of the process: no signal handlers, working directory, umask, environment, namespaces, and no threads of its
// own. It starts a short-lived program by vfork, so that the size of the process does not matter. A container's init and programs run by
// [Container.Exec] are children of the process. A process that reaps all its children by wait4(-1) may do so: their exit status is found
// all the same, from Linux 6.15 on.
//
// # Close
//
// A [Runtime], [Container], [Child] and [Events] hold descriptors, and are to be closed. Closing does nothing to what they stand for. Those
// that are forgotten are closed some time after the garbage collector finds them, and the logger of [SetLogger] is told.
package sysbox
