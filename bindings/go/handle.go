package sysbox

import (
	"context"
	"runtime"
	"sync"

	"sysbox.example/sysbox/internal/capi"
)

// handle keeps a C handle alive while calls use it: Close never waits for them, and the last of them frees it.
type handle[P any] struct {
	p    P
	free func(P)
	// Done when it is closed, for those who wait.
	closing context.Context
	shut    context.CancelFunc

	mu     sync.Mutex
	users  int
	closed bool
}

func newHandle[P any](p P, free func(P)) *handle[P] {
	h := &handle[P]{p: p, free: free}
	h.closing, h.shut = context.WithCancel(context.Background())
	return h
}

// guard closes a handle when its owner was forgotten, and says so.
func guard[O, P any](owner *O, h *handle[P], what string) {
	runtime.AddCleanup(owner, func(h *handle[P]) {
		if h.close() {
			leaked(what)
		}
	}, h)
}

// hold says whether the handle may be used, until drop.
func (h *handle[P]) hold() bool {
	if h == nil {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return false
	}
	h.users++
	return true
}

func (h *handle[P]) drop() {
	h.mu.Lock()
	h.users--
	last := h.closed && h.users == 0
	h.mu.Unlock()
	if last {
		h.free(h.p)
	}
}

// close says whether it was open.
func (h *handle[P]) close() bool {
	if h == nil {
		return false
	}
	h.mu.Lock()
	was := !h.closed
	h.closed = true
	last := was && h.users == 0
	h.mu.Unlock()
	if was {
		h.shut()
	}
	if last {
		h.free(h.p)
	}
	return was
}

// do runs one call with the handle.
func (h *handle[P]) do(op string, f func(P) *capi.Error) error {
	if !h.hold() {
		return closedError(op)
	}
	defer h.drop()
	return failure(f(h.p))
}

// do1 runs one call that gives something.
func do1[P, T any](h *handle[P], op string, f func(P) (T, *capi.Error)) (T, error) {
	var t T
	err := h.do(op, func(p P) (e *capi.Error) {
		t, e = f(p)
		return e
	})
	return t, err
}

// within runs one call that blocks, until the context ends. It always waits for the call to return.
func (h *handle[P]) within(ctx context.Context, op string, f func(P, capi.Cancel) *capi.Error) error {
	if !h.hold() {
		return closedError(op)
	}
	defer h.drop()
	return cancelable(ctx, op, func(c capi.Cancel) *capi.Error { return f(h.p, c) })
}

func cancelable(ctx context.Context, op string, f func(capi.Cancel) *capi.Error) error {
	if ctx.Err() != nil {
		return ended(ctx, op, "")
	}
	if ctx.Done() == nil {
		return failure(f(capi.Cancel{}))
	}
	cancel, e := capi.CancelNew()
	if e != nil {
		return failure(e)
	}
	defer capi.CancelFree(cancel)
	fired := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		capi.CancelTrigger(cancel)
		close(fired)
	})
	e = f(cancel)
	if !stop() {
		<-fired
	}
	if e != nil && e.Code == capi.Canceled && ctx.Err() != nil {
		return ended(ctx, e.Operation, e.Message)
	}
	return failure(e)
}
