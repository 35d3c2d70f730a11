package sysbox_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"time"

	"sysbox.example/sysbox"
)

// A whole container: its program prints something and ends.
func Example() {
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	rt, err := sysbox.New(sysbox.Options{StateDir: "/run/my-tool"})
	if err != nil {
		log.Fatal(err)
	}
	defer rt.Close()
	config, err := sysbox.SystemContainer{
		Rootfs: "/srv/debian",
		Args:   []string{"/bin/sh", "-c", "echo I am $(id -u) in $(hostname)"},
		Memory: 512 << 20,
	}.Config()
	if err != nil {
		log.Fatal(err)
	}
	c, err := rt.Create(ctx, "job-1", config, sysbox.CreateOptions{Stdout: os.Stdout, Stderr: os.Stderr})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	// Not with ctx: it may have ended by then.
	defer c.Delete(context.Background(), sysbox.DeleteOptions{Force: true})
	if err := c.Start(ctx); err != nil {
		log.Fatal(err)
	}
	exit, err := c.Wait(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(exit)
}

// The output of a program in a container, up to SIGINT.
func ExampleContainer_Exec() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	rt, err := sysbox.New(sysbox.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer rt.Close()
	c, err := rt.Open("job-1")
	if errors.Is(err, sysbox.ErrNotFound) {
		log.Fatal("make it first")
	} else if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	r, w, err := os.Pipe()
	if err != nil {
		log.Fatal(err)
	}
	child, err := c.Exec(ctx, sysbox.Process{Args: []string{"docker", "ps"}}, sysbox.ExecOptions{Stdout: w})
	w.Close() // or the output would have no end
	if err != nil {
		log.Fatal(err)
	}
	defer child.Close()
	out, err := io.ReadAll(r)
	if err != nil {
		log.Fatal(err)
	}
	exit, err := child.Wait(ctx)
	if errors.Is(err, context.Canceled) {
		log.Fatal("interrupted")
	}
	fmt.Printf("%s%v\n", out, exit)
}

// What becomes of a container, until it is deleted.
func ExampleContainer_Watch() {
	rt, err := sysbox.New(sysbox.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer rt.Close()
	c, err := rt.Open("job-1")
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	events, err := c.Watch()
	if err != nil {
		log.Fatal(err)
	}
	defer events.Close()
	for event, err := range events.All(context.Background()) {
		if err != nil {
			log.Fatal(err)
		}
		if event == sysbox.OutOfMemory {
			log.Println("give it more memory")
		}
	}
}

// What the library does and why, down to every change of a configuration.
func ExampleSetLogger() {
	handler := slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})
	if err := sysbox.SetLogger(slog.New(handler)); err != nil {
		log.Fatal(err)
	}
	defer sysbox.SetLogger(nil)
}

func ExampleError() {
	_, err := sysbox.ParseIDMap("0 100000 65536\n1 300000 1")
	var e *sysbox.Error
	if errors.As(err, &e) {
		fmt.Println(e.Code)
	}
	fmt.Println(errors.Is(err, sysbox.ErrInvalidConfig))
	// Output:
	// SYSBOX_ERR_INVALID_CONFIG
	// true
}

func ExampleSystemContainer_Config() {
	config, err := sysbox.SystemContainer{
		Rootfs: "/srv/debian",
		Args:   []string{"/sbin/init"},
		Mounts: []sysbox.Mount{sysbox.Bind("/srv/data", "/data", false), sysbox.Tmpfs("/scratch", "size=64m")},
	}.Config()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(strings.Contains(string(config), `"destination":"/scratch"`))
	// Output: true
}

func ExampleIDMap() {
	m, err := sysbox.ParseIDMap("0 100000 65536")
	if err != nil {
		log.Fatal(err)
	}
	outside, err := m.ToOutside(1000)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(m, outside)
	// Output: [{0 100000 65536}] 101000
}

// Mounts a tree for a user namespace in which root is 100000 outside.
func ExampleMountIDMapped() {
	rt, err := sysbox.New(sysbox.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer rt.Close()
	m := sysbox.IDMap{{Inside: 0, Outside: 100000, Count: 65536}}
	userns, err := rt.NewUserNS(m, m)
	if err != nil {
		log.Fatal(err)
	}
	defer userns.Close()
	mount, err := sysbox.MountIDMapped("/srv/debian", userns, sysbox.MountOptions{})
	if err != nil {
		log.Fatal(err)
	}
	defer mount.Close()
	if _, err := os.Stat(fmt.Sprintf("/proc/self/fd/%d/etc/passwd", mount.Fd())); err != nil {
		log.Fatal(err)
	}
}
