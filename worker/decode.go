package worker

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/cluster"
	"github.com/terse-llm/terse/engine"
	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/route"
	"github.com/terse-llm/terse/transfer"
)

// handle runs one job on a decoding worker.
func (w *Worker) handle(ctx context.Context, job cluster.Job, emit func(terse.Output) error) error {
	if job.Host > 0 {
		return w.host(ctx, job)
	}
	req := job.Request
	emit = w.stamped(job, emit)
	if w.cfg.Replicas > 0 {
		var stop func()
		emit, stop = w.replicated(ctx, job, emit)
		defer stop()
	}
	// Prompt scores are made where the prompt is computed and may be larger than
	// its codes: such requests stay here.
	if job.Prefill == nil || job.Prefill.WorkerID == w.cfg.ID || req.Sampling.PromptLogprobs >= 0 {
		return w.cfg.Engine.Generate(ctx, &req, emit)
	}
	return w.cfg.Engine.Receive(ctx, &req, emit, func(ctx context.Context, view *quant.View, held int) (engine.Prefilled, error) {
		return w.fetch(ctx, job, view, held)
	})
}

// stamped adds to the last output's timing what only the worker knows.
func (w *Worker) stamped(job cluster.Job, emit func(terse.Output) error) func(terse.Output) error {
	return func(o terse.Output) error {
		if o.Timing != nil {
			o.Timing.KVFormat = w.cfg.Geometry.Format.Name
			o.Timing.DecodeWorker = w.cfg.ID
			o.Timing.Route = job.Route
			if o.Timing.PrefillWorker == "" {
				o.Timing.PrefillWorker = w.cfg.ID
			}
		}
		return emit(o)
	}
}

// fetch has the prompt prefilled by the job's target and takes over its KV. A
// target that fails is replaced by the next one, which sends what is missing.
//
// The prefix that this worker holds, of the conversation's last turn say, is not
// sent. The prefill worker computes what it does not hold itself: it has the
// last turn's prompt, and to compute the answer of that turn once more, in one
// pass, takes less than to fetch it from here would.
func (w *Worker) fetch(ctx context.Context, job cluster.Job, view *quant.View, held int) (p engine.Prefilled, err error) {
	f := w.client.Begin(view, len(job.Request.Prompt))
	defer func() {
		if p.Planes == nil {
			f.End()
		}
	}()
	f.Hold(held)
	later, why := w.apart(job, view)
	later = later && f.Apart()
	f.Lost = func(err error) {
		w.trouble.note(err, time.Now())
		w.log.Warn("second planes will not come; the answer goes on without", "request", job.Request.ID, "error", err)
	}
	for i, target := range append([]cluster.Target{*job.Prefill}, job.Others...) {
		if p, err = w.fetchFrom(ctx, f, job, target, i); err == nil {
			p.Timing.Retries, p.Timing.Planes = i, why
			if later && len(f.Missing()) > 0 {
				p.Planes = f
			} else { // of the last ones some may have come since
				p.Timing.CountSecond(f.Bytes())
			}
			return p, nil
		}
		err = fmt.Errorf("prefill worker %s: %w", target.WorkerID, err)
		switch terse.CodeOf(err) {
		case terse.CodeTransfer, terse.CodeWorkerLost, terse.CodeOverloaded:
			w.log.Warn("a prefill failed", "request", job.Request.ID, "error", err)
		default:
			return p, err
		}
	}
	return p, err
}

// apart is whether second planes are to come apart from the rest, and why.
func (w *Worker) apart(job cluster.Job, view *quant.View) (bool, string) {
	switch {
	case view.CodedIDs != nil && (job.Apart || w.cfg.Progressive == route.ProgressiveOn):
		return false, "whole: GPUs read all planes"
	case job.Planes != "":
		return job.Apart, job.Planes
	}
	return w.cfg.Progressive == route.ProgressiveOn, "" // nobody but this worker has been asked
}

// fetchFrom is fetch from one target, the i-th of the job.
func (w *Worker) fetchFrom(ctx context.Context, f *transfer.Fetch, job cluster.Job, target cluster.Target, i int) (engine.Prefilled, error) {
	var p engine.Prefilled
	req := job.Request
	// Every attempt is a request of its own to the prefill worker, which may
	// still be letting go of the one before.
	req.ID = fmt.Sprintf("%s/%d.%d", req.ID, job.Attempt, i)
	payload, err := json.Marshal(req)
	if err != nil {
		return p, fmt.Errorf("cannot encode request %s: %w", job.Request.ID, err)
	}
	start := time.Now()
	res, err := f.From(ctx, target.DataAddr, payload)
	w.trouble.note(err, time.Now())
	if err != nil {
		return p, err
	}
	took := time.Since(start)
	if err := json.Unmarshal(res.Done, &p); err != nil {
		return p, &terse.Error{Code: terse.CodeTransfer, Message: fmt.Sprintf("cannot read the hand-over of %s: %v", target.WorkerID, err)}
	}
	if p.First < 0 || int(p.First) >= w.cfg.VocabSize {
		return p, &terse.Error{Code: terse.CodeTransfer, Message: fmt.Sprintf("worker %s handed over token %d of a vocabulary of %d", target.WorkerID, p.First, w.cfg.VocabSize)}
	}
	t := &p.Timing
	t.PrefillWorker = target.WorkerID
	// Clocks of two machines do not compare, durations do: what the fetch took
	// beyond the other side's own work is transfer that prefill did not hide.
	t.Transfer = max(0, took-t.Queue-t.Prefill-t.Quantise)
	t.TransferTotal = res.Last.Sub(res.First)
	t.KVBytesHeld = res.Held
	defer func() { w.links.note(target.WorkerID, *t, time.Now()) }()
	t.KVSecond, t.Unpack = res.Second, res.Unpack
	t.KVBytes, t.KVExposed, t.KVBytesF16 = res.Bytes, min(res.Exposed, res.Bytes), transfer.F16Bytes(w.cfg.Geometry, len(job.Request.Prompt))
	return p, nil
}
