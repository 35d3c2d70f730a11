package capi

// #include <sysbox.h>
import "C"

import "unsafe"

// IDMap is a sysbox_idmap_t.
type IDMap struct{ c *C.sysbox_idmap_t }

// IDRange is a sysbox_id_range_t.
type IDRange struct{ Inside, Outside, Count uint32 }

// IDMapNew makes a map, to be freed with [IDMapFree].
func IDMapNew(ranges []IDRange) (IDMap, *Error) {
	list := make([]C.sysbox_id_range_t, len(ranges))
	for i, r := range ranges {
		list[i] = C.sysbox_id_range_t{inside: C.uint32_t(r.Inside), outside: C.uint32_t(r.Outside), count: C.uint32_t(r.Count)}
	}
	var out *C.sysbox_idmap_t
	e := call(func(err **C.sysbox_error_t) C.sysbox_status_t {
		return C.sysbox_idmap_new(unsafe.SliceData(list), C.size_t(len(list)), &out, err)
	})
	return IDMap{out}, e
}

// IDMapParse reads a map, to be freed with [IDMapFree].
func IDMapParse(text string) (IDMap, *Error) {
	var t texts
	c := t.of("text", text)
	var out *C.sysbox_idmap_t
	e := t.call(func(err **C.sysbox_error_t) C.sysbox_status_t { return C.sysbox_idmap_parse(c, &out, err) })
	return IDMap{out}, e
}

// IDMapText is the text of a map.
func IDMapText(m IDMap) ([]byte, *Error) {
	var t texts
	return t.buffer(func(out **C.sysbox_buf_t, err **C.sysbox_error_t) C.sysbox_status_t {
		return C.sysbox_idmap_text(m.c, out, err)
	})
}

// IDMapToOutside is what an ID of the user namespace is outside.
func IDMapToOutside(m IDMap, inside uint32) (uint32, *Error) {
	var out C.uint32_t
	e := call(func(err **C.sysbox_error_t) C.sysbox_status_t {
		return C.sysbox_idmap_to_outside(m.c, C.uint32_t(inside), &out, err)
	})
	return uint32(out), e
}

// IDMapToInside is what an ID from outside is in the user namespace.
func IDMapToInside(m IDMap, outside uint32) (uint32, *Error) {
	var out C.uint32_t
	e := call(func(err **C.sysbox_error_t) C.sysbox_status_t {
		return C.sysbox_idmap_to_inside(m.c, C.uint32_t(outside), &out, err)
	})
	return uint32(out), e
}

// IDMapFree frees a map.
func IDMapFree(m IDMap) { C.sysbox_idmap_free(m.c) }

// SubidAllocate takes a range of IDs. Both maps are to be freed with [IDMapFree].
func SubidAllocate(c Context, owner string) (uid, gid IDMap, e *Error) {
	var t texts
	dir := t.of("owner", owner)
	e = t.call(func(err **C.sysbox_error_t) C.sysbox_status_t {
		return C.sysbox_subid_allocate(c.c, dir, &uid.c, &gid.c, err)
	})
	return uid, gid, e
}

// SubidRelease gives a range back.
func SubidRelease(c Context, owner string) *Error {
	var t texts
	dir := t.of("owner", owner)
	return t.call(func(err **C.sysbox_error_t) C.sysbox_status_t { return C.sysbox_subid_release(c.c, dir, err) })
}

// SubidList lists all ranges that are taken.
func SubidList(c Context) ([]byte, *Error) {
	var t texts
	return t.buffer(func(out **C.sysbox_buf_t, err **C.sysbox_error_t) C.sysbox_status_t {
		return C.sysbox_subid_list(c.c, out, err)
	})
}

// UsernsNew makes a user namespace, a new descriptor.
func UsernsNew(c Context, uid, gid IDMap) (int32, *Error) {
	var fd C.int32_t
	e := call(func(err **C.sysbox_error_t) C.sysbox_status_t {
		return C.sysbox_userns_new(c.c, uid.c, gid.c, &fd, err)
	})
	return int32(fd), e
}

// MountIDMapped makes an ID-mapped mount, a new descriptor.
func MountIDMapped(path string, userns int32, attributes uint64, recursive bool) (int32, *Error) {
	var t texts
	p := t.of("path", path)
	options := C.sysbox_mount_options_t{size: C.sizeof_sysbox_mount_options_t, attributes: C.uint64_t(attributes)}
	if recursive {
		options.recursive = 1
	}
	var fd C.int32_t
	e := t.call(func(err **C.sysbox_error_t) C.sysbox_status_t {
		return C.sysbox_mount_idmapped(p, C.int32_t(userns), &options, &fd, err)
	})
	return int32(fd), e
}
