package worker

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/engine"
	"github.com/terse-llm/terse/transfer"
)

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
