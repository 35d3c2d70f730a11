package sysbox_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sysbox.example/sysbox"
)

// role is a test that is run by another, in a process of its own: it tells where.
const role = "SYSBOX_TEST_ROLE_DIR"

// again is this program as one of its tests, which finds the lab's place.
func (l *lab) again(test string) *exec.Cmd {
	c := exec.Command(os.Args[0], "-test.run=^"+test+"$", "-test.v", "-test.timeout=300s")
	c.Env = append(os.Environ(), role+"="+l.dir)
	return c
}

// borrowed is the lab of the process that has begun this one.
func borrowed(t *testing.T) *lab {
	t.Helper()
	dir := os.Getenv(role)
	if dir == "" {
		t.Skip("run by another test")
	}
	l := &lab{T: t, dir: dir, rootfs: filepath.Join(dir, "rootfs"), tag: strings.TrimPrefix(filepath.Base(dir), "sysbox-")}
	l.names.Store(int32(os.Getpid() % 1000 * 1000))
	l.rt = l.runtime()
	return l
}

// Many at a time, in a process that does what breaks libraries: see roleMany.
func TestMany(t *testing.T) {
	l := newLab(t)
	many := l.again("TestRoleMany")
	// Mounts that others on this machine make meanwhile do not count there.
	many.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	if out, err := many.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	} else if testing.Verbose() {
		t.Logf("%s", out)
	}
}

func mounts(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(text), "\n")
}

func TestRoleMany(t *testing.T) {
	l := borrowed(t)
	runtime.GOMAXPROCS(8)

	// Somebody else reaps every child.
	reaping, over := context.WithCancel(context.Background())
	var background sync.WaitGroup
	defer background.Wait()
	defer over()
	reaped := 0
	spawn(&background, func() {
		for reaping.Err() == nil {
			var status syscall.WaitStatus
			pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
			if pid > 0 {
				reaped++
			} else if err != nil && err != syscall.ECHILD && err != syscall.EINTR {
				t.Error(err)
			} else {
				time.Sleep(100 * time.Microsecond)
			}
		}
	})
	// Threads end.
	spawn(&background, func() {
		for reaping.Err() == nil {
			go runtime.LockOSThread()
			time.Sleep(2 * time.Millisecond)
		}
	})

	alone := func() time.Duration {
		best := time.Hour
		for i := range 12 {
			begin := time.Now()
			cycle(l, i)
			best = min(best, time.Since(begin))
		}
		return best
	}
	small := alone()
	// As many as below: threads and their memory stay for the next that need them.
	many(l, 200)
	open, memory, mounted := descriptors(t), resident(t), mounts(t)

	heap := make([][]byte, 1024)
	for i := range heap {
		heap[i] = make([]byte, 1<<20)
		for at := 0; at < len(heap[i]); at += os.Getpagesize() {
			heap[i][at] = 1
		}
	}
	big := alone()
	// A copy of the page tables of 1 GiB takes tens of milliseconds, every time; so may others on this machine, now and then.
	for end := time.Now().Add(limit); big > small+12*time.Millisecond && time.Now().Before(end); {
		big = min(big, alone())
	}
	if big > small+12*time.Millisecond {
		t.Errorf("a cycle takes %v, and %v with a big heap", small, big)
	}
	withHeap := resident(t)
	if withHeap < memory+1<<30 {
		t.Fatalf("the heap is not there: %d MiB after %d", withHeap>>20, memory>>20)
	}
	begin := time.Now()
	many(l, 200)
	took := time.Since(begin)
	runtime.KeepAlive(heap)

	runtime.GC()
	if now := resident(t); now > withHeap+64<<20 {
		t.Errorf("%d MiB of memory were %d", now>>20, withHeap>>20)
	}
	if now := mounts(t); now != mounted {
		t.Errorf("%d mounts were %d", now, mounted)
	}
	l.eventually("descriptors as before", func() bool {
		now := descriptors(t)
		for what, n := range now {
			if n > open[what] && !strings.HasPrefix(what, "pipe:") && !strings.HasPrefix(what, "socket:") {
				return false
			}
		}
		return total(now) <= total(open)
	})
	l.eventually("no children", func() bool {
		children, _ := filepath.Glob("/proc/self/task/*/children")
		return !slices.ContainsFunc(children, func(f string) bool {
			text, _ := os.ReadFile(f)
			return len(text) > 0
		})
	})
	for _, trace := range l.traces() {
		t.Errorf("left behind: %s", trace)
	}
	over()
	background.Wait()
	t.Logf("200 cycles took %v; one alone %v, with a heap of 1 GiB %v; somebody else reaped %d", took, small, big, reaped)
	if reaped < 100 {
		t.Errorf("somebody else reaped only %d", reaped)
	}
}

