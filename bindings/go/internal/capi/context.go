package capi

// #include <sysbox.h>
import "C"

// Context is a sysbox_context_t.
type Context struct{ c *C.sysbox_context_t }

// ContextOptions are sysbox_context_options_t; empty is NULL.
type ContextOptions struct {
	StateDir, StagePath, SubidUser, SubuidFile, SubgidFile string
	SubidSize                                              uint32
	CgroupManager                                          int32
}

// ContextNew makes a context, to be freed with [ContextFree].
func ContextNew(o ContextOptions) (Context, *Error) {
	var t texts
	options := C.sysbox_context_options_t{
		size:           C.sizeof_sysbox_context_options_t,
		state_dir:      t.maybe("StateDir", o.StateDir),
		stage_path:     t.maybe("StagePath", o.StagePath),
		subid_user:     t.maybe("SubidUser", o.SubidUser),
		subuid_file:    t.maybe("SubuidFile", o.SubuidFile),
		subgid_file:    t.maybe("SubgidFile", o.SubgidFile),
		subid_size:     C.uint32_t(o.SubidSize),
		cgroup_manager: C.int32_t(o.CgroupManager),
	}
	var out *C.sysbox_context_t
	e := t.call(func(err **C.sysbox_error_t) C.sysbox_status_t {
		return C.sysbox_context_new(&options, &out, err)
	})
	return Context{out}, e
}

// ContextFree frees a context.
func ContextFree(c Context) { C.sysbox_context_free(c.c) }

// ContextCheckHost tries what containers need of this host.
func ContextCheckHost(c Context) ([]byte, *Error) {
	var t texts
	return t.buffer(func(out **C.sysbox_buf_t, err **C.sysbox_error_t) C.sysbox_status_t {
		return C.sysbox_context_check_host(c.c, out, err)
	})
}

// ContextList lists containers.
func ContextList(c Context) ([]byte, *Error) {
	var t texts
	return t.buffer(func(out **C.sysbox_buf_t, err **C.sysbox_error_t) C.sysbox_status_t {
		return C.sysbox_context_list(c.c, out, err)
	})
}

// ContextPlan is the plan of a container as a document.
func ContextPlan(c Context, id string, config []byte, bundle string) ([]byte, *Error) {
	var t texts
	cid, cbundle := t.of("id", id), t.maybe("bundle", bundle)
	doc, size := document(config)
	return t.buffer(func(out **C.sysbox_buf_t, err **C.sysbox_error_t) C.sysbox_status_t {
		return C.sysbox_context_plan(c.c, cid, doc, size, cbundle, out, err)
	})
}

// ContextPlanText is the plan of a container as text.
func ContextPlanText(c Context, id string, config []byte, bundle string) ([]byte, *Error) {
	var t texts
	cid, cbundle := t.of("id", id), t.maybe("bundle", bundle)
	doc, size := document(config)
	return t.buffer(func(out **C.sysbox_buf_t, err **C.sysbox_error_t) C.sysbox_status_t {
		return C.sysbox_context_plan_text(c.c, cid, doc, size, cbundle, out, err)
	})
}

// ConfigNew writes a configuration.
func ConfigNew(rootfs string) ([]byte, *Error) {
	var t texts
	dir := t.of("rootfs", rootfs)
	return t.buffer(func(out **C.sysbox_buf_t, err **C.sysbox_error_t) C.sysbox_status_t {
		return C.sysbox_config_new(dir, out, err)
	})
}
