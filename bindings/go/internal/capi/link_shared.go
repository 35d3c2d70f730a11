//go:build !sysbox_static

package capi

// #cgo pkg-config: sysbox
import "C"