func spawn(wg *sync.WaitGroup, f func()) {
	wg.Add(1)
	go func() {
		defer wg.Done()
		f()
	}()
}

func total(m map[string]int) (sum int) {
	for _, n := range m {
		sum += n
	}
	return sum
}

// resident is the size of this process, in bytes.
func resident(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	var size, pages int
	fmt.Sscan(string(text), &size, &pages)
	return pages * os.Getpagesize()
}

// many are cycles, all at the same time, of which every third is in a goroutine whose thread ends with it.
func many(l *lab, n int) {
	l.Helper()
	var wg sync.WaitGroup
	for i := range n {
		spawn(&wg, func() {
			if i%3 == 0 {
				runtime.LockOSThread()
			}
			cycle(l, i)
		})
	}
	wg.Wait()
}

// cycle is a whole life. The exit codes must be right whoever reaps.
func cycle(l *lab, i int) {
	ctx, stop := context.WithTimeout(context.Background(), 120*time.Second)
	defer stop()
	fail := func(what string, err error, v ...any) { l.Errorf("cycle %d: %s: %v %v", i, what, err, v) }
	id := l.id()
	config, err := l.system(id, "/bin/sleep", "1000").Config()
	if err != nil {
		fail("config", err)
		return
	}
	c, err := l.rt.Create(ctx, id, config, sysbox.CreateOptions{})
	if err != nil {
		fail("create", err)
		return
	}
	defer c.Close()
	if err := c.Start(ctx); err != nil {
		fail("start", err)
	}
	child, err := c.Exec(ctx, sysbox.Process{Args: []string{"/bin/sh", "-c", fmt.Sprintf("exit %d", i%200)}}, sysbox.ExecOptions{})
	if err != nil {
		fail("exec", err)
	} else {
		if exit, err := child.Wait(ctx); err != nil || exit.Code != i%200 {
			fail("wait for a program", err, exit)
		}
		child.Close()
	}
	if err := c.Kill(syscall.SIGKILL); err != nil {
		fail("kill", err)
	}
	if exit, err := c.Wait(ctx); err != nil || exit.Signal != syscall.SIGKILL {
		fail("wait", err, exit)
	}
	if err := c.Delete(ctx, sysbox.DeleteOptions{}); err != nil {
		fail("delete", err)
	}
}

