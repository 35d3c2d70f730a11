package sysbox

import (
	"context"
	"fmt"
	"io"
	"iter"
	"runtime"

	"sysbox.example/sysbox/internal/capi"
)

// Event is something that has become of a container. Others may come with later versions of the library.
type Event int32

// What becomes of containers.
const (
	Started     Event = 1 // its program was started
	Paused      Event = 2 // it was frozen
	Resumed     Event = 3 // it goes on
	OutOfMemory Event = 4 // it ran out of memory, and something in it may have been killed
	Stopped     Event = 5 // its init has ended
	Deleted     Event = 6 // it was deleted; there is no later event
)

func (e Event) String() string {
	names := []string{"none", "started", "paused", "resumed", "out of memory", "stopped", "deleted"}
	if e >= 0 && int(e) < len(names) {
		return names[e]
	}
	return fmt.Sprintf("event %d", int32(e))
}

// Events is a watch on a container. Any number of goroutines may use it; each event goes to one of them.
type Events struct {
	h *handle[capi.Events]
	// Done when there are no more events, or it is closed.
	over context.Context
	end  context.CancelFunc
}

// Watch watches a container from now on. What the library does to it is seen, from whatever process, and what the kernel does; not what
// others do to its control groups.
func (c *Container) Watch() (*Events, error) {
	p, err := do1(c.h, "watch "+c.id, capi.ContainerWatch)
	if err != nil {
		return nil, err
	}
	e := &Events{h: newHandle(p, capi.EventsFree)}
	e.over, e.end = context.WithCancel(e.h.closing)
	guard(e, e.h, "Events of "+c.id)
	return e, nil
}

// Close ends the watch. Next returns, with [os.ErrClosed]. Closing it again does nothing.
func (e *Events) Close() error {
	e.h.close()
	return nil
}

// Next waits for the next event; no thread does meanwhile. After [Deleted] there is none: the error is [io.EOF]. Things that come and go
// between two calls may not be seen.
func (e *Events) Next(ctx context.Context) (Event, error) {
	const op = "wait for an event"
	if !e.h.hold() {
		return 0, closedError(op)
	}
	defer e.h.drop()
	// As in Child.Wait.
	defer runtime.KeepAlive(e)
	if e.over.Err() != nil {
		return 0, io.EOF
	}
	var event int32
	var failed *capi.Error
	look := func() bool {
		event, failed = capi.EventsNext(e.h.p)
		return event != 0 || failed != nil
	}
	if !look() {
		if ctx.Err() != nil {
			return 0, ended(ctx, op, "")
		}
		fd, err := duplicate(uintptr(capi.EventsFD(e.h.p)))
		if err == nil {
			err = poll(ctx, e.over, fd, look)
		}
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return 0, ended(ctx, op, "")
		case e.h.closing.Err() != nil:
			return 0, closedError(op)
		case e.over.Err() != nil: // another goroutine was told
			return 0, io.EOF
		default:
			return 0, fmt.Errorf("sysbox: %s: %w", op, err)
		}
	}
	if Event(event) == Deleted {
		e.end()
	}
	return Event(event), failure(failed)
}

// All is the events until [Deleted], the end of the context, or an error, which comes last.
func (e *Events) All(ctx context.Context) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		for {
			event, err := e.Next(ctx)
			if err == io.EOF || !yield(event, err) || err != nil {
				return
			}
		}
	}
}
