package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/terse-llm/terse"
)

// run is one job at its worker: the numbering of its outputs and its lease.
type run struct {
	conn   *Conn
	worker string
	stream string
	ctx    context.Context
	cancel context.CancelCauseFunc
	silent int // ticks since the submitter's last word; serving.mu guards it

	mu       sync.Mutex // orders the stream: a number and its publication are one step
	next     uint64
	finished bool
}

// payloadSlack is what a message may have beyond its payload's parts: kind,
// number and the counts of its lists.
const payloadSlack = 64

// emit publishes an output, in several messages if it is large.
func (r *run) emit(out terse.Output) error {
	parts, err := splitOutput(out, r.conn.MaxPayload()-payloadSlack)
	if err != nil {
		return asInvalid(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.finished {
		return errors.New("cannot emit an output after the last one")
	}
	if r.ctx.Err() != nil {
		return context.Cause(r.ctx)
	}
	for _, part := range parts {
		if err := r.publish(part); err != nil {
			return err
		}
	}
	r.finished = out.Finish != ""
	return nil
}

func (r *run) publish(out terse.Output) error {
	data := binary.AppendUvarint([]byte{protocol, kindOutput}, r.next)
	data, err := appendOutput(data, out)
	if err != nil {
		return err
	}
	if err := r.conn.nc.Publish(r.stream, data); err != nil {
		return fmt.Errorf("cannot publish an output of %d bytes: %w", len(data), err)
	}
	r.next++
	return nil
}

// alive renews the worker's side of the job's lease.
func (r *run) alive() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.finished {
		return
	}
	if err := r.conn.nc.Publish(r.stream, aliveMessage(r.next)); err != nil {
		r.conn.log.Warn("cannot keep a job alive", "worker", r.worker, "error", err)
	}
}

// finish ends the stream with the handler's error where no output did.
func (r *run) finish(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.finished {
		return
	}
	r.finished = true
	if cause := context.Cause(r.ctx); errors.Is(cause, errShutdown) {
		err = fmt.Errorf("worker %q lost: %w", r.worker, cause)
	}
	if err == nil {
		err = fmt.Errorf("worker %q ended the job without a last output", r.worker)
	}
	if err := r.publish(terse.Output{Finish: terse.FinishError, Err: terse.AsError(err)}); err != nil {
		r.conn.log.Warn("cannot report the end of a job", "worker", r.worker, "error", err)
	}
}
