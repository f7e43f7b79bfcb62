package gateway

import (
	"context"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/cluster"
)

// Dispatcher runs requests on workers. [Cluster] is the real one; the HTTP
// side needs no more than this.
type Dispatcher interface {
	// Generate runs one request and calls emit, from one goroutine, for each
	// output in order. The last has Finish set; a failure is the returned error
	// (with a terse.Code), never an output. An error from emit, or the end of
	// ctx, cancels the request at the worker. The request is not changed.
	Generate(ctx context.Context, req *terse.Request, emit func(terse.Output) error) error
	// Ready is nil when a request could be run now, else says what is missing.
	Ready() error
	// Members are the workers known now, by ID.
	Members() []cluster.Member
}
