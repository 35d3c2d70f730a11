package sysbox_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sysbox.example/sysbox"
)

func TestLife(t *testing.T) {
	l := newLab(t)
	id := l.id()
	s := l.system(id, "/bin/sh", "-c", "trap 'exit 7' TERM; echo up; while :; do sleep 1 & wait; done")
	s.Env = []string{"ONE=1", "TERM=dumb"}
	s.Hostname, s.Annotations = "box", map[string]string{"a.b": "c"}
	s.Memory, s.Pids, s.CPUs = 256<<20, 100, 1.5
	s.Mounts = []sysbox.Mount{sysbox.Tmpfs("/scratch", "size=1m"), sysbox.Bind(l.rootfs+"/etc", "/given", true)}
	out, w, err := os.Pipe()
	l.ok(err)
	defer out.Close()
	before := time.Now().Add(-time.Minute)
	c := l.make(id, s, sysbox.CreateOptions{Stdout: w, Stderr: w})
	w.Close()
	if c.ID() != id {
		t.Fatal(c.ID())
	}
	state, err := c.State()
	l.ok(err)
	pid, err := c.Pid()
	l.ok(err)
	if state.ID != id || state.Status != sysbox.StatusCreated || state.Pid != pid || state.Annotations["a.b"] != "c" ||
		state.Rootfs != l.rootfs || state.Created.Before(before) || state.OCIVersion == "" {
		t.Fatalf("%+v", state)
	}
	events, err := c.Watch()
	l.ok(err)
	defer events.Close()
	event := func(wanted sysbox.Event) {
		t.Helper()
		if got, err := events.Next(l.context()); err != nil || got != wanted {
			t.Fatalf("%v, %v instead of %v", got, err, wanted)
		}
	}

	l.ok(c.Start(l.context()))
	event(sysbox.Started)
	line := make([]byte, 3)
	if _, err := io.ReadFull(out, line); err != nil || string(line) != "up\n" {
		t.Fatalf("%q, %v", line, err)
	}
	l.is(c.Start(l.context()), sysbox.ErrWrongState)
	exit, said := l.sh(c, `echo $(hostname) $(tr '\0' '\n' </proc/1/environ | sort | grep -E 'ONE|TERM'); ls /given >/dev/null && touch /scratch/x && ! touch /given/x 2>/dev/null`)
	if said != "box ONE=1 TERM=dumb" || exit.Code != 0 {
		t.Fatalf("%q, %v", said, exit)
	}

	pids, err := c.Processes()
	l.ok(err)
	if !slices.Contains(pids, pid) {
		t.Fatal(pids)
	}
	stats, err := c.Stats()
	l.ok(err)
	if m := stats.Memory; m == nil || m.Memory.Limit == nil || *m.Memory.Limit != 256<<20 || *m.Memory.Usage == 0 {
		t.Fatalf("%+v", stats.Memory)
	}
	if stats.CPU == nil || stats.CPU.Total <= 0 || stats.Pids == nil || *stats.Pids.Limit != 100 || stats.Pids.Current == 0 {
		t.Fatalf("%+v %+v", stats.CPU, stats.Pids)
	}
	l.ok(c.Update([]byte(`{"pids": {"limit": 77}}`)))
	stats, err = c.Stats()
	l.ok(err)
	if *stats.Pids.Limit != 77 {
		t.Fatal(*stats.Pids.Limit)
	}
	l.is(c.Update(nil), sysbox.ErrInvalidConfig)

	l.ok(c.Pause())
	event(sysbox.Paused)
	if got := l.status(c); got != sysbox.StatusPaused {
		t.Fatal(got)
	}
	l.is(c.Pause(), sysbox.ErrWrongState)
	l.is(c.Delete(l.context(), sysbox.DeleteOptions{}), sysbox.ErrWrongState)
	l.ok(c.Resume())
	event(sysbox.Resumed)

	config, err := c.Config()
	l.ok(err)
	var doc struct{ Hostname string }
	l.ok(json.Unmarshal(config, &doc))
	if doc.Hostname != "box" {
		t.Fatalf("%s", config)
	}
	all, err := l.rt.List()
	l.ok(err)
	if len(all) != 1 || all[0].ID != id || all[0].Status != sysbox.StatusRunning {
		t.Fatalf("%+v", all)
	}

	pidfd, err := c.Pidfd()
	l.ok(err)
	pidfd.Close()
	l.ok(c.Kill(0))
	l.ok(c.Kill(syscall.SIGTERM))
	exit, err = c.Wait(l.context())
	l.ok(err)
	if exit != (sysbox.Exit{Code: 7}) || exit.String() != "exit status 7" {
		t.Fatal(exit)
	}
	again, err := c.Wait(l.context())
	if err != nil || again != exit {
		t.Fatal(again, err)
	}
	event(sysbox.Stopped)
	if got := l.status(c); got != sysbox.StatusStopped {
		t.Fatal(got)
	}
	l.is(c.Kill(syscall.SIGTERM), sysbox.ErrWrongState)
	if _, err := c.Pid(); !errors.Is(err, sysbox.ErrWrongState) {
		t.Fatal(err)
	}
	late, err := l.rt.Open(id)
	l.ok(err)
	defer late.Close()
	if _, err := late.Wait(l.context()); !errors.Is(err, sysbox.ErrWrongState) {
		t.Fatal(err)
	}
	l.ok(c.Delete(l.context(), sysbox.DeleteOptions{}))
	event(sysbox.Deleted)
	if _, err := events.Next(l.context()); err != io.EOF {
		t.Fatal(err)
	}
	l.is(c.Delete(l.context(), sysbox.DeleteOptions{}), sysbox.ErrNotFound)
	if _, err := l.rt.Open(id); !errors.Is(err, sysbox.ErrNotFound) || !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
}

