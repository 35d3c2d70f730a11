package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// limit is for a job with a Docker engine on a slow machine.
const limit = 120 * time.Second

const itself = "JOBRUNNER_TEST"

// This test program is the runner as well.
func TestMain(m *testing.M) {
	if os.Getenv(itself) != "" {
		main()
	}
	os.Exit(m.Run())
}

type lab struct {
	*testing.T
	tree, work string
}

func newLab(t *testing.T) lab {
	t.Helper()
	skip := func(reason string) {
		fmt.Fprintf(os.Stderr, "SKIP jobrunner/%s: %s\n", t.Name(), reason)
		t.Skip(reason)
	}
	if os.Geteuid() != 0 {
		skip("not root")
	}
	tree, err := exec.Command("../../../hack/rootfs.sh", "docker-bookworm").Output()
	if err != nil {
		skip(fmt.Sprintf("no tree docker-bookworm: %v", err))
	}
	l := lab{t, strings.TrimSpace(string(tree)), ""}
	// Beside the tree: on a file system that overlays can be on.
	l.work, err = os.MkdirTemp(filepath.Dir(l.tree), "jobrunner-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		l.nothingLeft()
		os.RemoveAll(l.work)
	})
	return l
}

// job is a runner; its output is in the buffers when it has ended.
func (l lab) job(script string) (c *exec.Cmd, stdout, stderr *bytes.Buffer) {
	l.Helper()
	path := filepath.Join(l.work, "script")
	if err := os.WriteFile(path, []byte(script), 0o600); err != nil {
		l.Fatal(err)
	}
	stdout, stderr = new(bytes.Buffer), new(bytes.Buffer)
	c = exec.Command(os.Args[0], "-work", l.work, l.tree, path)
	c.Env = append(os.Environ(), itself+"=1")
	c.Stdout, c.Stderr = stdout, stderr
	return c, stdout, stderr
}

func (l lab) end(c *exec.Cmd, code int, stderr fmt.Stringer) {
	l.Helper()
	late := time.AfterFunc(limit, func() { c.Process.Kill() })
	defer late.Stop()
	c.Wait()
	if got := c.ProcessState.ExitCode(); got != code {
		l.Fatalf("%v instead of %d: %s", c.ProcessState, code, stderr)
	}
}

func (l lab) nothingLeft() {
	l.Helper()
	for _, pattern := range []string{"job-*", "state/*/"} {
		if left, _ := filepath.Glob(filepath.Join(l.work, pattern)); len(left) > 0 {
			l.Errorf("left behind: %v", left)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || bytes.Contains(mounts, []byte(l.work)) {
		l.Errorf("mounts are left behind")
	}
}

const images = `
set -e
docker import /opt/busybox.tar busybox >/dev/null
mkdir /build
cd /build
printf 'FROM busybox\nCOPY given /given\nRUN cat /given /given >/made\n' >Dockerfile
echo twice >given
docker build -t built . >/build.log 2>&1 || { cat /build.log; exit 1; }
docker run --rm built cat /made
docker run -d built sleep 1000 >/dev/null
echo to stderr >&2
touch /traces-of-the-job
exit 42
`

func TestDockerInside(t *testing.T) {
	l := newLab(t)
	c, stdout, stderr := l.job(images)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	l.end(c, 42, stderr)
	if stdout.String() != "twice\ntwice\n" || stderr.String() != "to stderr\n" {
		t.Errorf("%q, %q", stdout, stderr)
	}
	if _, err := os.Lstat(l.tree + "/traces-of-the-job"); !os.IsNotExist(err) {
		t.Errorf("the job wrote to the tree: %v", err)
	}
}

func TestInterrupted(t *testing.T) {
	l := newLab(t)
	c, _, stderr := l.job("echo up; sleep 1000 & sleep 1000")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c.Stdout = w
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	// It comes while the script still runs.
	said := make([]byte, 3)
	r.SetReadDeadline(time.Now().Add(limit))
	if n, err := r.Read(said); err != nil || string(said[:n]) != "up\n" {
		t.Errorf("%q, %v", said[:n], err)
	}
	begin := time.Now()
	if err := c.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	l.end(c, 130, stderr)
	if took := time.Since(begin); took > 20*time.Second {
		t.Errorf("it took %v to end", took)
	}
}

func TestKilled(t *testing.T) {
	l := newLab(t)
	c, _, _ := l.job("echo up; sleep 1000")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c.Stdout = w
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	// Not while the container is being made, which may go on for a moment after that.
	said := make([]byte, 3)
	r.SetReadDeadline(time.Now().Add(limit))
	if n, err := r.Read(said); err != nil || string(said[:n]) != "up\n" {
		t.Errorf("%q, %v", said[:n], err)
	}
	c.Process.Kill()
	c.Wait()
	next, _, stderr := l.job("exit 3")
	if err := next.Start(); err != nil {
		t.Fatal(err)
	}
	l.end(next, 3, stderr)
	if left := strings.TrimSpace(stderr.String()); left != "" {
		t.Error(left)
	}
}
