package sysbox_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sysbox.example/sysbox"
)

func itoa(n int) string { return strconv.Itoa(n) }

func list(t *testing.T, dir string) []os.DirEntry {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return entries
}

func header(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../include/sysbox.h")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Numbers that Go repeats are those of the header.
func TestNumbers(t *testing.T) {
	defines := map[string]int{}
	for _, m := range regexp.MustCompile(`(?m)^#define (SYSBOX_\w+) (-?\d+)$`).FindAllStringSubmatch(header(t), -1) {
		defines[m[1]], _ = strconv.Atoi(m[2])
	}
	codes := 0
	for name, n := range defines {
		if strings.HasPrefix(name, "SYSBOX_ERR_") {
			codes++
			if got := sysbox.Code(n).Error(); got != name {
				t.Errorf("%d is %s instead of %s", n, got, name)
			}
		}
	}
	sources := read(t, "*.go")
	for i, name := range regexp.MustCompile(`(?m)^\t(Err\w+)\s+Code\s+= (\d+)`).FindAllStringSubmatch(sources, -1) {
		n, _ := strconv.Atoi(name[2])
		if snake(name[1]) != sysbox.Code(n).Error() {
			t.Errorf("%s is %v", name[1], sysbox.Code(n))
		}
		if codes--; codes == 0 && i == 0 {
			t.Error("there is one code only")
		}
	}
	if codes != 0 {
		t.Errorf("%d codes of the header are missing here", codes)
	}
	for name, n := range map[string]int{
		"SYSBOX_EVENT_STARTED": int(sysbox.Started), "SYSBOX_EVENT_PAUSED": int(sysbox.Paused), "SYSBOX_EVENT_RESUMED": int(sysbox.Resumed),
		"SYSBOX_EVENT_OOM": int(sysbox.OutOfMemory), "SYSBOX_EVENT_STOPPED": int(sysbox.Stopped), "SYSBOX_EVENT_DELETED": int(sysbox.Deleted),
		"SYSBOX_STAGE_CALLER": int(sysbox.InCaller), "SYSBOX_STAGE_STAGE": int(sysbox.InStage), "SYSBOX_STAGE_INIT": int(sysbox.InInit),
		"SYSBOX_CGROUP_DIRECT": int(sysbox.CgroupDirect), "SYSBOX_CGROUP_SYSTEMD": int(sysbox.CgroupSystemd),
		"SYSBOX_LOG_ERROR": 1, "SYSBOX_LOG_WARN": 2, "SYSBOX_LOG_INFO": 3, "SYSBOX_LOG_DEBUG": 4, "SYSBOX_LOG_TRACE": 5,
		"SYSBOX_ABI_VERSION": int(sysbox.ABIVersion()),
	} {
		if defined, ok := defines[name]; !ok || defined != n {
			t.Errorf("%s is %d, and %d here", name, defined, n)
		}
	}
}

func snake(name string) string {
	words := regexp.MustCompile(`[A-Z][a-z]+`).FindAllString(name, -1)
	return "SYSBOX_" + strings.ToUpper(strings.Join(words, "_"))
}

func read(t *testing.T, pattern string) string {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatal(pattern, err)
	}
	var all strings.Builder
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(text)
	}
	return all.String()
}

func TestEveryExportIsThere(t *testing.T) {
	exports := regexp.MustCompile(`(?m)^(?:[a-z][\w ]*[ *])(sysbox_\w+)\(`).FindAllStringSubmatch(header(t), -1)
	if len(exports) < 50 {
		t.Fatalf("only %d exports in the header", len(exports))
	}
	sources := read(t, "internal/capi/*.go")
	for _, e := range exports {
		if !strings.Contains(sources, "C."+e[1]+"(") {
			t.Errorf("%s is not called", e[1])
		}
	}
}

