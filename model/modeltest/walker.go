package modeltest

import (
	"sync/atomic"
	"time"

	"github.com/terse-llm/terse/model"
)

// Walker is a runner whose steps take Pause, in nanoseconds, longer: an engine that
// others can keep up with, however fast the machine is.
type Walker struct {
	model.Runner
	Pause *atomic.Int64
}

// Step is model.Runner's.
func (w Walker) Step(b *model.Batch) (model.Result, error) {
	time.Sleep(time.Duration(w.Pause.Load()))
	return w.Runner.Step(b)
}
