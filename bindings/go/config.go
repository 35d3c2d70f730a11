package sysbox

import (
	"bytes"
	"encoding/json"
	"math"

	"sysbox.example/sysbox/internal/capi"
)

// SystemContainer is a container to be: what differs from one to the next, with everything else as it should be. What it has no field for
// is changed in the document that [SystemContainer.Config] writes.
type SystemContainer struct {
	// Rootfs is the directory of the root file system. It must be owned by root and support ID-mapped mounts.
	Rootfs string
	// Args are program and arguments. Default: /sbin/init.
	Args []string
	// Env is set beside PATH and TERM, as NAME=value; later ones count.
	Env []string
	// Cwd is the working directory, made if missing. Default: /.
	Cwd string
	// User is who the program runs as. Default: root.
	User User
	// Hostname has at most 64 bytes. Default: the creator's.
	Hostname string
	// Terminal: on a terminal. Goes with CreateOptions.Console.
	Terminal bool
	// Readonly: nothing inside can write the root.
	Readonly bool
	// Mounts come after those that every container has.
	Mounts []Mount
	// Cgroup is the path of its control group below each hierarchy's mount. Default: /sysbox-ID.
	Cgroup string
	// Memory is a limit in bytes; 0 is none.
	Memory int64
	// Pids is a limit of processes and threads together; 0 is none.
	Pids int64
	// CPUs is a limit of CPU time: 1.5 is one and a half; 0 is none.
	CPUs float64
	// Annotations are OCI annotations.
	Annotations map[string]string
}

// Mount is an entry of mounts of an OCI config.json.
type Mount struct {
	Destination string   `json:"destination"`
	Type        string   `json:"type,omitempty"`
	Source      string   `json:"source,omitempty"`
	Options     []string `json:"options,omitempty"`
}

// Bind is a file or directory of the host, ID-mapped, with the mounts below it. A writable one lets container root do in that tree what
// the host's root may.
func Bind(source, destination string, readonly bool) Mount {
	options := []string{"rbind", "rprivate", "rw"}
	if readonly {
		options[2] = "ro"
	}
	return Mount{destination, "bind", source, options}
}

// Tmpfs is a tmpfs, with options of mount(8) and tmpfs(5).
func Tmpfs(destination string, options ...string) Mount {
	return Mount{destination, "tmpfs", "tmpfs", options}
}

// Config is the configuration, an OCI config.json for [Runtime.Create]. It looks at nothing.
func (s SystemContainer) Config() ([]byte, error) {
	text, e := capi.ConfigNew(s.Rootfs)
	if e != nil {
		return nil, failure(e)
	}
	var doc map[string]any
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(&doc); err != nil {
		return nil, malformed("configuration", err)
	}
	process, root, linux := object(doc, "process"), object(doc, "root"), object(doc, "linux")
	set(process, "args", s.Args, s.Args != nil)
	if len(s.Env) > 0 {
		env, _ := process["env"].([]any)
		for _, e := range s.Env {
			env = append(env, e)
		}
		process["env"] = latest(env)
	}
	set(process, "cwd", s.Cwd, s.Cwd != "")
	process["user"] = s.User
	set(process, "terminal", true, s.Terminal)
	set(root, "readonly", true, s.Readonly)
	set(doc, "hostname", s.Hostname, s.Hostname != "")
	mounts, _ := doc["mounts"].([]any)
	for _, m := range s.Mounts {
		mounts = append(mounts, m)
	}
	doc["mounts"] = mounts
	set(linux, "cgroupsPath", s.Cgroup, s.Cgroup != "")
	resources := object(linux, "resources")
	set(resources, "memory", map[string]any{"limit": s.Memory}, s.Memory != 0)
	set(resources, "pids", map[string]any{"limit": s.Pids}, s.Pids != 0)
	const period = 100_000
	set(resources, "cpu", map[string]any{"quota": int64(math.Round(s.CPUs * period)), "period": period}, s.CPUs != 0)
	set(doc, "annotations", s.Annotations, len(s.Annotations) > 0)
	return json.Marshal(doc)
}

func set(in map[string]any, name string, value any, really bool) {
	if really {
		in[name] = value
	}
}

// object is the object of that name, made if there is none.
func object(in map[string]any, name string) map[string]any {
	o, ok := in[name].(map[string]any)
	if !ok {
		o = map[string]any{}
		in[name] = o
	}
	return o
}

// latest leaves the last of the variables of one name.
func latest(env []any) []any {
	name := func(v any) string {
		s, _ := v.(string)
		name, _, _ := bytes.Cut([]byte(s), []byte("="))
		return string(name)
	}
	last := map[string]int{}
	for i, v := range env {
		last[name(v)] = i
	}
	out := []any{}
	for i, v := range env {
		if last[name(v)] == i {
			out = append(out, v)
		}
	}
	return out
}
