package worker

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/engine"
	"github.com/terse-llm/terse/transfer"
)

// serveData answers whoever fetches KV from here.
func (w *Worker) serveData(ctx context.Context, payload []byte, to *transfer.Sender) error {
	switch {
	case bytes.HasPrefix(payload, lendPrefix):
		return w.lend(ctx, payload, to)
	case !w.cfg.Role.Prefills():
		return &terse.Error{Code: terse.CodeInvalid, Message: fmt.Sprintf("worker %s is a %s worker and computes no prompts for others", w.cfg.ID, w.cfg.Role)}
	}
	return w.servePrefill(ctx, payload, to)
}

// servePrefill computes a prompt for the decode worker at the other end; its
// KV goes there as the engine writes it.
func (w *Worker) servePrefill(ctx context.Context, payload []byte, to *transfer.Sender) error {
	var req terse.Request
	if err := json.Unmarshal(payload, &req); err != nil {
		return &terse.Error{Code: terse.CodeInvalid, Message: fmt.Sprintf("cannot read the prefill request: %v", err)}
	}
	if len(req.Prompt) != to.Tokens() {
		return &terse.Error{Code: terse.CodeInvalid, Message: fmt.Sprintf("a transfer of %d tokens for a prompt of %d", to.Tokens(), len(req.Prompt))}
	}
	return w.cfg.Engine.Prefill(ctx, &req, to, func(p engine.Prefilled) error {
		p.Timing.Pack = to.PackTime()
		done, err := json.Marshal(p)
		if err != nil {
			return fmt.Errorf("cannot encode the hand-over of request %s: %w", req.ID, err)
		}
		return to.Finish(done)
	})
}
