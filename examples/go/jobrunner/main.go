// Jobrunner runs a shell script in a fresh system container with a Docker engine in it, and exits with the script's exit code.
//
//	jobrunner [-work DIR] ROOTFS SCRIPT
//
// ROOTFS is the directory of a root file system with a shell and Docker, owned by root. It stays as it is: the job writes to an overlay,
// which goes with it. SIGINT and SIGTERM end the job. What a runner that was killed has left, the next one takes away.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"sysbox.example/sysbox"
)

// engine is the container's pid 1.
const engine = `rm -f /var/run/docker.pid; dockerd >/var/log/dockerd.log 2>&1 & wait`

// script runs what comes on its standard input when the engine is up.
const script = `
for i in $(seq 600); do docker info >/dev/null 2>&1 && exec /bin/sh -s; sleep 0.1; done
echo "jobrunner: no Docker engine:" >&2; tail /var/log/dockerd.log >&2; exit 125`

func main() {
	work := flag.String("work", "/var/tmp/jobrunner", "where jobs write, on a file system that overlays may be on")
	flag.Parse()
	if flag.NArg() != 2 {
		fmt.Fprintln(os.Stderr, "usage: jobrunner [-work DIR] ROOTFS SCRIPT")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code, err := run(ctx, *work, flag.Arg(0), flag.Arg(1))
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "jobrunner:", err)
		code = 125
		if errors.Is(err, context.Canceled) {
			code = 130
		}
	}
	os.Exit(code)
}

func run(ctx context.Context, work, rootfs, path string) (code int, err error) {
	input, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer input.Close()
	rt, err := sysbox.New(sysbox.Options{StateDir: filepath.Join(work, "state")})
	if err != nil {
		return 0, err
	}
	defer rt.Close()
	j, err := newJob(rt, work, rootfs)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, j.remove(rt)) }()

	config, err := sysbox.SystemContainer{Rootfs: j.rootfs(), Args: []string{"/bin/sh", "-c", engine}, Hostname: "job"}.Config()
	if err != nil {
		return 0, err
	}
	c, err := rt.Create(ctx, j.id(), config, sysbox.CreateOptions{})
	if err != nil {
		return 0, err
	}
	defer c.Close()
	if err := c.Start(ctx); err != nil {
		return 0, err
	}
	// By pipes: a terminal of the host's is nothing for a container.
	var streams sync.WaitGroup
	stdout, err := stream(&streams, os.Stdout)
	if err != nil {
		return 0, err
	}
	defer stdout.Close()
	stderr, err := stream(&streams, os.Stderr)
	if err != nil {
		return 0, err
	}
	defer stderr.Close()
	child, err := c.Exec(ctx, sysbox.Process{Args: []string{"/bin/sh", "-c", script}},
		sysbox.ExecOptions{Stdin: input, Stdout: stdout, Stderr: stderr})
	if err != nil {
		return 0, err
	}
	defer child.Close()
	exit, err := child.Wait(ctx)
	if err != nil {
		return 0, err
	}
	// What the script has left running holds the pipes, and ends here.
	if err := c.KillAll(syscall.SIGKILL); err != nil {
		return 0, err
	}
	stdout.Close()
	stderr.Close()
	streams.Wait()
	return exit.Code, nil
}

// stream makes a pipe from which everything is copied as it comes.
func stream(wg *sync.WaitGroup, to io.Writer) (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	wg.Add(1)
	go func() {
		defer wg.Done()
		defer r.Close()
		io.Copy(to, r)
	}()
	return w, nil
}

// job is a directory with an overlay, locked for as long as its runner lives.
type job struct{ lock *os.File }

func (j job) rootfs() string { return filepath.Join(j.lock.Name(), "rootfs") }
func (j job) id() string     { return filepath.Base(j.lock.Name()) }

func newJob(rt *sysbox.Runtime, work, rootfs string) (job, error) {
	rootfs, err := filepath.Abs(rootfs)
	if err != nil {
		return job{}, err
	}
	if strings.ContainsAny(rootfs+work, `:,\`) {
		return job{}, errors.New("paths with one of : , \\ mean something else to an overlay")
	}
	if err := os.MkdirAll(work, 0o711); err != nil {
		return job{}, err
	}
	// Nobody else looks at jobs while one is made.
	all, err := locked(work, syscall.LOCK_EX)
	if err != nil {
		return job{}, err
	}
	defer all.Close()
	old, err := filepath.Glob(filepath.Join(work, "job-*"))
	if err != nil {
		return job{}, err
	}
	for _, dir := range old {
		if lock, err := locked(dir, syscall.LOCK_EX|syscall.LOCK_NB); err == nil {
			if err := (job{lock}).remove(rt); err != nil {
				fmt.Fprintln(os.Stderr, "jobrunner: what another has left stays:", err)
			}
		}
	}

	dir, err := os.MkdirTemp(work, "job-")
	if err != nil {
		return job{}, err
	}
	lock, err := locked(dir, syscall.LOCK_EX)
	if err != nil {
		return job{}, errors.Join(err, os.Remove(dir))
	}
	j := job{lock}
	for _, name := range []string{"upper", "work", "rootfs"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			return job{}, errors.Join(err, j.remove(rt))
		}
	}
	layers := fmt.Sprintf("lowerdir=%s,upperdir=%s/upper,workdir=%s/work", rootfs, dir, dir)
	if err := syscall.Mount("overlay", j.rootfs(), "overlay", 0, layers); err != nil {
		return job{}, errors.Join(fmt.Errorf("mount an overlay of %s: %w", rootfs, err), j.remove(rt))
	}
	return j, nil
}

// remove takes away whatever there is of a job, also when its context has ended.
func (j job) remove(rt *sysbox.Runtime) error {
	defer j.lock.Close()
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	c, err := rt.Open(j.id())
	if err == nil {
		err = c.Delete(ctx, sysbox.DeleteOptions{Force: true})
		c.Close()
	}
	if err != nil && !errors.Is(err, sysbox.ErrNotFound) {
		return err
	}
	if err := syscall.Unmount(j.rootfs(), 0); err != nil && err != syscall.EINVAL && err != syscall.ENOENT {
		return fmt.Errorf("unmount %s: %w", j.rootfs(), err)
	}
	return os.RemoveAll(j.lock.Name())
}

func locked(dir string, how int) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	for {
		if err = syscall.Flock(int(f.Fd()), how); err != syscall.EINTR {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return f, nil
}
