package capi

/*
#include <sysbox.h>

typedef const char sysbox_go_text;
extern void sysboxGoLog(void *user, int32_t level, sysbox_go_text *target, sysbox_go_text *message);
*/
import "C"

import (
	"sync"
	"sync/atomic"
	"unsafe"
)

// LogFunc takes a message of the library's. It must not call the library, and must not panic.
type LogFunc func(level int32, target, message string)

var (
	logLock sync.Mutex
	logFunc atomic.Pointer[LogFunc]
)

// LogSet has f called with messages of that level and of more important ones; nil: nothing is called any more. When it returns, the
// previous function is not running.
func LogSet(level int32, f LogFunc) *Error {
	logLock.Lock()
	defer logLock.Unlock()
	callback := C.sysbox_log_fn(C.sysboxGoLog)
	if f == nil {
		callback = nil
	}
	before := logFunc.Load()
	if f != nil {
		logFunc.Store(&f)
	}
	e := call(func(err **C.sysbox_error_t) C.sysbox_status_t {
		return C.sysbox_log_set(C.int32_t(level), callback, nil, err)
	})
	switch {
	case e != nil:
		logFunc.Store(before)
	case f == nil:
		logFunc.Store(nil)
	}
	return e
}

//export sysboxGoLog
func sysboxGoLog(_ unsafe.Pointer, level C.int32_t, target, message *C.sysbox_go_text) {
	if f := logFunc.Load(); f != nil {
		(*f)(int32(level), C.GoString((*C.char)(target)), C.GoString((*C.char)(message)))
	}
}
