// Package capi is the C library for Go: one function for each of its exports, with Go's strings, slices and errors. Nothing is decided
// here. It is the only package that imports "C".
//
// Handles are as in sysbox.h: nothing keeps a freed one from being used. Descriptors that come out are the caller's to close.
package capi

/*
#include <stdlib.h>
#include <sysbox.h>

#if SYSBOX_ABI_VERSION != 1
#error "this Go package is for SYSBOX_ABI_VERSION 1: sysbox.h is of another version of the library"
#endif
*/
import "C"

import (
	"fmt"
	"strings"
	"unsafe"
)

// Error is what sysbox_error_t says.
type Error struct {
	Code      int32
	Errno     int32
	Stage     int32
	Operation string
	Path      string
	Message   string
	Advice    string
}

// Of sysbox_status_t, those that this package and its user act upon.
const (
	InvalidArgument = C.SYSBOX_ERR_INVALID_ARGUMENT
	Unsupported     = C.SYSBOX_ERR_UNSUPPORTED
	TimedOut        = C.SYSBOX_ERR_TIMED_OUT
	Canceled        = C.SYSBOX_ERR_CANCELED
)

// FDNull stands for /dev/null as a standard stream.
const FDNull = C.SYSBOX_FD_NULL

// Version is the library's.
func Version() string { return C.GoString(C.sysbox_version()) }

// ABIVersion is the library's, which need not be the header's.
func ABIVersion() uint32 { return uint32(C.sysbox_abi_version()) }

// HeaderABIVersion is that of the header that this was compiled with.
const HeaderABIVersion = C.SYSBOX_ABI_VERSION

// FeaturesJSON is what this build of the library can do.
func FeaturesJSON() string { return C.GoString(C.sysbox_features_json()) }

// StatusName is the name of a status code.
func StatusName(code int32) string { return C.GoString(C.sysbox_status_name(C.sysbox_status_t(code))) }

// otherABI is why the library that was found at run time cannot be used; nil if it can.
var otherABI = checkABI(ABIVersion())

func checkABI(library uint32) *Error {
	if library == HeaderABIVersion {
		return nil
	}
	message := fmt.Sprintf("libsysbox %s has interface %d, and this program was built for interface %d", Version(), library, HeaderABIVersion)
	return &Error{Code: Unsupported, Operation: "use libsysbox", Message: message}
}

// call runs one export and fetches its error.
func call(export func(err **C.sysbox_error_t) C.sysbox_status_t) *Error {
	if otherABI != nil {
		return otherABI
	}
	var e *C.sysbox_error_t
	status := export(&e)
	if status == C.SYSBOX_OK {
		return nil
	}
	if e == nil {
		return &Error{Code: int32(status), Message: StatusName(int32(status))}
	}
	defer C.sysbox_error_free(e)
	return &Error{
		Code:      int32(C.sysbox_error_code(e)),
		Errno:     int32(C.sysbox_error_errno(e)),
		Stage:     int32(C.sysbox_error_stage(e)),
		Operation: C.GoString(C.sysbox_error_operation(e)),
		Path:      C.GoString(C.sysbox_error_path(e)),
		Message:   C.GoString(C.sysbox_error_message(e)),
		Advice:    C.GoString(C.sysbox_error_advice(e)),
	}
}

// texts are C strings for one call.
type texts struct {
	all []*C.char
	bad *Error
}

// of makes one. C would end it at a NUL, and so take another string than was given.
func (t *texts) of(name, s string) *C.char {
	if strings.IndexByte(s, 0) >= 0 {
		t.bad = &Error{Code: InvalidArgument, Operation: name, Message: name + " holds a NUL byte"}
		return nil
	}
	c := C.CString(s)
	t.all = append(t.all, c)
	return c
}

// maybe makes NULL of an empty string.
func (t *texts) maybe(name, s string) *C.char {
	if s == "" {
		return nil
	}
	return t.of(name, s)
}

// call is [call], after which the strings are gone.
func (t *texts) call(export func(err **C.sysbox_error_t) C.sysbox_status_t) *Error {
	defer func() {
		for _, c := range t.all {
			C.free(unsafe.Pointer(c))
		}
		t.all = nil
	}()
	if t.bad != nil {
		return t.bad
	}
	return call(export)
}

// document is one that goes in: NULL if it is nil, which is not the same as empty.
func document(b []byte) (*C.uint8_t, C.size_t) {
	return (*C.uint8_t)(unsafe.SliceData(b)), C.size_t(len(b))
}

// take copies a buffer and frees it.
func take(buf *C.sysbox_buf_t) []byte {
	defer C.sysbox_buf_free(buf)
	size := C.sysbox_buf_size(buf)
	return append(make([]byte, 0, size), unsafe.Slice((*byte)(unsafe.Pointer(C.sysbox_buf_data(buf))), size)...)
}

// buffer is a call that gives a document.
func (t *texts) buffer(export func(out **C.sysbox_buf_t, err **C.sysbox_error_t) C.sysbox_status_t) ([]byte, *Error) {
	var out *C.sysbox_buf_t
	if e := t.call(func(err **C.sysbox_error_t) C.sysbox_status_t { return export(&out, err) }); e != nil {
		return nil, e
	}
	return take(out), nil
}
