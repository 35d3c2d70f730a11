package sysbox_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sysbox.example/sysbox"
)

// limit is for everything that is not known to take longer.
const limit = 30 * time.Second

// lab is one test's place: a root file system of its own, a state directory, control groups. It takes everything away, and looks whether
// it had to.
type lab struct {
	*testing.T
	dir, rootfs, tag string
	rt               *sysbox.Runtime
	names            atomic.Int32
}

// skip says it where whoever counts skips finds it.
func skip(t *testing.T, reason string) {
	fmt.Fprintf(os.Stderr, "SKIP %s: %s\n", t.Name(), reason)
	t.Skip(reason)
}

// tree is a shared root file system, built if need be; not to be changed.
func tree(t *testing.T, kind string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		skip(t, "not root")
	}
	var said bytes.Buffer
	script := exec.Command("../../hack/rootfs.sh", kind)
	script.Stderr = &said
	out, err := script.Output()
	if err != nil {
		lines := strings.Split(strings.TrimSpace(said.String()), "\n")
		skip(t, fmt.Sprintf("no tree %s: %v: %s", kind, err, lines[len(lines)-1]))
	}
	return strings.TrimSpace(string(out))
}

var labs atomic.Int32

func newLab(t *testing.T) *lab {
	t.Helper()
	from := tree(t, "busybox")
	tag := fmt.Sprintf("go-%d-%d", os.Getpid(), labs.Add(1))
	// On the trees' file system: copies may share their blocks.
	dir := filepath.Join(filepath.Dir(from), "sysbox-"+tag)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	l := &lab{T: t, dir: dir, rootfs: filepath.Join(dir, "rootfs"), tag: tag}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if out, err := exec.Command("cp", "-a", "--reflink=auto", from, l.rootfs).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v: %s", err, out)
	}
	l.rt = l.runtime()
	t.Cleanup(l.cleanUp)
	return l
}

func (l *lab) runtime() *sysbox.Runtime {
	l.Helper()
	rt, err := sysbox.New(sysbox.Options{StateDir: l.state()})
	l.ok(err)
	l.Cleanup(func() { rt.Close() })
	return rt
}

func (l *lab) state() string { return filepath.Join(l.dir, "state") }

func (l *lab) ok(err error) {
	l.Helper()
	if err != nil {
		l.Fatal(err)
	}
}

// is fails the test unless the error is all of these.
func (l *lab) is(err error, targets ...error) {
	l.Helper()
	for _, target := range targets {
		if !errors.Is(err, target) {
			l.Fatalf("%#v is not %v", err, target)
		}
	}
}

func (l *lab) context() context.Context {
	ctx, stop := context.WithTimeout(context.Background(), limit)
	l.Cleanup(stop)
	return ctx
}

// id is a name that no other container on this machine has.
func (l *lab) id() string { return fmt.Sprintf("%s-%d", l.tag, l.names.Add(1)) }

func (l *lab) system(id string, args ...string) sysbox.SystemContainer {
	return sysbox.SystemContainer{Rootfs: l.rootfs, Args: args, Cgroup: l.cgroup(id)}
}

func (l *lab) cgroup(id string) string { return "/sysbox-" + l.tag + "/" + id }

func (l *lab) config(s sysbox.SystemContainer) []byte {
	l.Helper()
	config, err := s.Config()
	l.ok(err)
	return config
}

// create makes a container of its own name that runs a script.
func (l *lab) create(script string) *sysbox.Container {
	l.Helper()
	id := l.id()
	return l.make(id, l.system(id, "/bin/sh", "-c", script), sysbox.CreateOptions{Stdout: os.Stdout, Stderr: os.Stderr})
}

func (l *lab) make(id string, s sysbox.SystemContainer, o sysbox.CreateOptions) *sysbox.Container {
	l.Helper()
	c, err := l.rt.Create(l.context(), id, l.config(s), o)
	l.ok(err)
	l.Cleanup(func() { c.Close() })
	return c
}

func (l *lab) started(script string) *sysbox.Container {
	l.Helper()
	c := l.create(script)
	l.ok(c.Start(l.context()))
	return c
}

func (l *lab) delete(c *sysbox.Container) {
	l.Helper()
	l.ok(c.Delete(l.context(), sysbox.DeleteOptions{Force: true}))
}

