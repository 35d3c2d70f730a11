package sysbox

import (
	"context"
	"encoding/json"

	"sysbox.example/sysbox/internal/capi"
)

// CgroupManager says who makes the control groups.
type CgroupManager int32

// Who makes the control groups.
const (
	// CgroupDirect: the library. linux.cgroupsPath is a path.
	CgroupDirect CgroupManager = 0
	// CgroupSystemd: systemd, as a scope unit for each container. linux.cgroupsPath is slice:prefix:name.
	CgroupSystemd CgroupManager = 1
)

// Options are how a [Runtime] works. The zero value is the default.
type Options struct {
	// StateDir holds the state of the containers; made when needed. Default: /run/sysbox.
	StateDir string
	// StagePath is the program sysbox-stage of the library's very build. Default: the one that the library carries.
	StagePath string
	// SubidUser is the user whose entries in the two files below are ranges for containers. Default: sysbox.
	SubidUser string
	// SubuidFile and SubgidFile are as in subuid(5) and subgid(5). Default: those in /etc.
	SubuidFile, SubgidFile string
	// SubidSize is how many user and group IDs each a container gets. Default: 65536.
	SubidSize uint32
	// CgroupManager says who makes the control groups.
	CgroupManager CgroupManager
}

// Runtime is a state directory with its containers, and how new ones are made. Any number of goroutines may use it, and any number of
// runtimes in any processes may be on one state directory. Containers do not need the Runtime that they come from.
type Runtime struct{ h *handle[capi.Context] }

// New makes a Runtime. It changes nothing, and holds one descriptor until Close: a sealed copy of the stage program.
func New(o Options) (*Runtime, error) {
	c, e := capi.ContextNew(capi.ContextOptions{
		StateDir:      o.StateDir,
		StagePath:     o.StagePath,
		SubidUser:     o.SubidUser,
		SubuidFile:    o.SubuidFile,
		SubgidFile:    o.SubgidFile,
		SubidSize:     o.SubidSize,
		CgroupManager: int32(o.CgroupManager),
	})
	if e != nil {
		return nil, failure(e)
	}
	r := &Runtime{newHandle(c, capi.ContextFree)}
	guard(r, r.h, "Runtime")
	return r, nil
}

// Close frees it. Nothing happens to the containers. Calls that run go on; later ones fail with [os.ErrClosed]. Closing it again does
// nothing.
func (r *Runtime) Close() error {
	r.h.close()
	return nil
}

// Host is what a host offers to containers.
type Host struct {
	// Fit says whether containers can be made.
	Fit    bool    `json:"fit"`
	Probes []Probe `json:"probes"`
}

// Probe is one thing that was tried.
type Probe struct {
	Name    string `json:"name"`
	Verdict string `json:"verdict"` // works, limited or missing
	Detail  string `json:"detail"`
	Cost    string `json:"cost"` // what it means for containers, unless it works
}

// CheckHost tries what containers need of this host. It leaves nothing behind.
func (r *Runtime) CheckHost() (Host, error) {
	return document[Host](r.h, "check the host", capi.ContextCheckHost)
}

// List lists the containers of the state directory by their names, half-made and ended ones too.
func (r *Runtime) List() ([]State, error) {
	return document[[]State](r.h, "list the containers", capi.ContextList)
}

// Plan is all that [Runtime.Create] would do with these arguments just now, in order, as a JSON object. Its fields are those of this
// version of the library. It changes nothing.
func (r *Runtime) Plan(id string, config []byte, bundle string) (json.RawMessage, error) {
	return do1(r.h, "plan", func(c capi.Context) (json.RawMessage, *capi.Error) {
		doc, e := capi.ContextPlan(c, id, config, bundle)
		return doc, e
	})
}

// PlanText is [Runtime.Plan] for people.
func (r *Runtime) PlanText(id string, config []byte, bundle string) (string, error) {
	text, err := do1(r.h, "plan", func(c capi.Context) ([]byte, *capi.Error) {
		return capi.ContextPlanText(c, id, config, bundle)
	})
	return string(text), err
}

// Create makes a container whose program waits for [Container.Start]. It returns when the container's namespaces, control groups and mounts
// exist and its createRuntime and createContainer hooks are done.
//
// The name is 1 to 240 ASCII letters, digits and _ + - . The configuration is an OCI config.json; [SystemContainer.Config] writes one.
// nil is the file in the bundle.
//
// If it fails or the context ends, nothing is left behind. If this process is killed meanwhile, [Runtime.Open] and [Container.Delete] with
// force clean up, in any process.
func (r *Runtime) Create(ctx context.Context, id string, config []byte, o CreateOptions) (*Container, error) {
	var made capi.Container
	err := r.h.within(ctx, "create "+id, func(c capi.Context, cancel capi.Cancel) (e *capi.Error) {
		streams, done, e := o.stdio().streams()
		if e != nil {
			return e
		}
		defer done()
		made, e = capi.ContainerCreate(c, id, config, o.Bundle, streams, cancel)
		return e
	})
	if err != nil {
		return nil, err
	}
	return newContainer(made), nil
}

// Open finds a container by its name, whoever made it: also one whose making was cut short, and one whose state is damaged.
func (r *Runtime) Open(id string) (*Container, error) {
	c, err := do1(r.h, "open "+id, func(c capi.Context) (capi.Container, *capi.Error) { return capi.ContainerOpen(c, id) })
	if err != nil {
		return nil, err
	}
	return newContainer(c), nil
}

// document is a call that gives JSON.
func document[T, P any](h *handle[P], op string, f func(P) ([]byte, *capi.Error)) (T, error) {
	var t T
	text, err := do1(h, op, f)
	if err != nil {
		return t, err
	}
	if err := json.Unmarshal(text, &t); err != nil {
		return t, malformed("answer to "+op, err)
	}
	return t, nil
}
