package sysbox

import (
	"io/fs"

	"sysbox.example/sysbox/internal/capi"
)

// Nodes is what a container sees in /proc and /sys where the kernel shows the host, or refuses to be written.
type Nodes struct {
	Monitor Monitor `json:"monitor"`
	Nodes   []Node  `json:"nodes"`
}

// Monitor is the process that serves a container's live nodes.
type Monitor struct {
	Status string `json:"status"` // none, serves, stuck or dead
	Pid    int    `json:"pid"`    // 0 if there is none
}

// Node is one file or directory.
type Node struct {
	Path string `json:"path"`
	Kind string `json:"kind"` // stored, live, empty or hidden
	// Now is where what is read comes from: stored, monitor, empty, kernel, mounted or absent.
	Now string `json:"now"`
	// Value is what the container's root reads, up to 4 KiB; nil if that cannot be told.
	Value *string `json:"value"`
	// Accepted says whether the kernel would take the value; nil if that cannot be told.
	Accepted *bool  `json:"accepted"`
	Note     string `json:"note"`
}

// Nodes is what the container sees there, and what its root reads. The error is [ErrBusy] if a file system of its own hangs.
func (c *Container) Nodes() (Nodes, error) {
	return document[Nodes](c.h, "nodes of "+c.id, capi.ContainerNodes)
}

// RestartMonitor puts another monitor in the place of one that is stuck or dead. It does nothing if the monitor serves, or if the container
// has no live nodes.
func (c *Container) RestartMonitor() error {
	return c.h.do("restart the monitor of "+c.id, capi.ContainerRestartMonitor)
}

// RenderNode is what a live node, such as /proc/meminfo, shows for a control group, as /proc/PID/cgroup has its path: on its own, without a
// container. The error is [ErrNotFound] if there is no live node of that path.
func RenderNode(cgroup, path string) (string, error) {
	text, e := capi.NodeRender(cgroup, path)
	return string(text), failure(e)
}

// AttachNode puts a file over one of the kernel's below /proc or /sys, for those in the mount namespace of the calling thread: on its own,
// without a container. So it is only for a goroutine that is locked to its thread, which has a mount namespace of its own
// (unshare(2) with CLONE_FS, then CLONE_NEWNS), and ends so. It does nothing where the kernel has no such file, and, if the mode lets
// anybody write, where the caller may write the kernel's. The file belongs to the caller, and goes by umount(2).
func AttachNode(path string, text []byte, mode fs.FileMode) error {
	return failure(capi.NodeAttach(path, text, uint32(mode)))
}