// Deadlines that pass, and contexts that are canceled, at any moment of every call.
func TestContexts(t *testing.T) {
	l := newLab(t)
	// after gives a context that ends after that time, in one way or the other.
	n := 0
	after := func(d time.Duration) (context.Context, func(), error) {
		if n++; n%2 == 1 {
			ctx, stop := context.WithTimeout(context.Background(), d)
			return ctx, stop, context.DeadlineExceeded
		}
		ctx, stop := context.WithCancel(context.Background())
		timer := time.AfterFunc(d, stop)
		return ctx, func() { timer.Stop(); stop() }, context.Canceled
	}
	// at runs a call again and again, with less and more time than it needs. At least so many must not get to their end.
	at := func(what string, least int, call func(ctx context.Context) error, then func(err error)) {
		t.Helper()
		whole := time.Hour
		for range 3 {
			begin := time.Now()
			l.ok(call(l.context()))
			whole = min(whole, time.Since(begin))
			then(nil)
		}
		ended, done := 0, 0
		for i := range 16 {
			ctx, stop, why := after(whole * time.Duration(i) / 12)
			begin := time.Now()
			err := call(ctx)
			took := time.Since(begin)
			if took > limit {
				t.Errorf("%s takes %v to give up", what, took)
			}
			stop()
			switch {
			case err == nil:
				done++
				// The first may have been slow ones.
				whole = min(whole, took)
			case errors.Is(err, why) && (errors.Is(err, sysbox.ErrCanceled) || errors.Is(err, sysbox.ErrTimedOut)):
				ended++
			default:
				t.Fatalf("%s: %#v", what, err)
			}
			then(err)
		}
		if ended < least {
			t.Errorf("%s: %d ended early, %d did not", what, ended, done)
		}
		t.Logf("%s: %v; %d ended early, %d did not", what, whole, ended, done)
	}

	var c *sysbox.Container
	drop := func() {
		l.delete(c)
		c.Close()
		for _, trace := range l.traces() {
			t.Fatalf("left behind: %s", trace)
		}
	}
	var id string
	at("create", 3, func(ctx context.Context) (err error) {
		id = l.id()
		c, err = l.rt.Create(ctx, id, l.config(l.system(id, "/bin/sleep", "1000")), sysbox.CreateOptions{})
		return err
	}, func(err error) {
		if err == nil {
			drop()
			return
		}
		for _, trace := range l.traces() {
			t.Fatalf("a create that gave up left behind: %s", trace)
		}
		_, err = l.rt.Open(id)
		l.is(err, sysbox.ErrNotFound)
	})

	c = l.create("sleep 1000")
	at("start", 1, func(ctx context.Context) error { return c.Start(ctx) }, func(err error) {
		if status := l.status(c); err == nil && status != sysbox.StatusRunning || err != nil && status != sysbox.StatusCreated && status != sysbox.StatusStopped {
			t.Fatalf("%v, and it is %s", err, status)
		}
		drop()
		c = l.create("sleep 1000")
	})
	l.ok(c.Start(l.context()))

	var child *sysbox.Child
	at("exec", 2, func(ctx context.Context) (err error) {
		child, err = c.Exec(ctx, sysbox.Process{Args: []string{"/bin/sleep", "1000"}}, sysbox.ExecOptions{})
		return err
	}, func(err error) {
		if err == nil {
			l.ok(child.Kill(syscall.SIGKILL))
			_, err := child.Wait(l.context())
			l.ok(err)
			child.Close()
		}
		// The shell that waits, its sleep, and nothing else.
		l.eventually("the program is gone", func() bool {
			pids, err := c.Processes()
			l.ok(err)
			return len(pids) <= 2
		})
	})

	at("delete", 1, func(ctx context.Context) error { return c.Delete(ctx, sysbox.DeleteOptions{Force: true}) }, func(err error) {
		if err != nil {
			l.delete(c)
		}
		c.Close()
		for _, trace := range l.traces() {
			t.Fatalf("left behind: %s", trace)
		}
		c = l.started("sleep 1000")
	})
	drop()
}

// What a caller can make last for ever ends with its context.
func TestContextsOfHooks(t *testing.T) {
	l := newLab(t)
	hooked := func(kind string) (id string, config []byte) {
		id = l.id()
		var doc map[string]any
		l.ok(json.Unmarshal(l.config(l.system(id, "/bin/sleep", "1000")), &doc))
		doc["hooks"] = map[string]any{kind: []any{map[string]any{"path": "/bin/sleep", "args": []string{"sleep", "1000"}}}}
		config, err := json.Marshal(doc)
		l.ok(err)
		return id, config
	}
	short := func(call func(ctx context.Context) error) error {
		t.Helper()
		begin := time.Now()
		ctx, stop := context.WithTimeout(context.Background(), time.Second)
		defer stop()
		err := call(ctx)
		if took := time.Since(begin); took < 900*time.Millisecond || took > limit {
			t.Errorf("%v after %v", err, took)
		}
		return err
	}
	id, config := hooked("createRuntime")
	l.is(short(func(ctx context.Context) error {
		_, err := l.rt.Create(ctx, id, config, sysbox.CreateOptions{})
		return err
	}), context.DeadlineExceeded, sysbox.ErrTimedOut)
	for _, trace := range l.traces() {
		t.Errorf("left behind: %s", trace)
	}

	id, config = hooked("poststart")
	c, err := l.rt.Create(l.context(), id, config, sysbox.CreateOptions{})
	l.ok(err)
	l.is(short(c.Start), context.DeadlineExceeded)
	if status := l.status(c); status != sysbox.StatusStopped {
		t.Error(status)
	}
	l.delete(c)
	c.Close()

	id, config = hooked("poststop")
	c, err = l.rt.Create(l.context(), id, config, sysbox.CreateOptions{})
	l.ok(err)
	if err := short(func(ctx context.Context) error { return c.Delete(ctx, sysbox.DeleteOptions{Force: true}) }); err != nil {
		l.is(err, context.DeadlineExceeded)
		l.delete(c)
	}
	c.Close()
}

