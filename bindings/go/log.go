package sysbox

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"sysbox.example/sysbox/internal/capi"
)

// LevelTrace is what the library calls trace: everything.
const LevelTrace = slog.LevelDebug - 4

// By the library's numbers.
var levels = []slog.Level{1: slog.LevelError, 2: slog.LevelWarn, 3: slog.LevelInfo, 4: slog.LevelDebug, 5: LevelTrace}

var logger atomic.Pointer[slog.Logger]

// SetLogger gives what the library has to say while it works to a logger, with the part of the library it comes from as "target"; and
// which handles were forgotten without Close. nil: it says nothing, which is how it begins. Concerns the whole process.
//
// Messages come from any goroutine that is in a call of this package, which waits for the logger meanwhile. The logger's handler must not
// call this package. What it is not enabled for when it is set is not asked for later.
func SetLogger(l *slog.Logger) error {
	ctx := context.Background()
	most := int32(0)
	for level := 1; level < len(levels) && l != nil; level++ {
		if l.Enabled(ctx, levels[level]) {
			most = int32(level)
		}
	}
	var f capi.LogFunc
	if most > 0 {
		handler := l.Handler()
		f = func(level int32, target, message string) { handle1(ctx, handler, level, target, message) }
	}
	if e := capi.LogSet(most, f); e != nil {
		return failure(e)
	}
	logger.Store(l)
	return nil
}

func handle1(ctx context.Context, handler slog.Handler, level int32, target, message string) {
	defer func() {
		// It must not unwind the library; a panic that nobody recovers from ends the program, as ever.
		if cause := recover(); cause != nil {
			go panic(cause)
		}
	}()
	l := slog.LevelError
	if level >= 1 && int(level) < len(levels) {
		l = levels[level]
	}
	if !handler.Enabled(ctx, l) {
		return
	}
	record := slog.NewRecord(time.Now(), l, message, 0)
	record.AddAttrs(slog.String("target", target))
	// Nobody is there to tell.
	_ = handler.Handle(ctx, record)
}

// leaked is told of a handle that was forgotten.
func leaked(what string) {
	if l := logger.Load(); l != nil {
		l.Warn("sysbox: forgotten without Close", "handle", what)
	}
}
