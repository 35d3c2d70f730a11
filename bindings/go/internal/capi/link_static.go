//go:build sysbox_static

package capi

// The archive comes first and is named in full: -lsysbox alone takes the shared library where both are installed.

// #cgo LDFLAGS: -Wl,--as-needed -l:libsysbox.a
// #cgo pkg-config: --static sysbox
import "C"