func TestErrors(t *testing.T) {
	e := &sysbox.Error{Code: sysbox.ErrNotFound, Errno: syscall.ENOENT, Message: "open /x: No such file"}
	wrapped := fmt.Errorf("job: %w", e)
	for _, target := range []error{sysbox.ErrNotFound, syscall.ENOENT, fs.ErrNotExist} {
		if !errors.Is(wrapped, target) {
			t.Errorf("not %v", target)
		}
	}
	for _, target := range []error{sysbox.ErrExists, syscall.EACCES, fs.ErrExist, context.Canceled} {
		if errors.Is(wrapped, target) {
			t.Errorf("%v", target)
		}
	}
	var errno syscall.Errno
	var as *sysbox.Error
	if !errors.As(wrapped, &errno) || errno != syscall.ENOENT || !errors.As(wrapped, &as) || as != e {
		t.Error(errno, as)
	}
	if wrapped.Error() != "job: sysbox: open /x: No such file" {
		t.Error(wrapped)
	}
	if errors.Unwrap(&sysbox.Error{Code: sysbox.ErrBusy}) != nil {
		t.Error("an error without errno unwraps")
	}
	if sysbox.InStage.String() != "stage" || sysbox.Stage(9).String() != "stage 9" || sysbox.Event(99).String() != "event 99" || sysbox.OutOfMemory.String() != "out of memory" {
		t.Error("names")
	}
}

func TestVersions(t *testing.T) {
	var features struct {
		Version string
		ABI     uint32
		Stage   string
	}
	if err := json.Unmarshal(sysbox.Features(), &features); err != nil {
		t.Fatal(err)
	}
	if features.Version != sysbox.Version() || features.ABI != sysbox.ABIVersion() || !strings.Contains(header(t), fmt.Sprintf("SYSBOX_VERSION %q", sysbox.Version())) {
		t.Errorf("%+v, %s, %d", features, sysbox.Version(), sysbox.ABIVersion())
	}
}

func TestOptions(t *testing.T) {
	for _, o := range []sysbox.Options{{StateDir: "a\x00b"}, {SubidUser: "\xff"}, {CgroupManager: 9}, {StagePath: strings.Repeat("x", 5000)}} {
		if rt, err := sysbox.New(o); !errors.Is(err, sysbox.ErrInvalidArgument) {
			t.Errorf("%+v: %v, %v", o, rt, err)
		}
	}
}