func TestExec(t *testing.T) {
	l := newLab(t)
	c := l.started("sleep 1000")
	ctx := l.context()
	in, toIn, err := os.Pipe()
	l.ok(err)
	out, toOut, err := os.Pipe()
	l.ok(err)
	fromExtra, extra, err := os.Pipe()
	l.ok(err)
	umask := uint32(0o27)
	script := `cat; echo err >&2; echo extra >&5; echo $(id -u) $(id -g) $(id -G) $PWD $A $(umask) $(ulimit -n); exit 9`
	child, err := c.Exec(ctx, sysbox.Process{
		Args:            []string{"/bin/sh", "-c", script},
		Env:             []string{"A=b", "PATH=" + sysbox.DefaultPath},
		Cwd:             "/etc",
		User:            sysbox.User{UID: 12, GID: 34, Umask: &umask, AdditionalGIDs: []uint32{56}},
		Rlimits:         []sysbox.Rlimit{{Type: "RLIMIT_NOFILE", Soft: 99, Hard: 99}},
		NoNewPrivileges: true,
	}, sysbox.ExecOptions{Stdin: in, Stdout: toOut, Stderr: toOut, ExtraFiles: []*os.File{nil, nil, extra}})
	l.ok(err)
	defer child.Close()
	for _, f := range []*os.File{in, toOut, extra} {
		f.Close()
	}
	if status, err := os.ReadFile("/proc/" + filepath.Base(itoa(child.Pid())) + "/status"); err != nil || len(status) == 0 {
		t.Fatal(err)
	}
	pidfd, err := child.Pidfd()
	l.ok(err)
	pidfd.Close()
	toIn.WriteString("in\n")
	toIn.Close()
	said, err := io.ReadAll(out)
	l.ok(err)
	if want := "in\nerr\n12 34 34 56 /etc b 0027 99\n"; string(said) != want {
		t.Fatalf("%q", said)
	}
	if said, err := io.ReadAll(fromExtra); err != nil || string(said) != "extra\n" {
		t.Fatalf("%q, %v", said, err)
	}
	exit, err := child.Wait(ctx)
	if err != nil || exit.Code != 9 {
		t.Fatal(exit, err)
	}
	l.is(child.Kill(syscall.SIGTERM), sysbox.ErrSystem, syscall.ESRCH)
	for _, f := range []*os.File{out, fromExtra} {
		f.Close()
	}

	// No files are /dev/null.
	child, err = c.Exec(ctx, sysbox.Process{Args: []string{"/bin/sh", "-c",
		"test $(readlink /proc/self/fd/0) = /dev/null -a $(readlink /proc/self/fd/1) = pipe: && exit 1; for i in 0 1 2; do readlink /proc/$$/fd/$i; done | grep -vx /dev/null && exit 1; exit 0"}}, sysbox.ExecOptions{})
	l.ok(err)
	if exit, err := child.Wait(ctx); err != nil || exit.Code != 0 {
		t.Fatal(exit, err)
	}
	child.Close()

	child, err = c.ExecJSON(ctx, []byte(`{"args": ["/bin/sleep", "1000"], "cwd": "/", "user": {"uid": 0, "gid": 0}}`), sysbox.ExecOptions{})
	l.ok(err)
	l.ok(child.Kill(syscall.SIGKILL))
	exit, err = child.Wait(ctx)
	if err != nil || exit.Signal != syscall.SIGKILL || exit.Code != 137 || exit.String() != "signal: killed" {
		t.Fatal(exit, err)
	}
	child.Close()

	for program, wanted := range map[string]error{"/none": sysbox.ErrProgramNotFound, "/etc/passwd": sysbox.ErrProgramNotExecutable} {
		_, err := c.Exec(ctx, sysbox.Process{Args: []string{program}}, sysbox.ExecOptions{})
		l.is(err, wanted)
		var e *sysbox.Error
		if !errors.As(err, &e) || e.Op == "" || e.Message == "" || e.Stage != sysbox.InInit {
			t.Fatalf("%#v", err)
		}
	}
	_, err = c.Exec(ctx, sysbox.Process{}, sysbox.ExecOptions{})
	l.is(err, sysbox.ErrInvalidConfig)
	_, err = c.ExecJSON(ctx, nil, sysbox.ExecOptions{})
	l.is(err, sysbox.ErrInvalidConfig)
	closed, _, err := os.Pipe()
	l.ok(err)
	closed.Close()
	_, err = c.Exec(ctx, sysbox.Process{Args: []string{"/bin/true"}}, sysbox.ExecOptions{Stdout: closed})
	l.is(err, sysbox.ErrInvalidArgument)
	l.delete(c)
}

