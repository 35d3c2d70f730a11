package capi

// #include <sysbox.h>
import "C"

// Events is a sysbox_events_t.
type Events struct{ c *C.sysbox_events_t }

// ContainerWatch watches a container. The handle is to be freed with [EventsFree].
func ContainerWatch(c Container) (Events, *Error) {
	var out *C.sysbox_events_t
	e := call(func(err **C.sysbox_error_t) C.sysbox_status_t { return C.sysbox_container_watch(c.c, &out, err) })
	return Events{out}, e
}

// EventsFD is the handle's own descriptor, not to be closed.
func EventsFD(e Events) int32 { return int32(C.sysbox_events_fd(e.c)) }

// EventsNext is the next event, 0 if there is none.
func EventsNext(e Events) (int32, *Error) {
	var event C.int32_t
	err := call(func(err **C.sysbox_error_t) C.sysbox_status_t { return C.sysbox_events_next(e.c, &event, err) })
	return int32(event), err
}

// EventsFree ends a watch.
func EventsFree(e Events) { C.sysbox_events_free(e.c) }
