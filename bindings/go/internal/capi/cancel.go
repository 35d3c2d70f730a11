package capi

// #include <sysbox.h>
import "C"

// Cancel is a sysbox_cancel_t. The zero one is NULL, which cancels nothing.
type Cancel struct{ c *C.sysbox_cancel_t }

// CancelNew makes one, to be freed with [CancelFree].
func CancelNew() (Cancel, *Error) {
	var out *C.sysbox_cancel_t
	e := call(func(err **C.sysbox_error_t) C.sysbox_status_t { return C.sysbox_cancel_new(&out, err) })
	return Cancel{out}, e
}

// CancelTrigger ends the calls that it was given to. It fails only for NULL.
func CancelTrigger(c Cancel) { C.sysbox_cancel_trigger(c.c) }

// CancelFree frees it. No call that it was given to may be running.
func CancelFree(c Cancel) { C.sysbox_cancel_free(c.c) }