// A stream of os.Pipe is in non-blocking mode, which programs do not expect.
func TestStreamsBlock(t *testing.T) {
	l := newLab(t)
	c := l.started("sleep 1000")
	r, w, err := os.Pipe()
	l.ok(err)
	defer r.Close()
	child, err := c.Exec(l.context(), sysbox.Process{Args: []string{"/bin/sh", "-c", "head -c 1000000 /dev/zero"}}, sysbox.ExecOptions{Stdout: w})
	w.Close()
	l.ok(err)
	defer child.Close()
	time.Sleep(200 * time.Millisecond)
	if n, err := io.Copy(io.Discard, r); n != 1_000_000 {
		t.Fatal(n, err)
	}
	if exit, err := child.Wait(l.context()); err != nil || exit.Code != 0 {
		t.Fatal(exit, err)
	}
	l.delete(c)
}

func TestConsole(t *testing.T) {
	l := newLab(t)
	id := l.id()
	s := l.system(id, "/bin/sh", "-c", "tty; read x; echo got $x; sleep 1000")
	s.Terminal = true
	console, err := sysbox.NewConsole()
	l.ok(err)
	defer console.Close()
	c := l.make(id, s, sysbox.CreateOptions{Console: console.Socket})
	terminal, err := console.Terminal(l.context())
	l.ok(err)
	defer terminal.Close()
	talk(l, c, terminal, func() { l.ok(c.Start(l.context())) })

	inner, err := sysbox.NewConsole()
	l.ok(err)
	defer inner.Close()
	child, err := c.Exec(l.context(), sysbox.Process{Args: []string{"/bin/sh", "-c", "tty; read x; echo got $x"}, Terminal: true},
		sysbox.ExecOptions{Console: inner.Socket})
	l.ok(err)
	defer child.Close()
	pty, err := inner.Terminal(l.context())
	l.ok(err)
	defer pty.Close()
	talk(l, c, pty, func() {})
	if exit, err := child.Wait(l.context()); err != nil || exit.Code != 0 {
		t.Fatal(exit, err)
	}

	// Nobody sends one.
	idle, err := sysbox.NewConsole()
	l.ok(err)
	defer idle.Close()
	ctx, stop := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer stop()
	_, err = idle.Terminal(ctx)
	l.is(err, context.DeadlineExceeded, sysbox.ErrTimedOut)
	idle.Socket.Close()
	if _, err = idle.Terminal(l.context()); err == nil {
		t.Fatal("a terminal came from nowhere")
	}
	l.delete(c)
}