// The process is killed at any moment; the next one takes away what it has left.
func TestKilled(t *testing.T) {
	l := newLab(t)
	met := map[sysbox.Status]int{}
	// Which states are met depends on how fast this host is.
	for round, end := 0, time.Now().Add(180*time.Second); round < 8 || len(met) < 3 || met[sysbox.StatusRunning] == 0; round++ {
		if time.Now().After(end) {
			t.Fatalf("only these were met: %v", met)
		}
		victim := l.again("TestRoleVictim")
		started, to, err := os.Pipe()
		l.ok(err)
		victim.Stdout = to
		l.ok(victim.Start())
		to.Close()
		started.Read(make([]byte, 1))
		time.Sleep(time.Duration(rand.IntN(300*(1+round/8))) * time.Millisecond)
		l.ok(victim.Process.Kill())
		victim.Wait()
		started.Close()

		next := l.runtime()
		left, err := next.List()
		l.ok(err)
		for _, s := range left {
			met[s.Status]++
			// A stage that was at work may finish a deletion meanwhile.
			c, err := next.Open(s.ID)
			if errors.Is(err, sysbox.ErrNotFound) {
				continue
			}
			l.ok(err)
			if err := c.Delete(l.context(), sysbox.DeleteOptions{Force: true}); !errors.Is(err, sysbox.ErrNotFound) {
				l.ok(err)
			}
			c.Close()
		}
		next.Close()
		// A stage that was at work sees that its caller is gone.
		l.eventually("nothing is left", func() bool { return len(l.traces()) == 0 })
	}
	t.Logf("found: %v", met)
}

// Makes, uses and deletes containers until it is killed.
func TestRoleVictim(t *testing.T) {
	l := borrowed(t)
	os.Stdout.WriteString("x")
	var wg sync.WaitGroup
	for range 4 {
		spawn(&wg, func() {
			for i := range 1000 {
				cycle(l, i)
			}
		})
	}
	wg.Wait()
}

// Another process's child that has ended, and that nobody has reaped yet.
func TestWaitForAnothersChild(t *testing.T) {
	l := newLab(t)
	keeper := l.again("TestRoleKeeper")
	tell, err := keeper.StdinPipe()
	l.ok(err)
	said, err := keeper.StdoutPipe()
	l.ok(err)
	l.ok(keeper.Start())
	defer keeper.Wait()
	defer tell.Close()
	var id string
	l.eventually("it runs", func() bool {
		left, err := l.rt.List()
		l.ok(err)
		if len(left) == 1 && left[0].Status == sysbox.StatusRunning {
			id = left[0].ID
		}
		return id != ""
	})
	open := func() *sysbox.Container {
		c, err := l.rt.Open(id)
		l.ok(err)
		return c
	}
	c, early, late := open(), open(), open()
	defer c.Close()
	type outcome struct {
		exit sysbox.Exit
		err  error
	}
	waits := func(c *sysbox.Container, ctx context.Context) chan outcome {
		done := make(chan outcome, 1)
		go func() {
			exit, err := c.Wait(ctx)
			done <- outcome{exit, err}
		}()
		return done
	}
	before := waits(early, l.context())
	l.ok(c.Kill(syscall.SIGKILL))
	l.eventually("it has ended", func() bool { return l.status(c) == sysbox.StatusStopped })
	short, stop := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer stop()
	_, err = c.Wait(short)
	if errors.Is(err, sysbox.ErrUnsupported) {
		skip(t, "the kernel keeps no exit status (Linux 6.15)")
	}
	l.is(err, context.DeadlineExceeded)
	closed := waits(late, l.context())
	after := waits(c, l.context())
	time.Sleep(50 * time.Millisecond)
	late.Close()
	l.is((<-closed).err, os.ErrClosed)
	tell.Close()
	for _, done := range []chan outcome{before, after} {
		if o := <-done; o.err != nil || o.exit.Signal != syscall.SIGKILL {
			t.Error(o)
		}
	}
	early.Close()
	io.Copy(io.Discard, said)
	l.delete(c)
}

// Makes a container, and waits for it when it is told to.
func TestRoleKeeper(t *testing.T) {
	l := borrowed(t)
	// Its own output is read to the end.
	id := l.id()
	c := l.make(id, l.system(id, "/bin/sleep", "1000"), sysbox.CreateOptions{})
	l.ok(c.Start(l.context()))
	io.Copy(io.Discard, os.Stdin)
	if exit, err := c.Wait(l.context()); err != nil || exit.Signal != syscall.SIGKILL {
		t.Error(exit, err)
	}
}
