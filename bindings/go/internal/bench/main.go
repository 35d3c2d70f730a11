// Bench measures how long a container that runs `true` takes, from start to end, in a process with a big heap: through the library, and
// through runtimes as child processes. For hack/bench.sh.
//
//	bench [-runs N] [-heap MiB] VARIANT...
//
// A variant is go,STATE,BUNDLE or NAME,PROGRAM,STATE,BUNDLE. Prints a line for each run: the variant's name and milliseconds, or
// `failed`.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"sysbox.example/sysbox"
)

func main() {
	runs := flag.Int("runs", 20, "measured runs of each variant")
	heap := flag.Int("heap", 1024, "MiB of live heap")
	flag.Parse()
	ballast := make([][]byte, *heap)
	for i := range ballast {
		ballast[i] = make([]byte, 1<<20)
		for at := 0; at < len(ballast[i]); at += os.Getpagesize() {
			ballast[i][at] = 1
		}
	}
	for _, variant := range flag.Args() {
		if err := measure(strings.Split(variant, ","), *runs); err != nil {
			fmt.Fprintf(os.Stderr, "bench: %s: %v\n", variant, err)
			name, _, _ := strings.Cut(variant, ",")
			fmt.Println(name, "failed")
		}
	}
	runtime.KeepAlive(ballast)
}

func measure(variant []string, runs int) error {
	var once func(id string) error
	switch len(variant) {
	case 3:
		rt, err := sysbox.New(sysbox.Options{StateDir: variant[1]})
		if err != nil {
			return err
		}
		defer rt.Close()
		once = func(id string) error { return life(rt, id, variant[2]) }
	case 4:
		once = func(id string) error {
			return exec.Command(variant[1], "--root", variant[2], "run", "-b", variant[3], id).Run()
		}
	default:
		return fmt.Errorf("not a variant")
	}
	for i := -2; i < runs; i++ {
		begin := time.Now()
		if err := once(fmt.Sprintf("bench-%d-%s", os.Getpid(), variant[0])); err != nil {
			return err
		}
		if i >= 0 {
			fmt.Printf("%s %.3f\n", variant[0], time.Since(begin).Seconds()*1000)
		}
	}
	return nil
}

func life(rt *sysbox.Runtime, id, bundle string) error {
	ctx := context.Background()
	c, err := rt.Create(ctx, id, nil, sysbox.CreateOptions{Bundle: bundle})
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Start(ctx); err != nil {
		return err
	}
	if exit, err := c.Wait(ctx); err != nil || exit.Code != 0 {
		return fmt.Errorf("%v: %w", exit, err)
	}
	return c.Delete(ctx, sysbox.DeleteOptions{})
}