func TestClosed(t *testing.T) {
	rt, err := sysbox.New(sysbox.Options{StateDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := rt.Open("none"); !errors.Is(err, sysbox.ErrNotFound) {
		t.Error(err)
	}
	for range 2 {
		if err := rt.Close(); err != nil {
			t.Error(err)
		}
	}
	_, err = rt.List()
	if !errors.Is(err, os.ErrClosed) {
		t.Error(err)
	}
	if _, err := rt.Create(context.Background(), "x", nil, sysbox.CreateOptions{}); !errors.Is(err, os.ErrClosed) {
		t.Error(err)
	}
	// Zero values were never open.
	var none sysbox.Runtime
	none.Close()
	if _, err := none.List(); !errors.Is(err, os.ErrClosed) {
		t.Error(err)
	}
}

// Closing while others call, over and over: the race detector and the C library's memory are the judges.
func TestCloseMeanwhile(t *testing.T) {
	dir := t.TempDir()
	for range 50 {
		rt, err := sysbox.New(sysbox.Options{StateDir: dir})
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for range 8 {
			wg.Add(1)
			go func() {
				defer wg.Done()
				for {
					if _, err := rt.List(); err != nil {
						if !errors.Is(err, os.ErrClosed) {
							t.Error(err)
						}
						return
					}
				}
			}()
		}
		time.Sleep(time.Millisecond)
		rt.Close()
		wg.Wait()
	}
}

func TestOver(t *testing.T) {
	rt, err := sysbox.New(sysbox.Options{StateDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer rt.Close()
	canceled, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := rt.Create(canceled, "x", nil, sysbox.CreateOptions{}); !errors.Is(err, context.Canceled) || !errors.Is(err, sysbox.ErrCanceled) {
		t.Error(err)
	}
	passed, stop := context.WithDeadline(context.Background(), time.Unix(1, 0))
	defer stop()
	if _, err := rt.Create(passed, "x", nil, sysbox.CreateOptions{}); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, sysbox.ErrTimedOut) {
		t.Error(err)
	}
}

func TestConfig(t *testing.T) {
	plain, err := sysbox.SystemContainer{Rootfs: "/r"}.Config()
	if err != nil {
		t.Fatal(err)
	}
	full, err := sysbox.SystemContainer{
		Rootfs: "/r", Args: []string{"a", "b"}, Env: []string{"A=1", "TERM=dumb", "A=2"}, Cwd: "/w", User: sysbox.User{UID: 1, GID: 2},
		Hostname: "h", Terminal: true, Readonly: true, Mounts: []sysbox.Mount{sysbox.Bind("/s", "/d", true)}, Cgroup: "/c",
		Memory: 1 << 53, Pids: 5, CPUs: 0.5, Annotations: map[string]string{"k": "v"},
	}.Config()
	if err != nil {
		t.Fatal(err)
	}
	type config struct {
		Process struct {
			Args, Env []string
			Cwd       string
			Terminal  bool
			User      struct{ UID, GID uint32 }
		}
		Root struct {
			Path     string
			Readonly bool
		}
		Hostname    string
		Mounts      []sysbox.Mount
		Annotations map[string]string
		Linux       struct {
			CgroupsPath string
			Namespaces  []struct{ Type string }
			Resources   struct {
				Memory, Pids struct{ Limit int64 }
				CPU          struct{ Quota, Period int64 }
				Devices      []struct{ Access string }
			}
		}
	}
	var p, f config
	for doc, to := range map[*[]byte]*config{&plain: &p, &full: &f} {
		if err := json.Unmarshal(*doc, to); err != nil {
			t.Fatalf("%v: %s", err, *doc)
		}
	}
	if p.Root.Path != "/r" || !slices.Equal(p.Process.Args, []string{"/sbin/init"}) || p.Process.Cwd != "/" || len(p.Linux.Namespaces) != 8 || len(p.Process.Env) != 2 {
		t.Errorf("%+v", p)
	}
	env := slices.Clone(f.Process.Env)
	slices.Sort(env)
	if !slices.Equal(f.Process.Args, []string{"a", "b"}) || len(env) != 3 || env[0] != "A=2" || env[2] != "TERM=dumb" || f.Process.User.GID != 2 ||
		!f.Process.Terminal || !f.Root.Readonly || f.Hostname != "h" || len(f.Mounts) != len(p.Mounts)+1 || f.Linux.CgroupsPath != "/c" ||
		f.Linux.Resources.Memory.Limit != 1<<53 || f.Linux.Resources.Pids.Limit != 5 || f.Linux.Resources.CPU.Quota != 50_000 ||
		len(f.Linux.Resources.Devices) != 1 || f.Annotations["k"] != "v" || f.Process.Cwd != "/w" {
		t.Errorf("%+v", f)
	}
	for _, rootfs := range []string{"", "\xff", "a\x00"} {
		if _, err := (sysbox.SystemContainer{Rootfs: rootfs}).Config(); !errors.Is(err, sysbox.ErrInvalidArgument) {
			t.Errorf("%q: %v", rootfs, err)
		}
	}
}

func TestIDMaps(t *testing.T) {
	m := sysbox.IDMap{{Inside: 10, Outside: 500, Count: 5}, {Inside: 0, Outside: 100, Count: 10}}
	text, err := m.Text()
	if err != nil || strings.Join(strings.Fields(text), " ") != "0 100 10 10 500 5" {
		t.Errorf("%q, %v", text, err)
	}
	parsed, err := sysbox.ParseIDMap(text)
	if err != nil || !slices.Equal(parsed, sysbox.IDMap{m[1], m[0]}) {
		t.Error(parsed, err)
	}
	if out, err := m.ToOutside(12); err != nil || out != 502 {
		t.Error(out, err)
	}
	if in, err := m.ToInside(105); err != nil || in != 5 {
		t.Error(in, err)
	}
	if _, err := m.ToInside(1); !errors.Is(err, sysbox.ErrNotFound) {
		t.Error(err)
	}
	if _, err := m.ToOutside(99); !errors.Is(err, sysbox.ErrNotFound) {
		t.Error(err)
	}
	for _, bad := range []sysbox.IDMap{{{0, 1, 0}}, {{0, 1, 5}, {3, 100, 5}}, {{0, 4294967295, 2}}} {
		if _, err := bad.Text(); !errors.Is(err, sysbox.ErrInvalidConfig) {
			t.Errorf("%v: %v", bad, err)
		}
	}
	if _, err := (sysbox.IDMap{}).Text(); err == nil {
		t.Error("a map of nothing")
	}
	if _, err := sysbox.ParseIDMap("zero"); !errors.Is(err, sysbox.ErrInvalidConfig) {
		t.Error(err)
	}
}

// records is a handler that keeps what it is given.
type records struct {
	level slog.Level
	mu    sync.Mutex
	all   []slog.Record
}

func (r *records) Enabled(_ context.Context, l slog.Level) bool { return l >= r.level }
func (r *records) WithAttrs([]slog.Attr) slog.Handler           { return r }
func (r *records) WithGroup(string) slog.Handler                { return r }
func (r *records) Handle(_ context.Context, record slog.Record) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, record)
	return nil
}

// count is of the records that hold these words.
func (r *records) count(words string) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, record := range r.all {
		all := record.Message
		record.Attrs(func(a slog.Attr) bool {
			all += " " + a.String()
			return true
		})
		if strings.Contains(all, words) {
			n++
		}
	}
	return n
}