func talk(l *lab, c *sysbox.Container, terminal *os.File, begin func()) {
	l.Helper()
	begin()
	l.ok(terminal.SetDeadline(time.Now().Add(limit)))
	if _, err := terminal.WriteString("word\n"); err != nil {
		l.Fatal(err)
	}
	var said strings.Builder
	buf := make([]byte, 256)
	for !strings.Contains(said.String(), "got word") {
		n, err := terminal.Read(buf)
		if err != nil {
			l.Fatalf("%v after %q", err, said.String())
		}
		said.Write(buf[:n])
	}
	if !strings.Contains(said.String(), "/dev/") {
		l.Fatalf("%q", said.String())
	}
}

func TestBundleAndPlan(t *testing.T) {
	l := newLab(t)
	id := l.id()
	s := l.system(id, "/bin/true")
	s.Rootfs = "rootfs"
	config := l.config(s)
	l.ok(os.WriteFile(l.dir+"/config.json", config, 0o644))
	plan, err := l.rt.Plan(id, nil, l.dir)
	l.ok(err)
	if !json.Valid(plan) || !strings.Contains(string(plan), l.rootfs) {
		t.Fatalf("%s", plan)
	}
	text, err := l.rt.PlanText(id, config, l.dir)
	l.ok(err)
	if !strings.Contains(text, l.rootfs) {
		t.Fatal(text)
	}
	c, err := l.rt.Create(l.context(), id, nil, sysbox.CreateOptions{Bundle: l.dir})
	l.ok(err)
	defer c.Close()
	_, err = l.rt.Create(l.context(), id, config, sysbox.CreateOptions{Bundle: l.dir})
	l.is(err, sysbox.ErrExists, fs.ErrExist)
	l.ok(c.Start(l.context()))
	exit, err := c.Wait(l.context())
	if err != nil || exit.Code != 0 {
		t.Fatal(exit, err)
	}
	l.ok(c.Delete(l.context(), sysbox.DeleteOptions{}))

	_, err = l.rt.Create(l.context(), l.id(), nil, sysbox.CreateOptions{})
	l.is(err, sysbox.ErrInvalidArgument)
	_, err = l.rt.Create(l.context(), l.id(), []byte{}, sysbox.CreateOptions{})
	l.is(err, sysbox.ErrInvalidConfig)
	_, err = l.rt.Create(l.context(), "a\x00b", config, sysbox.CreateOptions{})
	l.is(err, sysbox.ErrInvalidArgument)
	_, err = l.rt.Create(l.context(), "../x", config, sysbox.CreateOptions{})
	l.is(err, sysbox.ErrInvalidConfig)
	_, err = l.rt.Create(l.context(), l.id(), []byte(strings.Replace(string(config), `"pid"`, `"none"`, 1)), sysbox.CreateOptions{Bundle: l.dir})
	l.is(err, sysbox.ErrInvalidConfig)
}

func TestHost(t *testing.T) {
	l := newLab(t)
	host, err := l.rt.CheckHost()
	l.ok(err)
	if !host.Fit || len(host.Probes) == 0 {
		t.Fatalf("%+v", host)
	}
	for _, p := range host.Probes {
		if p.Name == "" || !slices.Contains([]string{"works", "limited", "missing"}, p.Verdict) || p.Verdict != "works" && p.Cost == "" {
			t.Errorf("%+v", p)
		}
	}
}

func TestWait(t *testing.T) {
	l := newLab(t)
	c := l.started("sleep 1000")
	second, err := l.rt.Open(c.ID())
	l.ok(err)
	third, err := l.rt.Open(c.ID())
	l.ok(err)
	threads := len(list(t, "/proc/self/task"))
	short, stop := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer stop()
	long, cancel := context.WithCancel(context.Background())
	var enders, others sync.WaitGroup
	var wrong sync.Map
	wait := func(wg *sync.WaitGroup, ctx context.Context, c *sysbox.Container, check func(sysbox.Exit, error) bool) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			if exit, err := c.Wait(ctx); !check(exit, err) {
				wrong.Store(time.Now(), []any{exit, err})
			}
		}()
	}
	for range 100 {
		wait(&enders, context.Background(), c, func(e sysbox.Exit, err error) bool { return err == nil && e.Signal == syscall.SIGKILL })
		wait(&others, short, c, func(_ sysbox.Exit, err error) bool {
			return errors.Is(err, context.DeadlineExceeded) && errors.Is(err, sysbox.ErrTimedOut)
		})
		wait(&others, long, second, func(_ sysbox.Exit, err error) bool {
			return errors.Is(err, context.Canceled) && errors.Is(err, sysbox.ErrCanceled)
		})
		wait(&others, context.Background(), third, func(_ sysbox.Exit, err error) bool { return errors.Is(err, os.ErrClosed) })
	}
	<-short.Done()
	time.Sleep(100 * time.Millisecond)
	// The Go runtime has more threads, and keeps them, where calls are slow; not hundreds.
	if n := len(list(t, "/proc/self/task")); n > threads+150 {
		t.Errorf("%d threads wait", n-threads)
	}
	cancel()
	third.Close()
	third.Close()
	others.Wait()
	l.ok(c.KillAll(syscall.SIGKILL))
	enders.Wait()
	wrong.Range(func(_, v any) bool {
		t.Error(v)
		return true
	})
	if _, err := third.State(); !errors.Is(err, os.ErrClosed) {
		t.Error(err)
	}
	second.Close()
	l.delete(c)
}

