package capi

// #include <sysbox.h>
import "C"

// ContainerNodes is what a container sees in /proc and /sys where the kernel shows the host.
func ContainerNodes(c Container) ([]byte, *Error) {
	var t texts
	return t.buffer(func(out **C.sysbox_buf_t, err **C.sysbox_error_t) C.sysbox_status_t {
		return C.sysbox_container_nodes(c.c, out, err)
	})
}

// ContainerRestartMonitor puts another monitor in the place of one that is stuck or dead.
func ContainerRestartMonitor(c Container) *Error {
	return call(func(err **C.sysbox_error_t) C.sysbox_status_t { return C.sysbox_container_restart_monitor(c.c, err) })
}

// NodeRender is what a live node shows for a control group.
func NodeRender(cgroup, path string) ([]byte, *Error) {
	var t texts
	group, node := t.of("cgroup", cgroup), t.of("path", path)
	return t.buffer(func(out **C.sysbox_buf_t, err **C.sysbox_error_t) C.sysbox_status_t {
		return C.sysbox_node_render(group, node, out, err)
	})
}

// NodeAttach puts a file over one of the kernel's, in the mount namespace of the calling thread.
func NodeAttach(path string, text []byte, mode uint32) *Error {
	var t texts
	node := t.of("path", path)
	doc, size := document(text)
	return t.call(func(err **C.sysbox_error_t) C.sysbox_status_t {
		return C.sysbox_node_attach(node, doc, size, C.uint32_t(mode), err)
	})
}