func TestForgotten(t *testing.T) {
	r := &records{level: slog.LevelWarn}
	if err := sysbox.SetLogger(slog.New(r)); err != nil {
		t.Fatal(err)
	}
	defer sysbox.SetLogger(nil)
	before := descriptors(t)
	func() {
		for range 10 {
			if _, err := sysbox.New(sysbox.Options{StateDir: t.TempDir()}); err != nil {
				t.Fatal(err)
			}
		}
	}()
	for end := time.Now().Add(limit); r.count("handle=Runtime") < 10; runtime.GC() {
		if time.Now().After(end) {
			t.Fatalf("%d were found", r.count("handle=Runtime"))
		}
		time.Sleep(time.Millisecond)
	}
	for what, n := range descriptors(t) {
		if strings.Contains(what, "memfd") && n > before[what] {
			t.Errorf("%d of %s", n, what)
		}
	}
}

func TestLogger(t *testing.T) {
	l := newLab(t)
	r := &records{level: sysbox.LevelTrace}
	l.ok(sysbox.SetLogger(slog.New(r)))
	defer sysbox.SetLogger(nil)
	// What is changed in an engine's configuration is told.
	id := l.id()
	config := l.config(l.system(id, "/bin/true"))
	config = []byte(strings.Replace(string(config), `"linux":{`, `"linux":{"maskedPaths":["/proc/kcore"],`, 1))
	c, err := l.rt.Create(l.context(), id, config, sysbox.CreateOptions{})
	l.ok(err)
	defer c.Close()
	if r.count("target=sysbox_core") == 0 {
		t.Errorf("%d records", r.count(""))
	}
	l.ok(sysbox.SetLogger(nil))
	n := r.count("")
	l.delete(c)
	if r.count("") != n {
		t.Error("it goes on")
	}
}