// The garbage collector must not close what is being waited for, though nobody uses it any more.
func TestWaitIsTheLastUse(t *testing.T) {
	l := newLab(t)
	var collecting atomic.Bool
	collecting.Store(true)
	var collector sync.WaitGroup
	collector.Add(1)
	go func() {
		defer collector.Done()
		for collecting.Load() {
			runtime.GC()
			time.Sleep(time.Millisecond)
		}
	}()
	defer collector.Wait()
	defer collecting.Store(false)

	c := l.started("sleep 1000")
	id := c.ID()
	program := func() *sysbox.Child {
		child, err := c.Exec(l.context(), sysbox.Process{Args: []string{"/bin/sh", "-c", "sleep 0.5; exit 4"}}, sysbox.ExecOptions{})
		l.ok(err)
		return child
	}
	if exit, err := program().Wait(l.context()); err != nil || exit.Code != 4 {
		t.Errorf("a program: %v %v", exit, err)
	}
	open := func() *sysbox.Container {
		c, err := l.rt.Open(id)
		l.ok(err)
		return c
	}
	watch := func() *sysbox.Events {
		events, err := open().Watch()
		l.ok(err)
		return events
	}
	later := func(f func() error) {
		time.AfterFunc(500*time.Millisecond, func() {
			if err := f(); err != nil {
				t.Error(err)
			}
		})
	}
	// Before it happens, or there is nothing to wait for.
	events := watch()
	later(c.Pause)
	if event, err := events.Next(l.context()); err != nil || event != sysbox.Paused {
		t.Errorf("an event: %v %v", event, err)
	}
	l.ok(c.Resume())
	other := open()
	later(func() error { return c.Kill(syscall.SIGKILL) })
	if exit, err := other.Wait(l.context()); err != nil || exit.Signal != syscall.SIGKILL {
		t.Errorf("a container: %v %v", exit, err)
	}
	l.delete(c)
}

func TestEvents(t *testing.T) {
	l := newLab(t)
	c := l.started("sleep 1000")
	// Several ask, each event goes to one; all hear of the end.
	shared, err := c.Watch()
	l.ok(err)
	var got sync.Map
	var wg sync.WaitGroup
	for range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for event, err := range shared.All(l.context()) {
				if _, twice := got.LoadOrStore(event, err); twice {
					t.Errorf("%v twice", event)
				}
			}
		}()
	}
	closed, err := c.Watch()
	l.ok(err)
	left := make(chan error, 1)
	go func() {
		_, err := closed.Next(l.context())
		left <- err
	}()
	late, err := c.Watch()
	l.ok(err)
	defer late.Close()
	ctx, stop := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer stop()
	_, err = late.Next(ctx)
	l.is(err, context.DeadlineExceeded, sysbox.ErrTimedOut)
	closed.Close()
	l.is(<-left, os.ErrClosed)
	l.delete(c)
	wg.Wait()
	for _, event := range []sysbox.Event{sysbox.Stopped, sysbox.Deleted} {
		if err, ok := got.Load(event); !ok || err != error(nil) {
			t.Errorf("%v: %v", event, err)
		}
	}
	shared.Close()
	if _, err := shared.Next(l.context()); !errors.Is(err, os.ErrClosed) {
		t.Error(err)
	}
}

