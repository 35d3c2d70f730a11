package sysbox

import (
	"fmt"
	"os"
	"strings"

	"sysbox.example/sysbox/internal/capi"
)

// IDRange is consecutive IDs and what they are outside: one line of /proc/PID/uid_map.
type IDRange struct {
	Inside, Outside, Count uint32
}

// IDMap is a map of user or group IDs, as /proc/PID/uid_map and gid_map have them: 1 to 340 ranges.
type IDMap []IDRange

// ParseIDMap reads a map from text as /proc/PID/uid_map has it. The error is [ErrInvalidConfig] if the kernel would not take it.
func ParseIDMap(text string) (IDMap, error) {
	m, e := capi.IDMapParse(text)
	if e != nil {
		return nil, failure(e)
	}
	return takeMap(m)
}

// Text is the map for /proc/PID/uid_map, to be written in one write: sorted, adjoining ranges joined. The error is [ErrInvalidConfig] if the
// kernel would not take it.
func (m IDMap) Text() (string, error) {
	text, err := with(m, capi.IDMapText)
	return string(text), err
}

// ToOutside is what an ID of the user namespace is outside. The error is [ErrNotFound] if it is not mapped.
func (m IDMap) ToOutside(inside uint32) (uint32, error) {
	return with(m, func(p capi.IDMap) (uint32, *capi.Error) { return capi.IDMapToOutside(p, inside) })
}

// ToInside is what an ID from outside is in the user namespace. The error is [ErrNotFound] if it is not mapped.
func (m IDMap) ToInside(outside uint32) (uint32, error) {
	return with(m, func(p capi.IDMap) (uint32, *capi.Error) { return capi.IDMapToInside(p, outside) })
}

// handle is to be freed.
func (m IDMap) handle() (capi.IDMap, error) {
	ranges := make([]capi.IDRange, len(m))
	for i, r := range m {
		ranges[i] = capi.IDRange(r)
	}
	p, e := capi.IDMapNew(ranges)
	return p, failure(e)
}

func with[T any](m IDMap, f func(capi.IDMap) (T, *capi.Error)) (T, error) {
	p, err := m.handle()
	if err != nil {
		var none T
		return none, err
	}
	defer capi.IDMapFree(p)
	t, e := f(p)
	return t, failure(e)
}

// takeMap makes Go's map of the library's, and frees that.
func takeMap(p capi.IDMap) (IDMap, error) {
	defer capi.IDMapFree(p)
	text, e := capi.IDMapText(p)
	if e != nil {
		return nil, failure(e)
	}
	var m IDMap
	for line := range strings.Lines(string(text)) {
		var r IDRange
		if _, err := fmt.Sscan(line, &r.Inside, &r.Outside, &r.Count); err != nil {
			return nil, malformed("map", err)
		}
		m = append(m, r)
	}
	return m, nil
}

// AllocateIDs takes a range of IDs from the host's pool that nobody else has, as a container gets them. It belongs to a directory that
// exists for as long as it is used: who has one gets the same again. The error is [ErrExhausted] if there is no room.
func (r *Runtime) AllocateIDs(owner string) (uid, gid IDMap, err error) {
	var u, g capi.IDMap
	err = r.h.do("allocate IDs", func(c capi.Context) (e *capi.Error) {
		u, g, e = capi.SubidAllocate(c, owner)
		return e
	})
	if err != nil {
		return nil, nil, err
	}
	uid, err = takeMap(u)
	gid, gidErr := takeMap(g)
	if err == nil {
		err = gidErr
	}
	return uid, gid, err
}

// ReleaseIDs gives a range back. That the owner has none is no failure. A range whose owner's directory is gone comes back by itself.
func (r *Runtime) ReleaseIDs(owner string) error {
	return r.h.do("release IDs", func(c capi.Context) *capi.Error { return capi.SubidRelease(c, owner) })
}

// IDOwner is who has a range of the pool.
type IDOwner struct {
	Owner struct {
		StateDir string `json:"state_dir"`
		Dev      uint64 `json:"dev"`
		Ino      uint64 `json:"ino"`
	} `json:"owner"`
	Maps struct {
		UID IDMap `json:"uid"`
		GID IDMap `json:"gid"`
	} `json:"maps"`
	// Exclusive is false if a configuration has brought the maps.
	Exclusive bool `json:"exclusive"`
}

// ListIDs are all ranges of the host that are taken, containers' and others'.
func (r *Runtime) ListIDs() ([]IDOwner, error) {
	return document[[]IDOwner](r.h, "list the IDs", capi.SubidList)
}

// NewUserNS makes a user namespace with these maps, in which there is no process. It lives as long as something refers to it, such as the
// file, or a mount that was mapped by it. This process stays where it is.
func (r *Runtime) NewUserNS(uid, gid IDMap) (*os.File, error) {
	u, err := uid.handle()
	if err != nil {
		return nil, err
	}
	defer capi.IDMapFree(u)
	g, err := gid.handle()
	if err != nil {
		return nil, err
	}
	defer capi.IDMapFree(g)
	fd, err := do1(r.h, "make a user namespace", func(c capi.Context) (int32, *capi.Error) { return capi.UsernsNew(c, u, g) })
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "user namespace"), nil
}

// MountOptions are how an ID-mapped mount is made.
type MountOptions struct {
	// Attributes are MOUNT_ATTR_* of <linux/mount.h> to set.
	Attributes uint64
	// Recursive: with all mounts below, every one of which must be of a file system that can be ID-mapped.
	Recursive bool
}

// MountIDMapped makes a mount of a directory or file in which IDs on disk appear as those that they are mapped to by a user namespace: 0 as
// the host's ID of its root. It is attached nowhere: move_mount(2) with MOVE_MOUNT_F_EMPTY_PATH does that, and openat(2) works in it as it
// is. It goes with its last descriptor, unless it was attached. The user namespace is of [Runtime.NewUserNS], or /proc/PID/ns/user of a
// container's init.
func MountIDMapped(path string, userns *os.File, o MountOptions) (*os.File, error) {
	conn, err := userns.SyscallConn()
	if err != nil {
		return nil, err
	}
	var fd int32
	var e *capi.Error
	if err := conn.Control(func(ns uintptr) { fd, e = capi.MountIDMapped(path, int32(ns), o.Attributes, o.Recursive) }); err != nil {
		return nil, err
	}
	if e != nil {
		return nil, failure(e)
	}
	return os.NewFile(uintptr(fd), path), nil
}