// sh runs a script in a container to its end.
func (l *lab) sh(c *sysbox.Container, script string) (sysbox.Exit, string) {
	l.Helper()
	r, w, err := os.Pipe()
	l.ok(err)
	defer r.Close()
	child, err := c.Exec(l.context(), sysbox.Process{Args: []string{"/bin/sh", "-c", script}}, sysbox.ExecOptions{Stdout: w, Stderr: os.Stderr})
	w.Close()
	l.ok(err)
	defer child.Close()
	out, err := io.ReadAll(r)
	l.ok(err)
	exit, err := child.Wait(l.context())
	l.ok(err)
	return exit, strings.TrimSpace(string(out))
}

func (l *lab) status(c *sysbox.Container) sysbox.Status {
	l.Helper()
	s, err := c.State()
	l.ok(err)
	return s.Status
}

func (l *lab) eventually(what string, f func() bool) {
	l.Helper()
	for end := time.Now().Add(limit); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			l.Fatalf("not within %v: %s", limit, what)
		}
	}
}

// served are a container's nodes once its monitor answers: on a slow host that may take longer than is waited for.
func (l *lab) served(c *sysbox.Container) (nodes sysbox.Nodes) {
	l.Helper()
	l.eventually("a monitor that serves", func() bool {
		var err error
		nodes, err = c.Nodes()
		l.ok(err)
		return nodes.Monitor.Status == "serves"
	})
	return nodes
}

func (l *lab) cleanUp() {
	left, err := l.rt.List()
	if err != nil {
		l.Error(err)
	}
	for _, s := range left {
		if c, err := l.rt.Open(s.ID); err == nil {
			if err := c.Delete(context.Background(), sysbox.DeleteOptions{Force: true}); err != nil {
				l.Error(err)
			}
			c.Close()
		}
	}
	for _, trace := range l.traces() {
		l.Errorf("left behind: %s", trace)
	}
	for _, dir := range l.cgroups() {
		os.Remove(dir)
	}
}

// cgroups are the nodes above those of this test's containers.
func (l *lab) cgroups() []string {
	one, _ := filepath.Glob("/sys/fs/cgroup/sysbox-" + l.tag)
	more, _ := filepath.Glob("/sys/fs/cgroup/*/sysbox-" + l.tag)
	return append(one, more...)
}

// traces are what the host still has of this test's containers.
func (l *lab) traces() (found []string) {
	states, _ := os.ReadDir(l.state())
	for _, s := range states {
		if s.IsDir() {
			found = append(found, "state of "+s.Name())
		}
	}
	for _, above := range l.cgroups() {
		nodes, _ := os.ReadDir(above)
		for _, n := range nodes {
			if n.IsDir() {
				found = append(found, "cgroup "+filepath.Join(above, n.Name()))
			}
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || bytes.Contains(mounts, []byte(l.dir)) {
		found = append(found, "mounts")
	}
	ids, err := l.rt.ListIDs()
	if err != nil {
		found = append(found, err.Error())
	}
	for _, o := range ids {
		if strings.HasPrefix(o.Owner.StateDir, l.dir) {
			found = append(found, "IDs of "+o.Owner.StateDir)
		}
	}
	return append(found, processes(l.dir)...)
}

// processes are those that have a mount from below a directory and not this process's own mounts: of containers, and of what makes them.
func processes(dir string) (found []string) {
	own, _ := os.Readlink("/proc/self/ns/mnt")
	all, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range all {
		if ns, err := os.Readlink(p + "/ns/mnt"); err != nil || ns == own {
			continue
		}
		// A mount's root is a path in its file system, which may begin below a mount point of ours.
		mounts, err := os.ReadFile(p + "/mountinfo")
		if err == nil && bytes.Contains(mounts, []byte(filepath.Base(dir)+"/")) {
			command, _ := os.ReadFile(p + "/cmdline")
			found = append(found, fmt.Sprintf("process %s: %q", filepath.Base(p), command))
		}
	}
	return found
}

// descriptors are this process's open ones.
func descriptors(t *testing.T) map[string]int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	open := map[string]int{}
	for _, e := range entries {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil {
			open[to]++
		}
	}
	return open
}