func TestIDs(t *testing.T) {
	l := newLab(t)
	owner := filepath.Join(l.dir, "owner")
	l.ok(os.Mkdir(owner, 0o755))
	uid, gid, err := l.rt.AllocateIDs(owner)
	l.ok(err)
	if len(uid) != 1 || uid[0].Inside != 0 || uid[0].Count != 65536 || gid[0].Count != 65536 {
		t.Fatal(uid, gid)
	}
	again, _, err := l.rt.AllocateIDs(owner)
	if err != nil || !slices.Equal(again, uid) {
		t.Fatal(again, err)
	}
	all, err := l.rt.ListIDs()
	l.ok(err)
	mine := func(o sysbox.IDOwner) bool { return o.Owner.StateDir == owner }
	if i := slices.IndexFunc(all, mine); i < 0 || !slices.Equal(all[i].Maps.UID, uid) || !slices.Equal(all[i].Maps.GID, gid) || !all[i].Exclusive {
		t.Fatalf("%+v", all)
	}

	ns, err := l.rt.NewUserNS(uid, gid)
	l.ok(err)
	defer ns.Close()
	mount, err := sysbox.MountIDMapped(l.rootfs, ns, sysbox.MountOptions{})
	l.ok(err)
	defer mount.Close()
	var st syscall.Stat_t
	l.ok(syscall.Stat("/proc/self/fd/"+itoa(int(mount.Fd()))+"/etc/passwd", &st))
	if outside, err := uid.ToOutside(0); err != nil || st.Uid != outside {
		t.Fatal(st.Uid, outside, err)
	}
	_, err = sysbox.MountIDMapped(l.rootfs+"/none", ns, sysbox.MountOptions{Recursive: true})
	l.is(err, syscall.ENOENT)
	if !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}

	l.ok(l.rt.ReleaseIDs(owner))
	l.ok(l.rt.ReleaseIDs(owner))
	all, err = l.rt.ListIDs()
	l.ok(err)
	if slices.ContainsFunc(all, mine) {
		t.Fatalf("%+v", all)
	}
}

func TestNodes(t *testing.T) {
	l := newLab(t)
	id := l.id()
	s := l.system(id, "/bin/sleep", "1000")
	s.Memory, s.Annotations = 64<<20, map[string]string{"sysbox.nodes": "live"}
	c := l.make(id, s, sysbox.CreateOptions{})
	l.ok(c.Start(l.context()))
	nodes := l.served(c)
	kinds := map[string]int{}
	for _, n := range nodes.Nodes {
		if n.Path == "" || n.Now == "" {
			t.Errorf("%+v", n)
		}
		kinds[n.Kind]++
	}
	if kinds["stored"] == 0 || kinds["live"] == 0 || nodes.Monitor.Pid == 0 {
		t.Errorf("%v, %+v", kinds, nodes.Monitor)
	}
	l.ok(syscall.Kill(nodes.Monitor.Pid, syscall.SIGKILL))
	l.eventually("the monitor is dead", func() bool {
		nodes, err := c.Nodes()
		return err == nil && nodes.Monitor.Status == "dead"
	})
	l.ok(c.RestartMonitor())
	if after := l.served(c); after.Monitor.Pid == nodes.Monitor.Pid {
		t.Errorf("%+v", after.Monitor)
	}
	if _, total := l.sh(c, "grep MemTotal /proc/meminfo"); !strings.HasSuffix(total, " 65536 kB") {
		t.Error(total)
	}

	text, err := sysbox.RenderNode(l.cgroup(id), "/proc/meminfo")
	l.ok(err)
	if !strings.HasPrefix(strings.Join(strings.Fields(text), " "), "MemTotal: 65536 kB") {
		t.Errorf("%q", text)
	}
	_, err = sysbox.RenderNode(l.cgroup(id), "/proc/none")
	l.is(err, sysbox.ErrNotFound)
	l.delete(c)

	// In a thread that ends with its goroutine.
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		result <- func() error {
			if err := syscall.Unshare(syscall.CLONE_FS | syscall.CLONE_NEWNS); err != nil {
				return err
			}
			if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
				return err
			}
			if err := sysbox.AttachNode("/proc/version", []byte("mine\n"), 0o444); err != nil {
				return err
			}
			text, err := os.ReadFile("/proc/version")
			if string(text) != "mine\n" {
				return fmt.Errorf("%q, %v", text, err)
			}
			return nil
		}()
	}()
	l.ok(<-result)
	l.is(sysbox.AttachNode("/etc/passwd", nil, 0o444), sysbox.ErrInvalidConfig)
	l.is(sysbox.AttachNode("/proc/version", nil, 0o7444), sysbox.ErrInvalidArgument)
}
